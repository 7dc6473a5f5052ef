"""Pre-norm transformer blocks, unrolled or scanned, and the step between both layouts.

Unrolled weights lie under `blocks_0/...`, `blocks_1/...`; scanned ones under
`blocks/...` with the layers stacked along a leading axis. Scanned models compile faster
and unrolled ones run faster on a CPU (about a fifth).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from big_mm.arrays import Params
from big_mm.layers.attention import Attention
from big_mm.lookup import nearest

# Logical names of the last dimensions. A block's weights keep their last dimensions
# when layers are stacked, so one table serves both layouts.
AXES = (
    (r"attention/(?:query|key|value)/kernel$", ("embed", "heads", None)),
    (r"attention/(?:query|key|value)/bias$", ("heads", None)),
    (r"attention/out/kernel$", ("heads", None, "embed")),
    (r"mlp(?:_\d+)?/up/kernel$", ("embed", "mlp")),
    (r"mlp(?:_\d+)?/up/bias$", ("mlp",)),
    (r"mlp(?:_\d+)?/down/kernel$", ("mlp", "embed")),
)

# What a block keeps for its backward pass; None: everything is recomputed.
REMAT: Mapping[str, Callable[..., Any] | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

_LAYER = re.compile(r"blocks_(\d+)")


class LayerNorm(nn.Module):
    """Layer norm over the last axis, epsilon 1e-6, computed in float32.

    Linen's own promotes types implicitly, which the strict settings refuse.

    Attributes:
        dtype: of the result; weights stay float32.

    Source:
        Ba et al., "Layer Normalization", 2016, arXiv:1607.06450, Eq. 4.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Works on each row alone."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        scale, bias = (p.reshape((1,) * (x.ndim - 1) + p.shape) for p in (scale, bias))
        x = x.astype(jnp.float32)
        x = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.mean(x * x, axis=-1, keepdims=True)
        x = x * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias
        return x.astype(jnp.dtype(self.dtype))


class Mlp(nn.Module):
    """Two linear layers with a GELU (tanh form) between.

    Attributes:
        hidden: width of the layer between.
        dtype: of activations; weights stay float32.
    """

    hidden: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Works on each row alone."""

        def dense(name: str, features: int):
            return nn.Dense(
                features,
                dtype=jnp.dtype(self.dtype),
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(stddev=1e-6),
                name=name,
            )

        # As one matrix: XLA's gradient of a kernel is up to a third slower on a CPU
        # when it has to sum over two axes.
        rows = x.reshape(-1, x.shape[-1])
        hidden = nn.gelu(dense("up", self.hidden)(rows))
        return dense("down", x.shape[-1])(hidden).reshape(x.shape)


class Block(nn.Module):
    """Attention, then MLP, each on the normed residual stream.

    Attributes:
        heads: attention heads.
        mlp: hidden width of the MLP.
        dtype: of activations; weights stay float32.
    """

    heads: int
    mlp: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #N #T T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """One layer."""
        attention = Attention(self.heads, self.dtype, name="attention")
        x = x + attention(LayerNorm(self.dtype, name="norm_1")(x), mask=mask)
        normed = LayerNorm(self.dtype, name="norm_2")(x)
        return x + Mlp(self.mlp, self.dtype, name="mlp")(normed)


def blocks(
    x: Float[Array, "B T D"],
    *,
    depth: int,
    heads: int,
    mlp: int,
    dtype: str = "float32",
    scan: bool = False,
    remat: str = "none",
    mask: Bool[Array, "#B #N #T T"] | None = None,
) -> Float[Array, "B T D"]:
    """Runs `depth` blocks as children of the module that calls this.

    Args:
        x: tokens.
        depth: number of blocks.
        heads: attention heads of each.
        mlp: hidden width of each MLP.
        dtype: of activations.
        scan: whether one compiled block runs `depth` times on stacked weights.
        remat: "none", or a policy of `REMAT`: memory for a second forward pass.
        mask: True where a token may look.

    Raises:
        ValueError: if the heads do not divide the width, or on an unknown policy.
    """
    if x.shape[-1] % heads:
        raise ValueError(
            f"heads must divide width: got heads={heads}, width={x.shape[-1]}."
        )
    block = Block
    if remat != "none":
        if remat not in REMAT:
            near = nearest(remat, ("none", *REMAT))
            raise ValueError(f"there is no remat policy {remat!r}.{near}")
        # A scan already keeps the compiler from merging both passes into one.
        block = nn.remat(Block, policy=REMAT[remat], prevent_cse=not scan)
    if scan:
        layers = nn.scan(
            lambda layer, x, mask: (layer(x, mask), None),
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
            length=depth,
        )
        x, _ = layers(block(heads, mlp, dtype, name="blocks"), x, mask)
        return x
    for layer in range(depth):
        x = block(heads, mlp, dtype, name=f"blocks_{layer}")(x, mask)
    return x


def stack(params: Params) -> Params:
    """Unrolled weights as a scanned model has them; other weights as they are.

    Raises:
        ValueError: if the numbers of the blocks have a gap.
    """
    if not isinstance(params, Mapping):
        return params
    found = {int(m[1]): key for key in params if (m := _LAYER.fullmatch(key))}
    rest = {k: stack(v) for k, v in params.items() if k not in found.values()}
    if not found:
        return rest
    if sorted(found) != list(range(len(found))):
        raise ValueError(f"blocks are numbered without gaps: got {sorted(found)}.")
    layers = [params[found[layer]] for layer in range(len(found))]
    return rest | {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *layers)}


def unstack(params: Params) -> Params:
    """Scanned weights as an unrolled model has them: the inverse of `stack`."""
    if not isinstance(params, Mapping):
        return params
    rest = {k: unstack(v) for k, v in params.items() if k != "blocks"}
    if "blocks" not in params:
        return rest
    stacked = params["blocks"]
    depth = len(jax.tree.leaves(stacked)[0])
    take = lambda layer: jax.tree.map(lambda x: x[layer], stacked)
    return rest | {f"blocks_{layer}": take(layer) for layer in range(depth)}
