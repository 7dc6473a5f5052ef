"""Text towers: SigLIP's bidirectional transformer, and a bag of pieces for laptops."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from big_mm.layers.blocks import AXES as BLOCK_AXES
from big_mm.layers.blocks import LayerNorm, Mlp, blocks
from big_mm.layers.pooling import MapHead, bag_mean
from big_mm.models import core

POOLS = ("last", "first", "mean", "map")

AXES: core.Axes = (
    *BLOCK_AXES,
    (r"embed/embedding$", ("vocab", "embed")),
    (r"bottleneck/kernel$", (None, "embed")),
    (r"position$", ("embed",)),
    (r"head/kernel$", ("embed", None)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and choices of the transformer; `transformer` documents them."""

    sizes: core.Sizes
    vocab_size: int
    length_tokens: int
    pool: str = "last"
    head_width: int | None = None
    vocab_bottleneck: int | None = None
    dtype: str = "float32"
    scan: bool = False
    remat: str = "none"


class Transformer(nn.Module):
    """Embeddings, positions, blocks without any mask, norm, pooling, linear head."""

    config: Config

    @nn.compact
    def __call__(self, text: Int[Array, "B L"]) -> core.Encoded:
        """Encodes padded token ids. Padding is attended to and may be pooled."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        width = c.sizes.width
        if text.shape[1] != c.length_tokens:
            raise ValueError(
                f"texts are padded to length_tokens={c.length_tokens}: got "
                f"{text.shape[1]} tokens."
            )
        # Rows are looked up before the cast: a cast of the whole table costs more.
        entry = c.vocab_bottleneck or width
        x = nn.Embed(c.vocab_size, entry, name="embed")(text).astype(dtype)
        if c.vocab_bottleneck is not None:
            x = nn.Dense(width, use_bias=False, dtype=dtype, name="bottleneck")(x)
        normal = nn.initializers.normal(stddev=width**-0.5)
        position = self.param("position", normal, (c.length_tokens, width))
        x = blocks(
            x + position.astype(dtype)[None],
            depth=c.sizes.depth,
            heads=c.sizes.heads,
            mlp=c.sizes.mlp,
            dtype=c.dtype,
            scan=c.scan,
            remat=c.remat,
        )
        x = LayerNorm(c.dtype, name="norm")(x)
        pooled = self._pooled(x)
        if c.head_width is not None:
            pooled = nn.Dense(c.head_width, dtype=dtype, name="head")(pooled)
        return core.Encoded(embedding=pooled, tokens=x)

    @nn.nowrap
    def _pooled(self, x: Float[Array, "B L D"]) -> Float[Array, "B D"]:
        c = self.config
        if c.pool == "map":
            return MapHead(c.sizes.heads, c.sizes.mlp, c.dtype, name="pool")(x)
        if c.pool == "mean":
            return x.mean(axis=1)
        return x[:, -1 if c.pool == "last" else 0]


def transformer(
    *,
    vocab_size: int,
    variant: str = "B",
    length_tokens: int = 64,
    pool: str = "last",
    head_width: int | None = None,
    vocab_bottleneck: int | None = None,
    width: int | None = None,
    depth: int | None = None,
    mlp: int | None = None,
    heads: int | None = None,
    dtype: str = "float32",
    scan: bool = False,
    remat: str = "none",
) -> core.Tower:
    """A text tower: token ids of shape (B, length_tokens) to `Encoded`.

    Attention looks both ways and sees the padding, as the released models do; "last"
    pools position `length_tokens - 1`, which is padding in any short text.

    Args:
        vocab_size: pieces of the tokenizer.
        variant: size, "B".
        length_tokens: of every text, padding included.
        pool: "last", "first", "mean", or "map" (attention pooling).
        head_width: width of the linear head, that of the joint space; None for no head.
        vocab_bottleneck: width of the embedding table if narrower than the tokens; a
            matrix then widens it.
        width: of the tokens, instead of the variant's.
        depth: number of blocks, instead of the variant's.
        mlp: hidden width, instead of the variant's.
        heads: attention heads, instead of the variant's.
        dtype: of activations; weights stay float32.
        scan: whether layers are stacked and compiled once.
        remat: "none", or a policy of `layers.blocks.REMAT`.

    Raises:
        ValueError: on unknown words, or sizes that do not fit.

    Source:
        Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023,
        arXiv:2303.15343; the bottleneck in its Section 4.4.
    """
    core.check_choice("pool", pool, POOLS)
    core.check_choice("dtype", dtype, core.DTYPES)
    if min(vocab_size, length_tokens) < 1:
        raise ValueError(
            f"vocab_size and length_tokens are positive: got {vocab_size} and "
            f"{length_tokens}."
        )
    sizes = core.variant_sizes(variant, width=width, depth=depth, mlp=mlp, heads=heads)
    config = Config(
        sizes=sizes,
        vocab_size=vocab_size,
        length_tokens=length_tokens,
        pool=pool,
        head_width=head_width,
        vocab_bottleneck=vocab_bottleneck,
        dtype=dtype,
        scan=scan,
        remat=remat,
    )
    example = jax.ShapeDtypeStruct((1, length_tokens), jnp.int32)
    out = sizes.width if head_width is None else head_width
    return core.tower(Transformer(config), example, axes=AXES, width=out)


class Bag(nn.Module):
    """Mean of the pieces' embeddings, residual MLPs, norm, linear head."""

    vocab_size: int
    width: int
    mlp: int
    depth: int
    pad_id: int
    head_width: int | None
    dtype: str

    @nn.compact
    def __call__(self, text: Int[Array, "B L"]) -> core.Encoded:
        """Encodes sets of pieces: their order and the padding change nothing."""
        table = nn.Embed(self.vocab_size, self.width, name="embed").embedding
        x = bag_mean(table, text, pad_id=self.pad_id).astype(jnp.dtype(self.dtype))
        for layer in range(self.depth):
            normed = LayerNorm(self.dtype, name=f"norm_{layer}")(x)
            x = x + Mlp(self.mlp, self.dtype, name=f"mlp_{layer}")(normed)
        x = LayerNorm(self.dtype, name="norm")(x)
        if self.head_width is not None:
            dtype = jnp.dtype(self.dtype)
            x = nn.Dense(self.head_width, dtype=dtype, name="head")(x)
        return core.Encoded(embedding=x, tokens=None)


def bag(
    *,
    vocab_size: int,
    width: int,
    mlp: int | None = None,
    depth: int = 1,
    pad_id: int = 0,
    length_tokens: int = 16,
    head_width: int | None = None,
    dtype: str = "float32",
) -> core.Tower:
    """A text tower that reads the set of pieces: ids of shape (B, L) to `Encoded`.

    For short names it is nearly as good as a transformer and far cheaper.

    Args:
        vocab_size: pieces of the tokenizer.
        width: of an embedding.
        mlp: hidden width of each residual MLP; four times `width` by default.
        depth: number of residual MLPs.
        pad_id: the piece that does not count; the end of the text does.
        length_tokens: of the texts a run feeds; any length works.
        head_width: width of the linear head, that of the joint space; None for no head.
        dtype: of activations; weights stay float32.

    Raises:
        ValueError: on sizes below 1 or a `pad_id` outside the vocabulary.
    """
    core.check_choice("dtype", dtype, core.DTYPES)
    mlp = 4 * width if mlp is None else mlp
    if min(vocab_size, width, mlp, length_tokens) < 1 or depth < 0:
        raise ValueError(
            f"sizes are positive: got {vocab_size=}, {width=}, {mlp=}, {depth=}, "
            f"{length_tokens=}."
        )
    if not 0 <= pad_id < vocab_size:
        raise ValueError(f"pad_id is a piece of {vocab_size}: got {pad_id}.")
    module = Bag(vocab_size, width, mlp, depth, pad_id, head_width, dtype)
    example = jax.ShapeDtypeStruct((1, length_tokens), jnp.int32)
    out = width if head_width is None else head_width
    return core.tower(module, example, axes=AXES, width=out)
