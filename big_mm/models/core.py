"""What every architecture gives: pure functions of plain nested weights, and sizes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from big_mm.arrays import Params
from big_mm.lookup import nearest

# (regex searched in a weight's path, logical names of its last dimensions).
Axes: TypeAlias = tuple[tuple[str, tuple[str | None, ...]], ...]

DTYPES = ("float32", "bfloat16")


class Model(NamedTuple):
    """An architecture with its sizes filled in.

    Attributes:
        init: a key to weights: a nested dict of float32 arrays. Needs no data, and runs
            under `jax.jit` and `jax.eval_shape`.
        apply: weights and named inputs to a NamedTuple of outputs.
        axes: where each weight may be split, by its path.
    """

    init: Callable[[PRNGKeyArray], Params]
    apply: Callable[..., Any]
    axes: Axes = ()


class Tower(NamedTuple):
    """One encoder: a `Model` of one input, and the width of its embedding.

    Attributes:
        init: as of `Model`.
        apply: weights and a batch to `Encoded`.
        axes: as of `Model`; patterns begin with the name of a weight or a module.
        width: of the embedding.
    """

    init: Callable[[PRNGKeyArray], Params]
    apply: Callable[[Params, Array], "Encoded"]
    axes: Axes
    width: int


class Encoded(NamedTuple):
    """What a tower gives."""

    embedding: Float[Array, "B E"]  # pooled, not normalised
    tokens: Float[Array, "B T D"] | None  # after the last norm; None: no sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a transformer.

    Raises:
        ValueError: if the heads do not divide the width, or a size is below 1.
    """

    width: int
    depth: int
    mlp: int
    heads: int

    def __post_init__(self):
        sizes = dataclasses.asdict(self)
        if min(self.width, self.mlp, self.heads) < 1 or self.depth < 0:
            raise ValueError(f"sizes are positive: got {sizes}.")
        if self.width % self.heads:
            raise ValueError(
                f"heads must divide width: got heads={self.heads}, width={self.width}."
            )


def _sizes(width: int, depth: int, mlp: int, heads: int) -> Sizes:
    return Sizes(width=width, depth=depth, mlp=mlp, heads=heads)


# Ti to L: Dosovitskiy et al., 2020, arXiv:2010.11929, Table 1, and Touvron et al.,
# 2020, arXiv:2012.12877, Table 1. g, G: Zhai et al., 2021, arXiv:2106.04560, Table 2.
# So400m: Alabdulmohsin et al., 2023, arXiv:2305.13035. e: Chen et al., 2022,
# arXiv:2209.06794, Table 10. g-opt, G-opt, M and mu: as named in big_vision.
VARIANTS = {
    "mu": _sizes(32, 1, 128, 2),
    "Ti": _sizes(192, 12, 768, 3),
    "S": _sizes(384, 12, 1536, 6),
    "M": _sizes(512, 12, 2048, 8),
    "B": _sizes(768, 12, 3072, 12),
    "L": _sizes(1024, 24, 4096, 16),
    "So400m": _sizes(1152, 27, 4304, 16),
    "H": _sizes(1280, 32, 5120, 16),
    "g": _sizes(1408, 40, 6144, 16),
    "g-opt": _sizes(1536, 40, 6144, 16),
    "G": _sizes(1664, 48, 8192, 16),
    "G-opt": _sizes(1536, 48, 8192, 16),
    "e": _sizes(1792, 56, 15360, 16),
}


def variant_sizes(variant: str, **changes: int | None) -> Sizes:
    """Sizes by name, such as "B", with those changed that are given.

    Args:
        variant: a key of `VARIANTS`.
        **changes: fields of `Sizes`; None leaves the variant's.

    Raises:
        ValueError: on an unknown variant, or sizes that do not fit.
    """
    if variant not in VARIANTS:
        near = nearest(variant, VARIANTS)
        raise ValueError(f"there is no variant {variant!r}.{near}")
    given = {key: value for key, value in changes.items() if value is not None}
    return dataclasses.replace(VARIANTS[variant], **given)


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Holds a config's word to those that mean something.

    Raises:
        ValueError: on any other word; offers the nearest.
    """
    if value not in choices:
        raise ValueError(f"there is no {key} {value!r}.{nearest(value, choices)}")


def tower(
    module: nn.Module, example: jax.ShapeDtypeStruct, *, axes: Axes, width: int
) -> Tower:
    """Pure functions from a Linen module of one input.

    Args:
        module: maps a batch to `Encoded`.
        example: shape and dtype of an input; weights do not depend on its batch axis.
        axes: of its weights.
        width: of its embedding.
    """

    def init(rng: PRNGKeyArray) -> Params:
        return module.lazy_init(rng, example)["params"]

    def apply(params: Params, batch: Array) -> Encoded:
        encoded = module.apply({"params": params}, batch)
        return cast(Encoded, encoded)  # nothing is mutable: no second value

    return Tower(init=init, apply=apply, axes=axes, width=width)


def under(name: str, axes: Axes) -> Axes:
    """The same rules for weights that lie under `name` in a greater model."""
    return tuple((rf"(?:^|/){name}/(?:.*/)?{regex}", dims) for regex, dims in axes)


def unit(x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
    """Rows divided by their L2 norm + 1e-8, in float32; zero stays zero.

    The gradient at zero is zero too, where that of a plain norm is not a number.
    """
    x = x.astype(jnp.float32)
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squares > 0, squares, 1))
    return jnp.where(squares > 0, x / (norm + 1e-8), 0)
