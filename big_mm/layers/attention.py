"""Multi-head attention: one function for the arithmetic, one module for the weights."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from big_mm.lookup import nearest

IMPLEMENTATIONS = ("auto", "head_major", "xla", "cudnn")


def attend(
    query: Float[Array, "B T N K"],
    key: Float[Array, "B S N K"],
    value: Float[Array, "B S N K"],
    *,
    mask: Bool[Array, "#B #N #T S"] | None = None,
    implementation: str = "auto",
) -> Float[Array, "B T N K"]:
    """Mixes values by the softmax of scaled dot products, taken in float32.

    Args:
        query: projected queries, not yet scaled.
        key: projected keys.
        value: projected values.
        mask: True where a query may look. A query that may look nowhere gets the mean
            of all values, so that padded rows stay finite.
        implementation: one of `IMPLEMENTATIONS`. "auto" takes the head-major form on
            a CPU, cuDNN's flash attention on a GPU for what it supports, and XLA's
            form elsewhere. They agree to rounding.

    Raises:
        ValueError: on an unknown implementation.

    Source:
        Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, Eq. 1.
    """
    if implementation not in IMPLEMENTATIONS:
        near = nearest(implementation, IMPLEMENTATIONS)
        raise ValueError(f"there is no attention {implementation!r}.{near}")
    if implementation == "auto":
        implementation = _best(query, mask)
    if implementation == "head_major":
        return _head_major(query, key, value, mask)
    fused = "cudnn" if implementation == "cudnn" else "xla"
    with jax.numpy_dtype_promotion("standard"):  # it mixes float32 into half precision
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, implementation=fused
        )


def _best(query: Array, mask: Array | None) -> str:
    backend = jax.default_backend()
    if backend == "cpu":
        return "head_major"
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    _, queries, _, channels = query.shape
    fits = channels <= 128 and channels % 8 == 0  # of cuDNN on every GPU
    if backend == "gpu" and half and fits and queries > 1 and mask is None:
        return "cudnn"
    return "xla"


def _head_major(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    """Heads before tokens: batched matrix products without copies, fastest on CPUs."""
    scale = jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    query_BNTK = (query * scale).swapaxes(1, 2)
    key_BNKS = key.transpose(0, 2, 3, 1)
    logits_BNTS = jnp.matmul(query_BNTK, key_BNKS, preferred_element_type=jnp.float32)
    if mask is not None:
        logits_BNTS = jnp.where(mask, logits_BNTS, jnp.finfo(jnp.float32).min)
    weights_BNTS = jax.nn.softmax(logits_BNTS, axis=-1).astype(value.dtype)
    return jnp.matmul(weights_BNTS, value.swapaxes(1, 2)).swapaxes(1, 2)


class Attention(nn.Module):
    """Attention with its four projections, all with biases.

    Attributes:
        heads: must divide the width of the queries' tokens.
        dtype: of activations; weights stay float32.
    """

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B T D"],
        context: Float[Array, "B S D"] | None = None,
        mask: Bool[Array, "#B #N #T S"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Reads `context` (default: the queries themselves) from each query's place."""
        context = queries if context is None else context
        width = queries.shape[-1]
        head_shape = (self.heads, width // self.heads)

        def project(
            name: str, features: int | tuple[int, int], axis: int | tuple[int, int] = -1
        ):
            return nn.DenseGeneral(
                features,
                axis=axis,
                dtype=jnp.dtype(self.dtype),
                kernel_init=nn.initializers.xavier_uniform(),
                name=name,
            )

        # Tokens of all examples as one matrix, for the reason given in `Mlp`.
        def heads_of(name: str, x: Array) -> Array:
            rows = project(name, head_shape)(x.reshape(-1, width))
            return rows.reshape(*x.shape[:2], *head_shape)

        query = heads_of("query", queries)
        key, value = heads_of("key", context), heads_of("value", context)
        mixed = attend(query, key, value, mask=mask).reshape(-1, *head_shape)
        return project("out", width, axis=(-2, -1))(mixed).reshape(queries.shape)
