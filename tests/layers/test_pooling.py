"""Pooling: what may not matter does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from big_mm.layers.pooling import MapHead, bag_mean

quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def test_map_head_reads_a_set_and_only_what_the_mask_shows():
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), "float32")
    head = MapHead(heads=2, mlp=16)
    params, apply = quick(head.init)(jax.random.key(1), tokens), quick(head.apply)
    pooled = apply(params, tokens)
    assert pooled.shape == (2, 8)
    turned = apply(params, tokens[:, ::-1])
    np.testing.assert_allclose(turned, pooled, rtol=1e-4, atol=1e-6)
    mask = jnp.arange(5)[None] < jnp.array([[3], [3]])
    masked = apply(params, tokens, mask)
    expected = apply(params, tokens[:, :3])
    np.testing.assert_allclose(masked, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(masked, pooled)


def test_map_head_adds_nothing_of_its_probe():
    tokens = jnp.ones((1, 5, 8))
    head = MapHead(heads=2, mlp=16)
    shapes = jax.eval_shape(head.init, jax.random.key(1), tokens)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    zero["params"]["probe"] = jnp.ones((1, 8))
    np.testing.assert_array_equal(quick(head.apply)(zero, tokens), 0)


def test_bag_by_hand():
    table = jnp.array([[100.0, 100], [1, 2], [3, 4], [5, 9]])
    ids = jnp.array([[1, 2, 0, 0], [3, 3, 1, 0], [0, 0, 0, 0]])
    expected = [[2, 3], [11 / 3, 20 / 3], [0, 0]]
    np.testing.assert_allclose(bag_mean(table, ids, pad_id=0), expected, rtol=1e-6)


def test_bag_sends_gradients_to_the_pieces_it_read():
    # Each piece gets one part in the number of pieces of each text it stands in.
    table = jnp.zeros((4, 2))
    ids = jnp.array([[1, 2, 0, 0], [3, 3, 1, 0], [0, 0, 0, 0]])
    grad = jax.grad(lambda table: bag_mean(table, ids, pad_id=0).sum())(table)
    column = np.array([0, 1 / 2 + 1 / 3, 1 / 2, 2 / 3])
    np.testing.assert_allclose(grad, np.stack([column, column], 1), rtol=1e-6)


def test_a_piece_outside_the_vocabulary_is_loud():
    assert np.isnan(bag_mean(jnp.ones((4, 2)), jnp.array([[4]]), pad_id=0)).all()
