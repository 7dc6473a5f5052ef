"""Text towers: sizes to the last weight, pooling, and what a bag may not see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm.models import text

quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
TINY = dict(vocab_size=20, variant="mu", length_tokens=5)


def shapes(tower):
    return jax.eval_shape(tower.init, jax.random.key(0))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Tschannen et al., 2025: sizes of the released weights, 256,000 pieces.
@pytest.mark.parametrize(
    ("variant", "head_width", "weights"),
    [
        ("B", 768, 282_303_744),
        ("L", 1024, 565_570_560),
        ("So400m", 1152, 707_782_896),
        ("So400m", 1536, 708_225_648),  # beside g-opt
    ],
)
def test_released_sizes_to_the_last_weight(variant, head_width, weights):
    tower = text.transformer(
        variant=variant, vocab_size=256_000, head_width=head_width, scan=True
    )
    assert count(shapes(tower)) == weights
    assert tower.width == head_width


def test_bottleneck_narrows_the_table_alone():
    # mSigLIP: 250,000 x 96 and 96 x 768 in place of 250,000 x 768.
    wide = text.transformer(vocab_size=250_000, scan=True)
    narrow = text.transformer(vocab_size=250_000, vocab_bottleneck=96, scan=True)
    saved = 250_000 * 768 - 250_000 * 96 - 96 * 768
    assert count(shapes(wide)) - count(shapes(narrow)) == saved
    assert shapes(narrow)["embed"]["embedding"].shape == (250_000, 96)


@pytest.mark.parametrize("pool", ["last", "first", "mean"])
def test_pools_take_what_the_tokens_say(pool):
    tower = text.transformer(**TINY, pool=pool, depth=0)
    ids = jnp.array([[3, 4, 5, 0, 0], [7, 8, 9, 10, 1]])
    out = quick(tower.apply)(quick(tower.init)(jax.random.key(0)), ids)
    tokens = np.asarray(out.tokens)
    expected = {"last": tokens[:, 4], "first": tokens[:, 0], "mean": tokens.mean(1)}
    np.testing.assert_allclose(out.embedding, expected[pool], rtol=1e-5, atol=1e-6)


def test_attention_pooling_has_a_probe():
    tower = text.transformer(**TINY, pool="map", head_width=7)
    out = jax.eval_shape(tower.apply, shapes(tower), jnp.ones((2, 5), int))
    assert shapes(tower)["pool"]["probe"].shape == (1, 32)
    assert out.embedding.shape == (2, 7)


def test_attention_looks_both_ways_and_at_the_padding():
    tower = text.transformer(**TINY, pool="first", vocab_bottleneck=3)
    params, apply = quick(tower.init)(jax.random.key(0)), quick(tower.apply)
    ids = jnp.array([[3, 4, 5, 0, 0]])
    first = apply(params, ids).embedding
    for place in (1, 4):  # a later piece, and padding
        assert not np.allclose(apply(params, ids.at[0, place].set(9)).embedding, first)
    with pytest.raises(ValueError, match="length_tokens=5: got 4"):
        tower.apply(params, ids[:, :4])


def test_a_bag_sees_neither_order_nor_padding():
    tower = text.bag(vocab_size=20, width=8, head_width=6, depth=2)
    params, apply = quick(tower.init)(jax.random.key(0)), quick(tower.apply)
    ids = jnp.array([[3, 4, 5, 1], [7, 1, 0, 0]])
    out = apply(params, ids)
    assert out.embedding.shape == (2, 6)
    assert out.tokens is None
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(apply(params, ids[:, ::-1]).embedding, out.embedding)
    padded = jnp.pad(ids, ((0, 0), (2, 3)))
    close(apply(params, padded).embedding, out.embedding)
    # The end of the text, piece 1, counts, and so does how often a piece stands there.
    assert not np.allclose(apply(params, ids.at[0, 3].set(0)).embedding, out.embedding)
    assert not np.allclose(apply(params, ids.at[0, 1].set(3)).embedding, out.embedding)


def test_a_bag_of_nothing_is_finite_and_another_piece_may_pad():
    tower = text.bag(vocab_size=20, width=8, pad_id=1)
    params = quick(tower.init)(jax.random.key(0))
    loss = lambda params, ids: jnp.square(tower.apply(params, ids).embedding).sum()
    grads = quick(jax.grad(loss))(params, jnp.ones((2, 4), int))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    np.testing.assert_array_equal(grads["embed"]["embedding"], 0)
    other = quick(jax.grad(loss))(params, jnp.zeros((2, 4), int))
    assert np.abs(other["embed"]["embedding"][0]).max() > 0


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (text.transformer, dict(TINY, variant="So400"), "Did you mean 'So400m'"),
        (text.transformer, dict(TINY, pool="lst"), "Did you mean 'last'"),
        (text.transformer, dict(TINY, length_tokens=0), "are positive"),
        (text.transformer, dict(TINY, dtype="float16"), "there is no dtype 'float16'"),
        (text.bag, dict(vocab_size=20, width=0), "sizes are positive"),
        (text.bag, dict(vocab_size=20, width=8, pad_id=20), "a piece of 20: got 20"),
    ],
)
def test_what_does_not_fit_is_refused(make, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong)
