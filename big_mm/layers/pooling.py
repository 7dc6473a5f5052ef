"""From a sequence of tokens to one vector."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from big_mm.layers.attention import Attention
from big_mm.layers.blocks import LayerNorm, Mlp


class MapHead(nn.Module):
    """Multi-head attention pooling: one learned query reads all tokens.

    Nothing is added to the attention's result but the MLP of its own norm; the probe
    itself is no part of the residual stream, and the tokens are not normed again.

    Attributes:
        heads: attention heads.
        mlp: hidden width of the MLP.
        dtype: of activations; weights stay float32.

    Source:
        Zhai et al., "Scaling Vision Transformers", 2021, arXiv:2106.04560, Section 3.3
        (after Lee et al., "Set Transformer", 2018, arXiv:1810.00825).
    """

    heads: int
    mlp: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None = None,
    ) -> Float[Array, "B D"]:
        """The pooled vector; tokens where `mask` is False are not read."""
        batch, _, width = tokens.shape
        xavier = nn.initializers.xavier_uniform()
        probe = self.param("probe", xavier, (1, width)).astype(tokens.dtype)
        query = jnp.broadcast_to(probe, (batch, 1, width))
        visible = None if mask is None else mask[:, None, None, :]
        attention = Attention(self.heads, self.dtype, name="attention")
        x = attention(query, tokens, visible)
        x = x + Mlp(self.mlp, self.dtype, name="mlp")(
            LayerNorm(self.dtype, name="norm")(x)
        )
        return x[:, 0]


def bag_mean(
    table: Float[Array, "V D"], ids: Int[Array, "B L"], *, pad_id: int
) -> Float[Array, "B D"]:
    """Mean of the embeddings of all pieces but the padding; zero where there is none.

    Args:
        table: one row for each piece.
        ids: piece numbers, padded with `pad_id` anywhere.
        pad_id: the piece that does not count.
    """
    present = (ids != pad_id).astype(table.dtype)

    def add(total: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
        piece, counts = place
        return total + jnp.take(table, piece, axis=0) * counts[:, None], None

    # One place of all texts at a time: B x L x D rows are never held, which makes both
    # passes about three times as fast on a CPU.
    empty = jnp.zeros((len(ids), table.shape[1]), table.dtype)
    total, _ = jax.lax.scan(add, empty, (ids.T, present.T))
    return total / jnp.maximum(present.sum(axis=1, keepdims=True), 1)
