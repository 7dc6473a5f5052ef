"""Attention: by hand, against the other implementation, and with masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm.layers import attention

attend = functools.partial(
    jax.jit,
    static_argnames="implementation",
    compiler_options={"xla_backend_optimization_level": 0},
)(attention.attend)


def arrays(dtype=jnp.float32, queries=3, keys=5):
    shapes = [(2, queries, 2, 4), (2, keys, 2, 4), (2, keys, 2, 4)]
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(jnp.dtype(dtype)) for shape in shapes]


def test_by_hand():
    # One head of four channels, so logits are halved: softmax of (2 ln 3 / 2, 0) is
    # (3/4, 1/4), and the values 4 and 8 mix to 5.
    query = np.float32([2 * np.log(3), 0, 0, 0]).reshape(1, 1, 1, 4)
    key = np.float32([[1, 0, 0, 0], [0, 1, 0, 0]]).reshape(1, 2, 1, 4)
    value = np.float32([[4, 4, 4, 4], [8, 8, 8, 8]]).reshape(1, 2, 1, 4)
    np.testing.assert_allclose(attend(query, key, value), 5, rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_implementations_agree(dtype, atol, masked):
    query, key, value = arrays(dtype)
    mask = np.arange(5).reshape(1, 1, 1, 5) < np.array([2, 4]).reshape(2, 1, 1, 1)
    mask = mask if masked else None
    out = {
        name: attend(query, key, value, mask=mask, implementation=name)
        for name in ("head_major", "xla", "auto")
    }
    assert out["auto"].dtype == jnp.dtype(dtype)
    for name in ("xla", "auto"):
        np.testing.assert_allclose(
            np.float32(out[name]), np.float32(out["head_major"]), atol=atol
        )


def test_masked_keys_are_not_seen_and_a_blind_query_stays_finite():
    query, key, value = arrays()
    mask = np.array([True, True, False, False, False]).reshape(1, 1, 1, 5)
    expected = attend(query, key[:, :2], value[:, :2])
    hidden = attend(query, key, value, mask=mask)
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-6)
    blind = attend(query, key, value, mask=np.zeros_like(mask))
    mean = np.broadcast_to(value.mean(axis=1, keepdims=True), blind.shape)
    np.testing.assert_allclose(blind, mean, rtol=1e-5, atol=1e-6)


def test_order_of_the_keys_does_not_matter():
    query, key, value = arrays()
    turned = attend(query, key[:, ::-1], value[:, ::-1])
    expected = attend(query, key, value)
    np.testing.assert_allclose(turned, expected, rtol=1e-5, atol=1e-6)


def test_weights_are_taken_in_float32():
    # Logits of 512 and 514, both far beyond bfloat16's steps of 4 up there.
    one = np.ones((1, 1, 1, 4), jnp.bfloat16)
    key = np.concatenate([256 * one, 257 * one], axis=1).astype(jnp.bfloat16)
    key[:, 1, :, 0] = 260
    value = np.concatenate([0 * one, one], axis=1)
    logits = key.astype(np.float32).sum(axis=(2, 3))[0] / 2
    expected = 1 / (1 + np.exp(logits[0] - logits[1]))
    np.testing.assert_allclose(np.float32(attend(one, key, value)), expected, atol=4e-3)


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'cudnn'"):
        attend(*arrays(), implementation="cudn")
