"""What every form of a contrastive loss shares: its texts, their logits, the fold.

A form is a fold over the texts: over all at once, over chunks, over blocks that other
devices hold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int


class Texts(NamedTuple):
    """Texts of the batch in one row: M of them, or a chunk."""

    embedding: Float[Array, "M E"]
    concept: Int[Array, " M"]  # what the text is about
    present: Bool[Array, " M"]


class Normalizer(NamedTuple):
    """What a softmax needs to know of the logits seen so far."""

    peak: Float[Array, " B"]  # the largest logit; no gradient flows
    total: Float[Array, " B"]  # sum of exp(logit - peak)
    positive_logits: Float[Array, " B"]  # their sum
    positives: Float[Array, " B"]  # their count


def prepare(
    image, text, concept, text_present
) -> tuple[Float[Array, "B E"], Texts, Int[Array, " B"]]:
    """Images and texts in one type, and the concept of each image.

    Raises:
        ValueError: if `text` or `text_present` does not have the rows of `image`.
    """
    image, text = jnp.asarray(image), jnp.asarray(text)
    rows, width = image.shape
    if len(text) != rows:
        raise ValueError(
            f"every image needs its row of texts: got {rows} images and {len(text)} "
            "rows. Mask missing texts with text_present."
        )
    text = text.reshape(rows, -1, width)
    owner = jnp.arange(rows) if concept is None else jnp.asarray(concept)
    present = jnp.ones(text.shape[:2], bool)
    if text_present is not None:
        present = jnp.asarray(text_present)
        if present.shape != text.shape[:2]:
            raise ValueError(
                f"text_present needs one entry for each text: got {present.shape} "
                f"for {text.shape[:2]} texts."
            )
    dtype = widest(image.dtype, text.dtype)
    # Zeros in place of absent texts: a NaN there must not reach a gradient.
    text = jnp.where(present[..., None], text.astype(dtype), 0)
    texts = Texts(
        embedding=text.reshape(-1, width),
        concept=jnp.repeat(owner, text.shape[1]),
        present=present.reshape(-1),
    )
    return image.astype(dtype), texts, owner


def over_texts(
    add: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    texts: Any,
    chunk: int | None,
) -> tuple[Any, Any]:
    """Folds `add` over the texts; with a chunk, its logits are never kept.

    Args:
        add: (state, texts) to the new state and something of each text.
        state: to start with.
        texts: arrays with a leading M.
        chunk: texts at a time; None for all.

    Raises:
        ValueError: if `chunk` is less than 1.
    """
    if chunk is None:
        return add(state, texts)
    if chunk < 1:
        raise ValueError(f"chunk is a number of texts, 1 or more: got {chunk}.")
    count = len(jax.tree.leaves(texts)[0])
    missing = -count % chunk

    def split(x: Array) -> Array:  # the filling is absent: zeros are False
        filled = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        return filled.reshape(-1, chunk, *x.shape[1:])

    body = jax.checkpoint(add, prevent_cse=False)
    state, of_texts = jax.lax.scan(body, state, jax.tree.map(split, texts))
    join = lambda x: x.reshape(-1, *x.shape[2:])[:count]
    return state, jax.tree.map(join, of_texts)


def add_sigmoid(
    total: Float[Array, " B"],
    logits: Float[Array, "B M"],
    positive: Bool[Array, "B M"],
    present: Bool[Array, "1 M"],
) -> Float[Array, " B"]:
    """Adds what each image pays for more texts."""
    loss = jax.nn.softplus(jnp.where(positive, -logits, logits))
    return total + jnp.where(present, loss, 0).sum(axis=1)


def unseen(rows: int, dtype: Any) -> Normalizer:
    """The normalizer of no logits."""
    zeros = jnp.zeros(rows, dtype)
    lowest = jnp.full(rows, jnp.finfo(dtype).min, dtype)
    return Normalizer(lowest, zeros, zeros, zeros)


def accumulate(
    state: Normalizer,
    logits: Float[Array, "B M"],
    positive: Bool[Array, "B M"],
    present: Bool[Array, "1 M"],
) -> Normalizer:
    """The normalizers of each row after M more logits."""
    seen = jnp.where(present, logits, jnp.finfo(logits.dtype).min)
    peak = jnp.maximum(state.peak, jax.lax.stop_gradient(seen).max(axis=1))
    total = jnp.where(present, jnp.exp(seen - peak[:, None]), 0).sum(axis=1)
    positive = positive & present
    return Normalizer(
        peak,
        state.total * jnp.exp(state.peak - peak) + total,
        state.positive_logits + jnp.where(positive, logits, 0).sum(axis=1),
        state.positives + positive.sum(axis=1, dtype=logits.dtype),
    )


def cross_entropy(state: Normalizer) -> Float[Array, " B"]:
    """Nats of each row, the mean over its positives; 0 where it has none."""
    some = state.positives > 0
    positives = jnp.where(some, state.positives, 1)
    log_sum = jnp.log(jnp.where(some, state.total, 1))
    # The peak goes first: for one positive at the peak the difference is exactly 0.
    loss = (state.peak - state.positive_logits / positives) + log_sum
    return jnp.where(some, loss, 0)


def mean(value: Array, where: Bool[Array, "..."], *, axis: int) -> Array:
    """Mean of the marked values, 0 where none is marked."""
    count = jnp.maximum(where.sum(axis=axis), 1).astype(value.dtype)
    return jnp.where(where, value, 0).sum(axis=axis) / count


def dot(image: Float[Array, "B E"], text: Float[Array, "M E"]) -> Float[Array, "B M"]:
    """Products of all images with all texts, summed in float32 or wider."""
    # Logits reach +-100: neither bfloat16 sums nor TF32 products are good enough.
    return jnp.einsum(
        "be,me->bm",
        image,
        text,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=widest(image.dtype, jnp.float32),
    )


def wide(value: ArrayLike, like: Array) -> Array:
    """In the type of logits: float32, or float64 for float64 embeddings."""
    return jnp.asarray(value).astype(widest(like.dtype, jnp.float32))


def widest(a: Any, b: Any) -> Any:
    """The type that holds both."""
    with jax.numpy_dtype_promotion("standard"):  # asked for, so no accident
        return jnp.promote_types(a, b)
