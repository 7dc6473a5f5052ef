"""Position embeddings: fixed ones, and learned ones brought to another grid."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

METHODS = ("aligned", "antialiased")


def sincos_2d(
    rows: int, columns: int, width: int, *, temperature: float = 10_000.0
) -> Float[np.ndarray, "{rows} {columns} {width}"]:
    """Sines and cosines of the column, then of the row, at `width / 4` frequencies.

    Raises:
        ValueError: if the width is no multiple of 4 or has a single frequency.

    Source:
        Chen et al., "An Empirical Study of Training Self-Supervised Vision
        Transformers", 2021, arXiv:2104.02057, Section 4; the frequencies run from 1 to
        1 / temperature inclusively.
    """
    if width % 4 or width < 8:
        raise ValueError(f"sincos_2d needs a width of 8, 12, 16...: got {width}.")
    frequency = temperature ** -np.linspace(0, 1, width // 4)
    row, column = np.mgrid[:rows, :columns]
    parts = [f(place[..., None] * frequency) for place in (column, row) for f in _WAVES]
    return np.concatenate(parts, axis=-1).astype(np.float32)


_WAVES = (np.sin, np.cos)


def resize(
    grid: Float[Array, "H W D"] | Float[np.ndarray, "H W D"],
    rows: int,
    columns: int,
    *,
    method: str = "aligned",
) -> Float[Array, "{rows} {columns} D"]:
    """A learned grid brought to another number of rows and columns, linearly.

    Args:
        grid: position embeddings by row and column.
        rows: of the new grid.
        columns: of the new grid.
        method: "aligned" puts corners on corners, as fixed-resolution checkpoints are
            carried over (`scipy.ndimage.zoom` of order 1). "antialiased" takes
            half-pixel centres and a triangle as wide as the step, as NaFlex does.

    Raises:
        ValueError: on an unknown method or an empty grid.
    """
    if method not in METHODS:
        raise ValueError(f"method is 'aligned' or 'antialiased': got {method!r}.")
    if rows < 1 or columns < 1:
        raise ValueError(f"grids have rows and columns: got {rows} x {columns}.")
    weights = aligned_weights if method == "aligned" else _antialiased
    by_row, by_column = weights(grid.shape[0], rows), weights(grid.shape[1], columns)
    resized = jnp.einsum("ih,jw,hwd->ijd", by_row, by_column, jnp.float32(grid))
    return resized.astype(grid.dtype)


def aligned_weights(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """What each of `new` points takes of `old` ones, first on first, last on last."""
    place = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
    distance = np.abs(place[:, None] - np.arange(old))
    return np.maximum(1 - distance, 0).astype(np.float32)


def antialiased_weights(
    index: Num[Array, "*points"], *, old: int, new: Num[Array, "#*points"]
) -> Float[Array, "*points {old}"]:
    """What the points `index` of a line of `new` ones take of a line of `old` ones.

    Both may be traced and differ from point to point, so that each image of a batch
    has its own grid, and a grid may be of any length.

    Args:
        index: places on the new line, 0 to new - 1.
        old: points of the learned line.
        new: points of the new line.

    Source:
        Beyer et al., "big_vision" (NaFlex), 2022, and Tschannen et al., "SigLIP 2",
        2025, arXiv:2502.14786, Section 2.4.2: bilinear resizing with antialiasing.
    """
    step = old / jnp.asarray(new, jnp.float32)
    centre = (jnp.asarray(index, jnp.float32) + 0.5) * step - 0.5
    points = jnp.arange(old, dtype=jnp.float32)
    distance = jnp.abs(centre[..., None] - points.reshape((1,) * centre.ndim + (old,)))
    weights = jnp.maximum(1 - distance / jnp.maximum(step, 1)[..., None], 0)
    return weights / weights.sum(axis=-1, keepdims=True)


def _antialiased(old: int, new: int) -> Float[Array, "{new} {old}"]:
    return antialiased_weights(jnp.arange(new), old=old, new=jnp.full(new, new))
