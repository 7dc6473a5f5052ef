"""Vision transformer (pre-norm, learned positions), as SigLIP uses it.

Source:
    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, arXiv:2010.11929; Zhai et
    al., "Sigmoid Loss for Language Image Pre-Training", 2023, arXiv:2303.15343.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from big_mm.layers.blocks import AXES as BLOCK_AXES
from big_mm.layers.blocks import LayerNorm, blocks
from big_mm.layers.pooling import MapHead
from big_mm.layers.positions import sincos_2d
from big_mm.models import core

POOLS = ("map", "mean", "class", "flat")
POSITIONS = ("learned", "sincos_2d", "none")
STEMS = ("patch", "conv")

AXES: core.Axes = (
    *BLOCK_AXES,
    (r"patch/kernel$", ("embed",)),
    (r"position$", ("embed",)),
    (r"head/kernel$", ("embed", None)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and choices of the tower; `tower` documents them."""

    sizes: core.Sizes
    patch_px: int
    grid: tuple[int, int]  # rows and columns of patches
    pool: str = "map"
    head_width: int | None = None
    positions: str = "learned"
    stem_layers: tuple[tuple[int, int, int], ...] = ()  # empty: the plain patch kernel
    dtype: str = "float32"
    scan: bool = False
    remat: str = "none"


class Stem(nn.Module):
    """Image to patches through small convolutions, each normed, then GELU.

    A layer that changes neither the resolution nor the channels is added to its input.

    Source:
        After Xiao et al., "Early Convolutions Help Transformers See Better", 2021,
        arXiv:2106.14881; with layer norm, so that no example sees another.
    """

    layers: tuple[tuple[int, int, int], ...]  # channels, stride, kernel side of each
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """Rows and columns shrink by each stride, rounded up."""
        for layer, (channels, stride, side) in enumerate(self.layers):
            conv = nn.Conv(
                channels,
                (side, side),
                (stride, stride),
                use_bias=False,  # the norm has one
                dtype=jnp.dtype(self.dtype),
                name=f"conv_{layer}",
            )
            y = nn.gelu(LayerNorm(self.dtype, name=f"norm_{layer}")(conv(x)))
            x = x + y if y.shape == x.shape else y
        return x


class Vit(nn.Module):
    """Patches, positions, blocks, norm, pooling and (optionally) a linear head."""

    config: Config

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> core.Encoded:
        """Encodes images in [-1, 1]."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        x = self._positioned(self._patches(image.astype(dtype)))
        if c.pool == "class":
            zeros = nn.initializers.zeros
            token = self.param("class_token", zeros, (1, c.sizes.width)).astype(dtype)
            token = jnp.broadcast_to(token, (len(x), 1, c.sizes.width))
            x = jnp.concatenate([token, x], axis=1)
        x = blocks(
            x,
            depth=c.sizes.depth,
            heads=c.sizes.heads,
            mlp=c.sizes.mlp,
            dtype=c.dtype,
            scan=c.scan,
            remat=c.remat,
        )
        x = LayerNorm(c.dtype, name="norm")(x)
        if c.pool == "map":
            pooled = MapHead(c.sizes.heads, c.sizes.mlp, c.dtype, name="pool")(x)
        elif c.pool == "class":
            pooled, x = x[:, 0], x[:, 1:]
        elif c.pool == "flat":
            pooled = x.reshape(len(x), -1)
        else:
            pooled = x.mean(axis=1)
        if c.head_width is not None:
            pooled = nn.Dense(c.head_width, dtype=dtype, name="head")(pooled)
        return core.Encoded(embedding=pooled, tokens=x)

    @nn.nowrap
    def _patches(self, image: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        width = c.sizes.width
        if c.stem_layers:
            x = Stem(c.stem_layers, c.dtype, name="stem")(image)
            x = nn.Dense(width, dtype=dtype, name="patch")(x)
        else:
            patch = (c.patch_px, c.patch_px)
            x = nn.Conv(
                width, patch, patch, padding="VALID", dtype=dtype, name="patch"
            )(image)
        if x.shape[1:3] != c.grid:
            raise ValueError(
                f"this tower sees {c.grid[0]} x {c.grid[1]} patches: got images of "
                f"{image.shape[1]} x {image.shape[2]} px, {x.shape[1]} x {x.shape[2]} "
                f"patches. Resize in the input pipeline, or set image_px."
            )
        return x

    @nn.nowrap
    def _positioned(self, x: Float[Array, "B h w D"]) -> Float[Array, "B P D"]:
        batch, rows, columns, width = x.shape
        if self.config.positions == "learned":
            normal = nn.initializers.normal(stddev=width**-0.5)
            position = self.param("position", normal, (rows, columns, width))
            x = x + position.astype(x.dtype)[None]
        elif self.config.positions == "sincos_2d":
            position = jnp.asarray(sincos_2d(rows, columns, width))
            x = x + position.astype(x.dtype)[None]
        return x.reshape(batch, rows * columns, width)


def tower(
    *,
    image_px: int | Sequence[int],
    variant: str = "B/16",
    pool: str = "map",
    head_width: int | None = None,
    positions: str = "learned",
    stem: str = "patch",
    stem_layers: Sequence[Sequence[int]] = ((32, 2), (64, 2), (64, 2)),
    width: int | None = None,
    depth: int | None = None,
    mlp: int | None = None,
    heads: int | None = None,
    dtype: str = "float32",
    scan: bool = False,
    remat: str = "none",
) -> core.Tower:
    """An image tower: floats in [-1, 1] of shape (B, H, W, 3) to `Encoded`.

    Args:
        image_px: side, or height and width. What does not fill a patch is not seen.
        variant: size and patch side, "B/16"; with `stem="conv"` the size alone, "Ti".
        pool: "map" (attention pooling), "mean", "class" (a class token), or "flat" (all
            tokens side by side, for a head on a small grid).
        head_width: width of a linear head on the pooled vector; None for no head.
        positions: "learned", the fixed "sincos_2d", or "none".
        stem: "patch", or "conv" for small images: a few convolutions, then a linear
            layer.
        stem_layers: channels, stride and (3 if left out) kernel side of each
            convolution of `stem="conv"`.
        width: of the tokens, instead of the variant's.
        depth: number of blocks, instead of the variant's.
        mlp: hidden width, instead of the variant's.
        heads: attention heads, instead of the variant's.
        dtype: of activations; weights stay float32.
        scan: whether layers are stacked and compiled once.
        remat: "none", or a policy of `layers.blocks.REMAT`.

    Raises:
        ValueError: on unknown words, or sizes that do not fit.
    """
    core.check_choice("pool", pool, POOLS)
    core.check_choice("positions", positions, POSITIONS)
    core.check_choice("stem", stem, STEMS)
    core.check_choice("dtype", dtype, core.DTYPES)
    size_px = (image_px, image_px) if isinstance(image_px, int) else tuple(image_px)
    if len(size_px) != 2 or min(size_px) < 1:
        raise ValueError(f"image_px is a side or (height, width): got {image_px!r}.")
    name, slash, patch = variant.partition("/")
    if stem == "conv":
        layers = _stem_layers(stem_layers)
        if slash:
            raise ValueError(
                f"a convolutional stem has no patch side: got {variant!r}. Write "
                f"{name!r} and set stem_layers."
            )
        patch_px, grid = 0, size_px
        for _, stride, _ in layers:
            grid = tuple(-(-side // stride) for side in grid)
    else:
        layers, patch_px = (), _patch_px(variant, patch)
        grid = tuple(side // patch_px for side in size_px)
        if min(grid) < 1:
            raise ValueError(
                f"images hold at least one patch: got {size_px} px and {variant!r}."
            )
    sizes = core.variant_sizes(name, width=width, depth=depth, mlp=mlp, heads=heads)
    config = Config(
        sizes=sizes,
        patch_px=patch_px,
        grid=(grid[0], grid[1]),
        pool=pool,
        head_width=head_width,
        positions=positions,
        stem_layers=layers,
        dtype=dtype,
        scan=scan,
        remat=remat,
    )
    example = jax.ShapeDtypeStruct((1, *size_px, 3), jnp.float32)
    pooled = sizes.width * (grid[0] * grid[1] if pool == "flat" else 1)
    out = pooled if head_width is None else head_width
    return core.tower(Vit(config), example, axes=AXES, width=out)


def _patch_px(variant: str, patch: str) -> int:
    if not patch.isdigit() or int(patch) < 1:
        raise ValueError(
            f"variants of image towers are written 'B/16', size and patch side in px: "
            f"got {variant!r}."
        )
    return int(patch)


def _stem_layers(layers: Sequence[Sequence[int]]) -> tuple[tuple[int, int, int], ...]:
    whole = []
    for layer in layers:
        if len(layer) not in (2, 3) or min(layer) < 1:
            raise ValueError(
                f"a layer of stem_layers is channels, stride and perhaps kernel side, "
                f"(32, 2) or (64, 4, 4): got {layer!r}."
            )
        channels, stride, side = (*layer, 3)[:3]
        whole.append((channels, stride, side))
    if not whole:
        raise ValueError("a convolutional stem has layers: got none in stem_layers.")
    return tuple(whole)
