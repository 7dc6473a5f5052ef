"""The two towers against the reference implementation, and their laws."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm import sharding
from big_mm.layers.blocks import stack, unstack
from big_mm.models import core, two_towers

# Optimised code runs no faster here and takes twice as long to compile.
quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
IMAGE = dict(
    name="models.vit:tower", variant="mu/8", image_px=32, depth=2, mlp=64, heads=2
)
TEXT = dict(
    name="models.text:transformer",
    variant="mu",
    vocab_size=64,
    length_tokens=8,
    depth=2,
    mlp=64,
)
CONV_AND_BAG = dict(
    image=dict(
        name="models.vit:tower",
        variant="mu",
        image_px=(18, 16),
        stem="conv",
        stem_layers=((8, 2), (8, 1), (16, 2)),
        pool="mean",
        head_width=24,
    ),
    text=dict(name="models.text:bag", vocab_size=64, width=16, length_tokens=8),
)

# The reference's names for a weight, from ours. First match wins.
NAMES = (
    (r"^log_scale$", "t"),
    (r"^bias$", "b"),
    (r"^image/", "img/"),
    (r"^text/", "txt/"),
    (r"/patch/", "/embedding/"),
    (r"/embed/embedding", "/Embed_0/embedding"),
    (r"/position$", "/pos_embedding"),
    (r"^img/blocks", "img/Transformer/encoderblock"),
    (r"^txt/blocks", "txt/Encoder_0/encoderblock"),
    (r"^img/norm/", "img/Transformer/encoder_norm/"),
    (r"^txt/norm/", "txt/Encoder_0/encoder_norm/"),
    (r"/pool/norm/", "/MAPHead_0/LayerNorm_0/"),
    (r"/pool/", "/MAPHead_0/"),
    (r"/norm_1/", "/LayerNorm_0/"),
    (r"/norm_2/", "/LayerNorm_1/"),
    (r"/attention/", "/MultiHeadDotProductAttention_0/"),
    (r"/mlp/up/", "/MlpBlock_0/Dense_0/"),
    (r"/mlp/down/", "/MlpBlock_0/Dense_1/"),
)


def reference_name(path):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def from_reference(arrays, like, prefix=""):
    """Weights shaped as `like`, read under the reference's names."""
    used = set()

    def read(path, leaf):
        used.add(prefix + reference_name(path))
        return jnp.asarray(arrays[prefix + reference_name(path)]).reshape(leaf.shape)

    params = jax.tree.map_with_path(read, like)
    return params, used


@functools.cache
def golden():
    with np.load(GOLDEN / "bv_siglip_tiny.npz") as file:
        return dict(file)


@functools.cache
def tiny(scan=False):
    """Model and the reference's weights, in either layout."""
    model = two_towers.make(image=IMAGE, text=TEXT, scan=scan)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    layout = "scan" if scan else "loop"
    with np.load(GOLDEN / f"bv_siglip_tiny_params_{layout}.npz") as file:
        params, used = from_reference(file, shapes, "params/")
        assert used == set(file.files)
    return model, params


@functools.cache
def small():
    """Convolutional stem and bag: the towers of a laptop, drawn at random."""
    model = two_towers.make(**CONV_AND_BAG)
    return model, quick(model.init)(jax.random.key(0)), quick(model.apply)


def pixels(images):
    shape = (images, 18, 16, 3)
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, shape), jnp.float32)


def pieces(*texts):
    return jnp.asarray(np.random.default_rng(1).integers(1, 64, (*texts, 8)), jnp.int32)


def inputs():
    return {side: jnp.asarray(golden()[f"in/{side}"]) for side in ("image", "text")}


def logits(out):
    return jnp.exp(out.log_scale) * out.image @ out.text.T + out.bias


@functools.cache
def update(scan):
    """Loss, outputs and gradients; the loss is written out here on purpose."""
    model, params = tiny(scan)

    def loss(params):
        out = model.apply(params, **inputs())
        sign = 2 * jnp.eye(len(out.image)) - 1
        return -jax.nn.log_sigmoid(sign * logits(out)).sum(axis=-1).mean(), out

    return quick(jax.value_and_grad(loss, has_aux=True))(params)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    check = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(check, actual, expected)


@pytest.mark.parametrize("scan", [False, True])
def test_outputs_of_the_reference(scan):
    (loss, out), _ = update(scan)
    close(out.image, golden()["out/zimg"], rtol=0, atol=5e-6)
    close(out.text, golden()["out/ztxt"], rtol=0, atol=5e-6)
    close(logits(out), golden()["out/logits"], rtol=0, atol=5e-6)
    close(out.image_tokens, golden()["mid/img/encoded"], rtol=0, atol=5e-6)
    close(out.text_tokens, golden()["mid/txt/transformed"], rtol=0, atol=5e-6)
    close(loss, golden()["out/loss"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("scan", [False, True])
def test_every_gradient_of_the_reference(scan):
    _, grads = update(scan)
    grads = unstack(grads) if scan else grads
    expected, used = from_reference(golden(), grads, "grad/")
    assert used == {key for key in golden() if key.startswith("grad/")}
    for (path, actual), wanted in zip(
        jax.tree.leaves_with_path(grads), jax.tree.leaves(expected), strict=True
    ):
        error = np.linalg.norm(actual - wanted)
        # A key's bias has no effect, so that its gradient is rounding on both sides.
        assert error <= 1e-4 * np.linalg.norm(wanted) + 1e-7, path


# Zhai et al., 2023 (32,000 pieces), and Tschannen et al., 2025: released sizes.
@pytest.mark.parametrize(
    ("variant", "image_px", "words", "vocab_size", "weights"),
    [
        ("B/16", 256, "B", 32_000, 203_202_050),
        ("B/32", 256, "B", 256_000, 376_856_066),
        ("B/16", 224, "B", 256_000, 375_187_970),
        ("B/16", 256, "B", 256_000, 375_234_050),
        ("L/16", 256, "L", 256_000, 881_526_786),
        ("So400m/14", 224, "So400m", 256_000, 1_135_463_602),
        ("So400m/16", 256, "So400m", 256_000, 1_135_670_962),
        ("g-opt/16", 256, "So400m", 256_000, 1_871_393_906),
    ],
)
def test_released_sizes_to_the_last_weight(
    variant, image_px, words, vocab_size, weights
):
    model = two_towers.make(
        image=dict(name="models.vit:tower", variant=variant, image_px=image_px),
        text=dict(name="models.text:transformer", variant=words, vocab_size=vocab_size),
        scan=True,
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == weights


def test_both_layouts_hold_the_same_weights():
    _, loop = tiny(False)
    _, scanned = tiny(True)
    jax.tree.map(np.testing.assert_array_equal, stack(loop), scanned)
    jax.tree.map(np.testing.assert_array_equal, unstack(scanned), loop)


def test_a_text_does_not_see_the_others_and_keeps_its_axes():
    _, params, apply = small()
    texts = pieces(4, 3)
    out = apply(params, text=texts)
    assert out.text.shape == (4, 3, 24)
    assert out.image is None
    one = jnp.asarray(np.asarray(texts)[2, 1])
    close(apply(params, text=one).text, np.asarray(out.text)[2, 1])
    np.testing.assert_allclose(np.linalg.norm(out.text, axis=-1), 1, rtol=1e-6)


def test_tokens_of_texts_keep_their_axes():
    model, params = tiny()
    texts = jnp.asarray(golden()["in/text"]).reshape(2, 2, 8)
    out = jax.eval_shape(lambda p: model.apply(p, text=texts), params)
    assert out.text.shape == (2, 2, 32)
    assert out.text_tokens.shape == (2, 2, 8, 32)


def test_an_image_does_not_see_the_others():
    _, params, apply = small()
    images = pixels(8)
    out = apply(params, image=images).image
    order = np.array([0, 7, 6, 5, 4, 3, 2, 1])
    other = jnp.asarray(np.asarray(images)[order])
    close(apply(params, image=other).image, np.asarray(out)[order])


def test_half_precision_is_of_activations_only():
    model = two_towers.make(**CONV_AND_BAG, dtype="bfloat16")
    _, params, apply = small()
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    images = pixels(8)
    out = quick(model.apply)(params, image=images)
    assert out.image.dtype == jnp.float32
    assert out.image_tokens.dtype == jnp.bfloat16
    close(out.image, apply(params, image=images).image, rtol=0, atol=0.03)


@pytest.mark.parametrize("strategy", ["replicated", "fsdp"])
def test_eight_devices_compute_as_one_does(mesh, strategy):
    model, params, apply = small()
    batch = dict(image=pixels(8), text=pieces(8, 2))
    expected = apply(params, **batch)
    where = sharding.place(params, mesh, axes=model.axes, strategy=strategy)
    placed = jax.device_put(params, where)
    rows = jax.NamedSharding(mesh, jax.P("data"))
    actual = apply(placed, **jax.device_put(batch, rows))
    table = placed["text"]["embed"]["embedding"].addressable_shards[0].data
    assert table.shape == ((64, 2) if strategy == "fsdp" else (64, 16))
    assert len(actual.image.sharding.device_set) == 8
    close(actual, expected)


def test_rules_name_both_sides_and_only_theirs():
    model, params = tiny(True)
    rules = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = [axes for regex, axes in model.axes if re.search(regex, name)]
        rules[name] = found[0] if found else ()
        assert len(rules[name]) <= leaf.ndim
    attention = "blocks/attention"
    for side in ("image", "text"):
        query = rules[f"{side}/{attention}/query/kernel"]
        assert query == ("embed", "heads", None)
        assert rules[f"{side}/blocks/mlp/down/kernel"] == ("mlp", "embed")
        assert rules[f"{side}/norm/scale"] == ()
    assert rules["text/embed/embedding"] == ("vocab", "embed")
    assert rules["log_scale"] == ()
    matrices = {path for path in rules if path.endswith(("kernel", "embedding"))}
    assert matrices == {path for path in matrices if rules[path]}
    state = "opt/0/mu/image/blocks_3/mlp/up/kernel"  # optimizer state, other layout
    assert any(re.search(regex, state) for regex, _ in model.axes)


def test_scalars_start_where_told_and_the_bias_may_be_left_out():
    model = two_towers.make(**CONV_AND_BAG, log_scale=1.5, bias=None)
    _, params, _ = small()
    softmax = params | {"log_scale": jnp.float32(1.5)}
    softmax.pop("bias")
    out = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.structure(out) == jax.tree.structure(softmax)
    texts = jnp.ones((2, 8), int)
    assert quick(model.apply)(softmax, text=texts).bias is None
    np.testing.assert_allclose(np.exp(params["log_scale"]), 10, rtol=1e-6)
    assert params["bias"] == -10
    assert params["bias"].shape == params["log_scale"].shape == ()


def test_towers_and_words_that_do_not_fit_are_refused():
    sides = dict(image=IMAGE, text=TEXT)
    with pytest.raises(ValueError, match="Did you mean 'depth'"):
        two_towers.make(**sides | dict(image=IMAGE | dict(dept=2)))
    with pytest.raises(ValueError, match="32 for images and 16 for texts"):
        two_towers.make(**sides | dict(text=TEXT | dict(head_width=16)))
    with pytest.raises(ValueError, match="there is no dtype 'float8'"):
        two_towers.make(**sides, dtype="float8")
    with pytest.raises(ValueError, match="got neither"):
        tiny()[0].apply(tiny()[1])


def test_a_row_of_padding_gives_finite_gradients():
    # A masked pair must not poison the rest: the norm's gradient at zero is zero.
    grad = jax.grad(lambda x: core.unit(x).sum())(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(grad, 0)
    row = core.unit(jnp.array([[3.0, 4.0]]))
    np.testing.assert_allclose(row, [[0.6, 0.8]], rtol=1e-6)
