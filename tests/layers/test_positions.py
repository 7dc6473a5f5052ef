"""Position embeddings: the reference's arrays, and the spelt-out one-line cases."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm.layers import positions
from big_mm.layers.positions import antialiased_weights, sincos_2d

resize = functools.partial(
    jax.jit,
    static_argnames=("rows", "columns", "method"),
    compiler_options={"xla_backend_optimization_level": 0},
)(positions.resize)
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "bv_posemb_resample.npz"


def line(new, method="antialiased"):
    """The ramp 0, 1, ... 15 brought to `new` points."""
    ramp = np.arange(16, dtype=np.float32).reshape(1, 16, 1)
    return np.asarray(resize(ramp, 1, new, method=method))[0, :, 0]


@pytest.mark.parametrize("side", [6, 3])
def test_corner_aligned_grids_of_the_reference(side):
    with np.load(GOLDEN) as golden:
        old = golden["old"].reshape(4, 4, 32)
        expected = golden[f"new{side}x{side}"].reshape(side, side, 32)
    np.testing.assert_allclose(resize(old, side, side), expected, atol=1e-6)


def test_fixed_positions_of_the_reference():
    with np.load(GOLDEN) as golden:
        expected = golden["sincos2d_4x6_w32"].reshape(4, 6, 32)
    np.testing.assert_allclose(sincos_2d(4, 6, 32), expected, atol=1e-6)


def test_antialiased_lines_by_hand():
    # Half as many points: a triangle of four, cut off and renormalised at both ends.
    expected = [0.714286, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.285714]
    np.testing.assert_allclose(line(8), expected, rtol=1e-6)
    expected = [0.3, 1.5, 2.818182, 4.181818, 5.5, 6.818182, 8.181818, 9.5]
    expected += [10.818182, 12.181818, 13.5, 14.7]
    np.testing.assert_allclose(line(12), expected, rtol=1e-6)
    np.testing.assert_allclose(line(16), np.arange(16), atol=1e-6)
    np.testing.assert_allclose(line(24)[:4], [0, 0.5, 1.166667, 1.833333], rtol=1e-6)


def test_aligned_lines_keep_their_ends():
    np.testing.assert_allclose(line(31, "aligned"), np.arange(31) / 2, rtol=1e-6)
    np.testing.assert_allclose(line(4, "aligned"), [0, 5, 10, 15], rtol=1e-6)


@pytest.mark.parametrize("method", ["aligned", "antialiased"])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 9), (100, 3)])
def test_a_constant_stays_constant_on_every_grid(method, shape):
    grid = jnp.full((4, 4, 3), 2.5)
    resized = resize(grid, *shape, method=method)
    assert resized.shape == (*shape, 3)
    np.testing.assert_allclose(resized, 2.5, rtol=1e-6)


def test_rows_and_columns_are_not_confused():
    grid = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 2)), "float32")
    for method in ("aligned", "antialiased"):
        forth = resize(grid, 3, 7, method=method)
        back = resize(grid.swapaxes(0, 1), 7, 3, method=method).swapaxes(0, 1)
        np.testing.assert_allclose(forth, back, rtol=1e-5, atol=1e-6)


def test_antialiased_resize_is_that_of_jax():
    grid = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 2)), "float32")
    for shape in ((3, 9), (11, 2)):
        expected = jax.image.resize(grid, (*shape, 2), "linear", antialias=True)
        actual = resize(grid, *shape, method="antialiased")
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_each_image_of_a_batch_may_have_its_own_line():
    sizes, index = jnp.array([[8], [72]]), jnp.array([[0, 5], [0, 71]])
    weights = jax.jit(antialiased_weights, static_argnames="old")
    out = weights(index, old=16, new=sizes) @ jnp.arange(16, dtype=jnp.float32)
    expected = [[line(8)[0], line(8)[5]], [line(72)[0], line(72)[71]]]
    np.testing.assert_allclose(out, np.array(expected), rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="'aligned' or 'antialiased'"):
        resize(jnp.ones((2, 2, 1)), 3, 3, method="cubic")
    with pytest.raises(ValueError, match="got 0 x 3"):
        resize(jnp.ones((2, 2, 1)), 0, 3)
    with pytest.raises(ValueError, match="got 30"):
        sincos_2d(2, 2, 30)
