"""Contrastive objectives of two towers: sigmoid (SigLIP) and softmax (CLIP).

Their source is what a forward pass gave, with the fields `image` (B, E) and `text`
(B, K, E) of unit norm, `log_scale` and, for the sigmoid, `bias`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from big_mm import sharding
from big_mm.arrays import Batch, Scalar
from big_mm.lookup import nearest
from big_mm.losses import contrastive
from big_mm.losses import ring as rings
from big_mm.objectives.core import Context, Objective

RINGS = ("none", "one_way", "both_ways")


def sigmoid(*, chunk: int | None = None, ring: str = "none") -> Objective:
    """The sigmoid loss for each text that is there: the mean of K losses of SigLIP.

    The batch may hold `concept` and `text_present`.

    Args:
        chunk: texts at a time; None for all at once, or for all of a device in a ring.
            It changes the memory only.
        ring: "none"; "one_way" or "both_ways" if texts travel from device to device,
            so that no device holds more than its own. It changes the memory only.

    Returns:
        An objective: nats of all pairs over the number of texts, and the metrics
        `positive_logit` and `negative_logit` (means over pairs), `log_scale`, `bias`.

    Raises:
        ValueError: on an unknown ring; when it runs, on a ring without a mesh.
    """
    pay = _form(contrastive.sigmoid, rings.sigmoid, ring)

    def objective(source: Any, batch: Batch, context: Context):
        masks = _masks(batch)
        by_image = pay(context.mesh)(
            source.image,
            source.text,
            log_scale=source.log_scale,
            bias=source.bias,
            chunk=chunk,
            **masks,
        )
        loss = by_image.sum() / jnp.maximum(_present(source, **masks).sum(), 1)
        metrics = _mean_logits(source, source.bias, **masks)
        return loss, metrics | {"log_scale": source.log_scale, "bias": source.bias}

    return objective


def softmax(*, chunk: int | None = None, ring: str = "none") -> Objective:
    """The softmax loss, both directions, over the rows that have a text.

    The batch may hold `concept` and `text_present`.

    Args:
        chunk: texts at a time; None for all at once, or for all of a device in a ring.
            It changes the memory only.
        ring: "none"; "one_way" or "both_ways" if texts travel from device to device,
            so that no device holds more than its own. It changes the memory only.

    Returns:
        An objective: mean nats of a row, and the metrics `positive_logit` and
        `negative_logit` (means over pairs) and `log_scale`.

    Raises:
        ValueError: on an unknown ring; when it runs, on a ring without a mesh.
    """
    pay = _form(contrastive.softmax, rings.softmax, ring)

    def objective(source: Any, batch: Batch, context: Context):
        masks = _masks(batch)
        by_row = pay(context.mesh)(
            source.image,
            source.text,
            log_scale=source.log_scale,
            chunk=chunk,
            **masks,
        )
        rows = _present(source, **masks).max(axis=1)
        loss = (by_row * rows).sum() / jnp.maximum(rows.sum(), 1)
        metrics = _mean_logits(source, 0.0, **masks)
        return loss, metrics | {"log_scale": source.log_scale}

    return objective


def _form(plain: Callable, ringed: Callable, ring: str) -> Callable[[Any], Callable]:
    """The loss for a mesh: plain, or as a ring over the devices that split a batch."""
    if ring not in RINGS:
        raise ValueError(f"there is no ring {ring!r}.{nearest(ring, RINGS)}")

    def form(mesh: Any) -> Callable:
        if ring == "none":
            return plain
        if mesh is None:
            raise ValueError(
                f"a ring needs a mesh: got none for ring={ring!r}. Pass the mesh to "
                "make_update, or take ring='none'."
            )
        axes = sharding.batch_sharding(mesh).spec[0] or ()
        return functools.partial(
            ringed, mesh=mesh, axis=axes, bidirectional=ring == "both_ways"
        )

    return form


def _masks(batch: Batch) -> dict[str, Any]:
    return {key: batch.get(key) for key in ("concept", "text_present")}


def _present(
    source: Any,
    *,
    concept: Int[Array, " B"] | None,
    text_present: Bool[Array, "B K"] | None,
) -> Float[Array, "B K"]:
    if text_present is None:
        return jnp.ones(source.text.shape[:2], jnp.float32)
    return text_present.astype(jnp.float32)


def _mean_logits(
    source: Any,
    bias: Scalar | float,
    *,
    concept: Int[Array, " B"] | None,
    text_present: Bool[Array, "B K"] | None,
) -> dict[str, Scalar]:
    """Mean logits of positive and of negative pairs, without the B x M pairs.

    A sum over pairs of dot products is a dot product of sums: over all pairs, and over
    the images and texts of each concept.
    """
    present = _present(source, concept=concept, text_present=text_present)
    image = source.image.astype(jnp.float32)
    text = jnp.where(present[..., None] > 0, source.text.astype(jnp.float32), 0)
    # With a column of ones the same sums count the pairs; floats, for they are many.
    image = jnp.concatenate([image, jnp.ones_like(image[:, :1])], axis=1)
    text = jnp.concatenate(
        [text.sum(axis=1), present.sum(axis=1, keepdims=True)], axis=1
    )
    every = image.sum(axis=0) * text.sum(axis=0)
    if concept is not None:
        _, group = jnp.unique(concept, size=len(concept), return_inverse=True)
        image = jax.ops.segment_sum(image, group, len(concept))
        text = jax.ops.segment_sum(text, group, len(concept))
    own = (image * text).sum(axis=0)

    def mean_logit(sums: Float[Array, " E"]) -> Scalar:
        pairs = sums[-1]
        cosine = sums[:-1].sum() / jnp.maximum(pairs, 1)
        logit = jnp.exp(source.log_scale) * cosine + bias
        return jax.lax.stop_gradient(jnp.where(pairs > 0, logit, 0))

    return {
        "positive_logit": mean_logit(own),
        "negative_logit": mean_logit(every - own),
    }
