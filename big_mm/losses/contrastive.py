"""Contrastive losses of images and texts: sigmoid (SigLIP) and softmax (CLIP).

Both take one or several texts for each image, concepts that several rows share, and
absent texts; both hold B x M logits at once (M = B x K texts), or B x `chunk` of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, ScalarLike


class _Texts(NamedTuple):
    """Texts of the batch in one row: M of them, or a chunk."""

    embedding: Float[Array, "M E"]
    concept: Int[Array, " M"]  # what the text is about
    present: Bool[Array, " M"]


def sigmoid(
    image: Float[ArrayLike, "B E"],
    text: Float[ArrayLike, "B E"] | Float[ArrayLike, "B K E"],
    *,
    log_scale: ScalarLike,
    bias: ScalarLike,
    chunk: int | None = None,
    concept: Int[ArrayLike, " B"] | None = None,
    text_present: Bool[ArrayLike, "B K"] | None = None,
) -> Float[Array, " B"]:
    """Asks of every image and every text of the batch whether they belong together.

    The loss of the paper is the mean of the result (for K texts of each image: the sum
    of K such losses, one for each slot of the text axis).

    Args:
        image: image embeddings of unit L2 norm, of any float type.
        text: text embeddings of unit L2 norm. All texts of row `b` belong to image `b`.
        log_scale: log of the inverse temperature, so that the scale stays positive.
        bias: added to every logit, against the many negatives for each positive.
        chunk: texts at a time, so that B x `chunk` logits are held, also in the
            backward pass, which computes them anew. None: all at once. It changes the
            memory, not the result.
        concept: rows of equal numbers show the same thing; the texts of each are
            positives of all of them. None: every row is a concept of its own.
        text_present: False for a text that is not there; it counts nowhere. Texts
            without a K axis take (B, 1).

    Returns:
        The loss of each image in nats, summed (not averaged) over the M texts. Logits
        and loss are float32, or float64 if an embedding is.

    Raises:
        ValueError: if `text` or `text_present` does not have the rows of `image`, or
            `chunk` is less than 1.

    Source:
        Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023,
        arXiv:2303.15343, Algorithm 1.
    """
    image, texts, owner = _prepare(image, text, concept, text_present)
    scale = jnp.exp(_wide(log_scale, image))
    bias = _wide(bias, image)

    def add(total: Float[Array, " B"], texts: _Texts):
        logits = scale * _dot(image, texts.embedding) + bias
        positive = owner[:, None] == texts.concept[None]
        loss = jax.nn.softplus(jnp.where(positive, -logits, logits))
        return total + jnp.where(texts.present[None], loss, 0).sum(axis=1), None

    total, _ = _over_texts(add, jnp.zeros(len(image), scale.dtype), texts, chunk)
    return total


def softmax(
    image: Float[ArrayLike, "B E"],
    text: Float[ArrayLike, "B E"] | Float[ArrayLike, "B K E"],
    *,
    log_scale: ScalarLike,
    chunk: int | None = None,
    concept: Int[ArrayLike, " B"] | None = None,
    text_present: Bool[ArrayLike, "B K"] | None = None,
) -> Float[Array, " B"]:
    """Asks of each image which texts are its own, and of each text which image is.

    An image pays -log p(text) over the M texts, the mean over its positives; a text
    pays -log p(image) over the B images, the mean over its positives, and the texts of
    a row are averaged. The loss of the row is the mean of these two directions.

    Args:
        image: image embeddings of unit L2 norm, of any float type.
        text: text embeddings of unit L2 norm. All texts of row `b` belong to image `b`.
        log_scale: log of the inverse temperature, so that the scale stays positive.
        chunk: as in `sigmoid`.
        concept: as in `sigmoid`.
        text_present: as in `sigmoid`. A row without any text pays 0 in the direction
            from its texts, and 0 from its image too unless its concept has a text.

    Returns:
        The loss of each row in nats, float32, or float64 if an embedding is.

    Raises:
        ValueError: as `sigmoid`.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language
        Supervision", 2021, arXiv:2103.00020, Figure 3. Several positives: Khosla et
        al., "Supervised Contrastive Learning", 2020, arXiv:2004.11362, Equation 2
        (the mean stands outside of the log).
    """
    image, texts, owner = _prepare(image, text, concept, text_present)
    rows, scale = len(image), jnp.exp(_wide(log_scale, image))

    def add(state: _Normalizer, texts: _Texts):
        logits = scale * _dot(image, texts.embedding)
        positive = owner[:, None] == texts.concept[None]
        by_text = -_mean(jax.nn.log_softmax(logits, axis=0), positive, axis=0)
        return _accumulate(state, logits, positive, texts.present[None]), by_text

    zeros = jnp.zeros(rows, scale.dtype)
    lowest = jnp.full(rows, jnp.finfo(scale.dtype).min)
    start = _Normalizer(lowest, zeros, zeros, zeros)
    state, by_text = _over_texts(add, start, texts, chunk)
    some = state.positives > 0
    positives = jnp.where(some, state.positives, 1)
    log_sum = jnp.log(jnp.where(some, state.total, 1))
    # The peak goes first: for one positive at the peak the difference is exactly 0.
    by_image = (state.peak - state.positive_logits / positives) + log_sum
    present = texts.present.reshape(rows, -1)
    by_text = by_text.reshape(-1)[: present.size].reshape(present.shape)
    return (jnp.where(some, by_image, 0) + _mean(by_text, present, axis=1)) / 2


class _Normalizer(NamedTuple):
    """What an image's softmax needs to know of the texts seen so far."""

    peak: Float[Array, " B"]  # the largest logit; no gradient flows
    total: Float[Array, " B"]  # sum of exp(logit - peak)
    positive_logits: Float[Array, " B"]  # their sum
    positives: Float[Array, " B"]  # their count


def _accumulate(
    state: _Normalizer,
    logits: Float[Array, "B M"],
    positive: Bool[Array, "B M"],
    present: Bool[Array, "1 M"],
) -> _Normalizer:
    seen = jnp.where(present, logits, jnp.finfo(logits.dtype).min)
    peak = jnp.maximum(state.peak, jax.lax.stop_gradient(seen).max(axis=1))
    total = jnp.where(present, jnp.exp(seen - peak[:, None]), 0).sum(axis=1)
    positive = positive & present
    return _Normalizer(
        peak,
        state.total * jnp.exp(state.peak - peak) + total,
        state.positive_logits + jnp.where(positive, logits, 0).sum(axis=1),
        state.positives + positive.sum(axis=1, dtype=logits.dtype),
    )


def _over_texts(
    add: Callable[[Any, _Texts], tuple[Any, Any]],
    state: Any,
    texts: _Texts,
    chunk: int | None,
) -> tuple[Any, Any]:
    """Folds `add` over the texts; with a chunk, its logits are never kept."""
    if chunk is None:
        return add(state, texts)
    if chunk < 1:
        raise ValueError(f"chunk is a number of texts, 1 or more: got {chunk}.")
    missing = -len(texts.concept) % chunk

    def split(x: Array) -> Array:  # the filling is absent: zeros are False
        filled = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        return filled.reshape(-1, chunk, *x.shape[1:])

    body = jax.checkpoint(add, prevent_cse=False)
    return jax.lax.scan(body, state, jax.tree.map(split, texts))


def _prepare(
    image, text, concept, text_present
) -> tuple[Float[Array, "B E"], _Texts, Int[Array, " B"]]:
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
    dtype = _widest(image.dtype, text.dtype)
    # Zeros in place of absent texts: a NaN there must not reach a gradient.
    text = jnp.where(present[..., None], text.astype(dtype), 0)
    texts = _Texts(
        embedding=text.reshape(-1, width),
        concept=jnp.repeat(owner, text.shape[1]),
        present=present.reshape(-1),
    )
    return image.astype(dtype), texts, owner


def _wide(value: ArrayLike, like: Array) -> Array:
    """In the type of logits: float32, or float64 for float64 embeddings."""
    return jnp.asarray(value).astype(_widest(like.dtype, jnp.float32))


def _widest(a: Any, b: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):  # asked for, so no accident
        return jnp.promote_types(a, b)


def _dot(image: Float[Array, "B E"], text: Float[Array, "M E"]) -> Float[Array, "B M"]:
    # Logits reach +-100: neither bfloat16 sums nor TF32 products are good enough.
    return jnp.einsum(
        "be,me->bm",
        image,
        text,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=_widest(image.dtype, jnp.float32),
    )


def _mean(value: Array, where: Bool[Array, "..."], *, axis: int) -> Array:
    """Mean of the marked values, 0 where none is marked."""
    count = jnp.maximum(where.sum(axis=axis), 1).astype(value.dtype)
    return jnp.where(where, value, 0).sum(axis=axis) / count
