"""Blocks: layouts and recomputation change nothing; norms and MLPs by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from big_mm.layers.blocks import REMAT, Block, LayerNorm, Mlp, blocks, stack, unstack

quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


class Stack(nn.Module):
    scan: bool = False
    remat: str = "none"
    heads: int = 2

    @nn.compact
    def __call__(self, x, mask=None):
        sizes = dict(depth=2, heads=self.heads, mlp=6)
        return blocks(x, **sizes, scan=self.scan, remat=self.remat, mask=mask)


def tokens():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)


@functools.cache
def weights():
    shapes = jax.eval_shape(Stack().init, jax.random.key(0), tokens())["params"]
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


@functools.cache
def update(scan, remat):
    module = Stack(scan, remat)
    mask = jnp.array([True, True, False]).reshape(1, 1, 1, 3)

    def loss(params):
        return jnp.square(module.apply({"params": params}, tokens(), mask)).sum()

    params = stack(weights()) if scan else weights()
    value, grads = quick(jax.value_and_grad(loss))(params)
    return value, unstack(grads)


@pytest.mark.parametrize("remat", ["none", *REMAT])
@pytest.mark.parametrize("scan", [False, True])
def test_layout_and_recomputation_change_no_value_and_no_gradient(scan, remat):
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-4)
    jax.tree.map(close, update(scan, remat), update(False, "none"))


def test_recomputing_keeps_less():
    def kept(remat, scan=True):
        loss = lambda p: jnp.sum(Stack(scan, remat).apply({"params": p}, tokens()))
        params = stack(weights()) if scan else weights()
        backward = jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("full") < kept("dots_no_batch") <= kept("dots") < kept("none")
    assert kept("full", scan=False) < kept("none", scan=False)


def test_layouts_turn_into_each_other():
    tree = {"a": {"blocks_1": {"w": 1.0}, "blocks_0": {"w": 0.0}, "b": 2.0}, "c": 3.0}
    stacked = stack(tree)
    np.testing.assert_array_equal(stacked["a"]["blocks"]["w"], [0, 1])
    assert stacked["a"]["b"] == 2
    assert unstack(stacked) == tree
    assert stack(stacked) is not tree
    with pytest.raises(ValueError, match=r"without gaps: got \[0, 2\]"):
        stack({"blocks_0": {"w": 1.0}, "blocks_2": {"w": 1.0}})


def test_ten_layers_keep_their_order():
    tree = {f"blocks_{i}": {"w": float(i)} for i in range(12)}
    np.testing.assert_array_equal(stack(tree)["blocks"]["w"], np.arange(12))


def test_layers_start_apart_in_both_layouts():
    for scan in (False, True):
        params = quick(Stack(scan).init)(jax.random.key(0), tokens())["params"]
        kernel = np.asarray(stack(params)["blocks"]["mlp"]["up"]["kernel"])
        assert kernel.shape == (2, 4, 6)
        assert not np.allclose(kernel[0], kernel[1])
        assert np.abs(kernel).max() <= np.sqrt(6 / (4 + 6))  # Xavier's bound


def test_the_mask_hides_tokens_from_the_others():
    mask = jnp.array([True, True, False]).reshape(1, 1, 1, 3)
    apply = lambda x: Stack().apply({"params": weights()}, x, mask)[:, :2]
    grad = quick(jax.grad(lambda x: jnp.square(apply(x)).sum()))(tokens())
    np.testing.assert_array_equal(grad[:, 2], 0)
    assert np.abs(grad[:, :2]).min() > 0


def test_a_block_of_zero_weights_adds_nothing():
    module = Block(2, 6)
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens())
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    np.testing.assert_array_equal(quick(module.apply)(zero, tokens()), tokens())


def test_layer_norm_by_hand():
    # Mean 2, variance 2.5 of (0, 1, 3, 4): deviations over 1.5811.
    params = {"scale": jnp.array([1.0, 2, 1, 1]), "bias": jnp.array([0.0, 0, 0, 5])}
    out = quick(LayerNorm().apply)({"params": params}, jnp.array([[0.0, 1, 3, 4]]))
    deviation = 2.5**-0.5
    expected = [[-2 * deviation, -2 * deviation, deviation, 2 * deviation + 5]]
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize(("offset", "atol"), [(0, 1e-5), (1000, 5e-4)])
def test_layer_norm_of_the_definition_in_double_precision(offset, atol):
    x = offset + tokens()
    params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    exact = np.asarray(x, np.float64)
    exact = exact - exact.mean(axis=-1, keepdims=True)
    exact /= np.sqrt((exact**2).mean(axis=-1, keepdims=True) + 1e-6)
    out = quick(LayerNorm().apply)({"params": params}, x)
    np.testing.assert_allclose(out, exact, rtol=0, atol=atol)


def test_layer_norm_of_a_flat_row_has_finite_gradients():
    params = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
    grad = quick(jax.grad(lambda x: LayerNorm().apply(params, x)[0, 0]))
    grad = grad(jnp.ones((1, 4)))
    assert np.isfinite(grad).all()


def test_mlp_by_hand():
    # GELU in its tanh form: 0.8412 at 1 (the exact form has 0.8413) and 0.3457 at 0.5.
    params = {
        "up": {"kernel": jnp.array([[1.0, 0.5]]), "bias": jnp.zeros(2)},
        "down": {"kernel": jnp.array([[1.0], [10.0]]), "bias": jnp.array([0.25])},
    }
    out = quick(Mlp(2).apply)({"params": params}, jnp.array([[1.0]]))
    gelu = lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(out, [[gelu(1.0) + 10 * gelu(0.5) + 0.25]], rtol=1e-6)


def test_unknown_policy_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'full'"):
        Stack(remat="ful").init(jax.random.key(0), tokens())
    with pytest.raises(ValueError, match="heads=3, width=4"):
        Stack(heads=3).init(jax.random.key(0), tokens())
