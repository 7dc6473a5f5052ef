import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from big_mm.losses import contrastive

LOG10 = np.log(10.0)
SIGLIP = dict(log_scale=LOG10, bias=-10.0)
# Compiled: faster here, and a loss must compile anyway.
sigmoid = jax.jit(contrastive.sigmoid, static_argnames="chunk")
softmax = jax.jit(contrastive.softmax, static_argnames="chunk")
LOSSES = {
    "sigmoid": functools.partial(sigmoid, **SIGLIP),
    "softmax": functools.partial(softmax, log_scale=LOG10),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
close = functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-6)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def waves():
    """The pairs of the oracle: 8 rows of sin(0.7 i k) and sin(0.7 i k + 0.3)."""
    angle = 0.7 * np.outer(np.arange(1, 9), np.arange(1, 6))
    return unit(np.sin(angle)), unit(np.sin(angle + 0.3))


def draw(seed, *shape):
    x = np.random.default_rng(seed).normal(size=shape)
    return unit(x).astype(np.float32)


def softplus(x):
    return np.logaddexp(0, x)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# ---- numbers worked out by hand ----


def test_two_orthogonal_pairs_by_hand():
    # Logits are the 2 x 2 identity, so each image pays softplus(-1) for its own text
    # and softplus(0) for the other; the softmax of (1, 0) is the same both ways.
    eye = jnp.eye(2)
    close(sigmoid(eye, eye, log_scale=0.0, bias=0.0), softplus(-1) + np.log(2))
    close(softmax(eye, eye, log_scale=0.0), np.log1p(np.exp(-1)))


def test_two_texts_of_each_image_by_hand():
    # Image 0 has the texts e0, e1 and image 1 the texts e1, e0: each image sees one of
    # its own and one of the other's at logit 1, the rest at 0.
    eye = jnp.eye(2)
    text = jnp.stack([eye, eye[::-1]])
    pays = softplus(-1) + softplus(0) + softplus(1) + softplus(0)
    close(sigmoid(eye, text, log_scale=0.0, bias=0.0), [pays, pays])
    # Softmax: an image sees the logits 1, 0, 1, 0 and its positives are a 1 and a 0. A
    # text at logit 1 with its image loses -log s(1), one at logit 0 loses -log s(-1).
    by_image = np.log(2 * np.e + 2) - 0.5
    by_text = (softplus(-1) + softplus(1)) / 2
    close(softmax(eye, text, log_scale=0.0), np.full(2, (by_image + by_text) / 2))


def test_shared_concept_by_hand():
    # Rows 0 and 2 show the same thing: all nine logits of three like vectors are 1.
    one = jnp.ones((3, 1))
    concept = jnp.array([7, 0, 7])
    value = sigmoid(one, one, log_scale=0.0, bias=0.0, concept=concept)
    yes, no = softplus(-1), softplus(1)
    close(value, [2 * yes + no, yes + 2 * no, 2 * yes + no])
    # -log p is log 3 for each positive, and their mean, not their sum, is paid.
    close(softmax(one, one, log_scale=0.0, concept=concept), np.full(3, np.log(3)))


def test_softmax_of_a_shared_concept_is_the_mean_over_its_texts():
    # Logits of image 0: 1, 0, 0 with positives 0 and 2; of image 2 the same texts.
    image, text = jnp.eye(3), jnp.eye(3)
    value = softmax(image, text, log_scale=0.0, concept=jnp.array([7, 0, 7]))
    normalizer = np.log(np.e + 2)
    close(value, [normalizer - 0.5, normalizer - 1, normalizer - 0.5])


@each_loss
def test_absent_texts_count_nowhere(loss):
    image, text = draw(0, 4, 8), draw(1, 4, 3, 8)
    present = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0]], bool)
    # Row by row: a text that is not there may as well be anything, even NaN.
    noise = np.where(present[..., None], text, np.nan)
    value, gradient = jax.value_and_grad(
        lambda i, t: loss(i, t, text_present=present).sum(), argnums=(0, 1)
    )(image, noise)
    other = loss(image, np.where(present[..., None], text, 5.0), text_present=present)
    close(value, other.sum())
    assert np.isfinite(gradient[0]).all()
    assert not gradient[1][~present].any()
    assert gradient[1][present].any(axis=-1).all()


@each_loss
def test_keeping_one_text_of_each_image_is_the_loss_of_pairs(loss):
    image, text = draw(0, 4, 8), draw(1, 4, 3, 8)
    present = np.zeros((4, 3), bool)
    present[:, 1] = True
    close(loss(image, text, text_present=present), loss(image, text[:, 1]))


def test_row_without_texts_pays_as_a_negative_only():
    image, text = draw(0, 3, 8), draw(1, 3, 8)
    present = np.array([[True], [False], [True]])
    kept = [0, 2]
    value = sigmoid(image, text, **SIGLIP, text_present=present)
    close(value[1], softplus(10 * image[1] @ text[kept].T - 10).sum(), rtol=1e-5)
    value = softmax(image, text, log_scale=LOG10, text_present=present)
    assert value[1] == 0
    logits = 10 * image @ text[kept].T
    by_text = np.log(np.exp(logits).sum(axis=0)) - logits[kept, [0, 1]]
    by_image = np.log(np.exp(logits[kept]).sum(axis=1)) - logits[kept, [0, 1]]
    close(value[np.array(kept)], (by_image + by_text) / 2)


@each_loss
def test_batch_without_any_text_costs_nothing(loss):
    image = draw(0, 3, 8)
    absent = np.zeros((3, 1), bool)
    for chunk in (None, 2):
        value, gradient = jax.value_and_grad(
            lambda i, c=chunk: loss(i, i, text_present=absent, chunk=c).sum()
        )(image)
        assert value == 0
        assert not gradient.any()


# ---- numbers derived from the formula of the paper ----


@pytest.mark.parametrize("chunk", [None, 1, 3, 8])
def test_oracle_in_float64(x64, chunk):
    image, text = waves()

    def mean(log_scale, bias):
        return sigmoid(image, text, log_scale=log_scale, bias=bias, chunk=chunk).mean()

    value, slope = jax.value_and_grad(mean, argnums=(0, 1))(LOG10, -10.0)
    np.testing.assert_allclose(value, 0.88470435003785, rtol=1e-13)
    np.testing.assert_allclose(slope, [-5.643405224185, -0.583739961077], rtol=1e-12)
    value = softmax(image, text, log_scale=LOG10, chunk=chunk).mean()
    np.testing.assert_allclose(value, 0.002497363504, rtol=3e-10)


def test_oracle_in_float32():
    image, text = waves()
    value = sigmoid(image, text, **SIGLIP)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value.mean(), 0.88470435003785, rtol=5e-7)
    value = softmax(image, text, log_scale=LOG10).mean()
    np.testing.assert_allclose(value, 0.002497363504, rtol=5e-5)


@pytest.mark.parametrize(("rows", "expected"), [(2, 0.69319257946), (8, 0.69346497285)])
def test_orthonormal_pairs(x64, rows, expected):
    eye = np.eye(rows)
    np.testing.assert_allclose(sigmoid(eye, eye, **SIGLIP), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(2, 10.00009079780), (8, 10.00036319119)],
)
def test_pairs_without_similarity(x64, rows, expected):
    image, text = np.split(np.eye(2 * rows), 2)
    np.testing.assert_allclose(sigmoid(image, text, **SIGLIP), expected, rtol=1e-11)
    unbiased = sigmoid(image, text, log_scale=LOG10, bias=0.0)
    np.testing.assert_allclose(unbiased, rows * np.log(2), rtol=1e-12)
    even = softmax(image, text, log_scale=LOG10)
    np.testing.assert_allclose(even, np.log(rows), rtol=1e-12)


@pytest.mark.parametrize(("rows", "expected"), [(2, -0.99990920), (4096, -0.81405)])
def test_slope_of_the_bias_without_similarity(rows, expected):
    image = jnp.zeros((rows, 1))

    def mean(bias):
        return sigmoid(image, image, log_scale=LOG10, bias=bias, chunk=512).mean()

    np.testing.assert_allclose(jax.grad(mean)(-10.0), expected, rtol=1e-5)


def test_calibrated_bias_is_the_prior():
    # One text of 8 is an image's own: at logit -ln 7 the loss does not move the bias.
    image = jnp.zeros((8, 1))
    mean = lambda bias: sigmoid(image, image, log_scale=LOG10, bias=bias).mean()
    close(jax.grad(mean)(-np.log(7.0)), 0)


# ---- laws ----


@each_loss
def test_order_of_the_batch_does_not_matter(loss):
    image, text = draw(0, 12, 16), draw(1, 12, 2, 16)
    concept = np.arange(12) % 5
    order = np.random.default_rng(2).permutation(12)
    shuffled = loss(image[order], text[order], concept=concept[order])
    close(shuffled, loss(image, text, concept=concept)[order], rtol=1e-5)


@each_loss
def test_mean_is_the_same_from_either_side(loss):
    image, text = draw(0, 12, 16), draw(1, 12, 16)
    close(loss(image, text).mean(), loss(text, image).mean(), rtol=1e-5)


@each_loss
def test_texts_of_a_row_are_equals(loss):
    image, text = draw(0, 6, 8), draw(1, 6, 3, 8)
    close(loss(image, text[:, ::-1]), loss(image, text), rtol=1e-5)


def test_sigmoid_of_several_texts_is_a_sum_over_slots():
    image, text = draw(0, 6, 8), draw(1, 6, 3, 8)
    slots = [sigmoid(image, text[:, k], **SIGLIP) for k in range(3)]
    close(sigmoid(image, text, **SIGLIP), np.sum(slots, axis=0), rtol=1e-5)


def test_softmax_does_not_see_a_constant_but_sigmoid_does():
    image, text = draw(0, 6, 8), draw(1, 6, 8)
    image, text = (
        np.pad(x, ((0, 0), (0, 1)), constant_values=1) for x in (image, text)
    )
    close(
        softmax(image, text, log_scale=1.0),
        softmax(image[:, :-1], text[:, :-1], log_scale=1.0),
        rtol=1e-5,
    )
    shifted = sigmoid(image, text, log_scale=0.0, bias=-1.0)
    close(shifted, sigmoid(image[:, :-1], text[:, :-1], log_scale=0.0, bias=0.0))


@each_loss
def test_large_logits_stay_finite(loss):
    image, text = draw(0, 6, 8), -draw(0, 6, 8)
    for chunk in (None, 4):
        value, gradient = jax.value_and_grad(
            lambda i, c=chunk: loss(i, text, log_scale=7.0, chunk=c).sum()
        )(image)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@each_loss
def test_bfloat16_embeddings_keep_a_float32_loss(loss):
    image, text = jnp.bfloat16(draw(0, 6, 8)), jnp.bfloat16(draw(1, 6, 2, 8))
    expected = loss(jnp.float32(image), jnp.float32(text))
    for chunk in (None, 5):
        value = loss(image, text, chunk=chunk)
        assert value.dtype == jnp.float32
        close(value, expected)
    close(
        loss(image, jnp.float32(text)), expected
    )  # either tower may be the narrow one
    gradient = jax.grad(lambda i: loss(i, text, chunk=5).sum())(image)
    assert gradient.dtype == jnp.bfloat16
    wide = jax.grad(lambda i: loss(i, jnp.float32(text)).sum())(jnp.float32(image))
    np.testing.assert_allclose(jnp.float32(gradient), wide, rtol=1e-2, atol=1e-2)


# ---- chunks and devices ----


def everything():
    image, text = draw(0, 8, 16), draw(1, 8, 3, 16)
    rng = np.random.default_rng(2)
    concept, present = rng.integers(0, 5, 8), rng.random((8, 3)) < 0.7
    return image, text, dict(concept=concept, text_present=present)


@each_loss
@pytest.mark.parametrize("chunk", [5, 8, 100])
def test_chunks_change_neither_value_nor_gradient(loss, chunk):
    image, text, extra = everything()
    weight = np.arange(1.0, 9.0, dtype=np.float32)

    def total(image, text, log_scale, chunk):
        value = loss(image, text, log_scale=log_scale, chunk=chunk, **extra)
        return (weight * value).sum(), value

    grad = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
    expected = grad(image, text, LOG10, None)
    actual = jax.jit(grad, static_argnums=3)(image, text, LOG10, chunk)
    jax.tree.map(functools.partial(close, rtol=2e-5, atol=2e-6), actual, expected)


@each_loss
def test_chunks_bound_the_logits_that_are_held(loss):
    image, text = draw(0, 256, 4), draw(1, 256, 4)

    def temporaries(chunk):
        grad = jax.grad(lambda i, t: loss(i, t, chunk=chunk).sum(), argnums=(0, 1))
        compiled = jax.jit(grad).lower(image, text).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = 256 * 256 * 4
    assert temporaries(None) >= whole
    assert temporaries(16) < whole / 2


@each_loss
@pytest.mark.parametrize("chunk", [None, 5])
def test_eight_devices_give_the_same_loss_and_gradient(mesh, loss, chunk):
    image, text, extra = everything()

    def total(image, text, extra):
        value = loss(image, text, chunk=chunk, **extra)
        return value.sum(), value

    grad = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    expected = grad(image, text, extra)
    on_mesh = NamedSharding(mesh, PartitionSpec("data"))
    actual = grad(*jax.device_put((image, text, extra), on_mesh))
    assert len(actual[1][0].sharding.device_set) == 8
    jax.tree.map(functools.partial(close, rtol=1e-5), actual, expected)


@each_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_are_exact_on_accelerators_too(loss, dtype):
    # The CPU does not show it: TF32 and single-pass bfloat16 are defaults elsewhere.
    image = draw(0, 4, 8).astype(dtype)
    program = str(jax.make_jaxpr(jax.grad(lambda i: loss(i, i, chunk=2).sum()))(image))
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products
    assert program.count("Precision.HIGHEST") == 2 * len(products)


@each_loss
def test_bad_input_is_refused(loss):
    image = draw(0, 4, 8)
    with pytest.raises(ValueError, match="1 or more"):
        loss(image, image, chunk=0)
    with pytest.raises(ValueError, match="one entry for each text"):
        loss(image, image, text_present=np.ones((4, 2), bool))
