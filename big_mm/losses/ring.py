"""Contrastive losses whose memory does not grow with the number of devices.

Each device keeps its images. Blocks of texts travel from device to device, one hop at
a time, until every image has met every text. Only what stands in the block is ever
held: local images x `chunk` logits. The backward pass sends the texts round again,
their gradients with them, instead of keeping what it saw; a loop left to automatic
differentiation would store every block that came by.

The plain losses in `contrastive` say what is computed; these say how.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Int, ScalarLike

from big_mm.losses import pairs


def sigmoid(
    image: Float[ArrayLike, "B E"],
    text: Float[ArrayLike, "B E"] | Float[ArrayLike, "B K E"],
    *,
    log_scale: ScalarLike,
    bias: ScalarLike,
    mesh: Mesh | AbstractMesh,
    axis: str | tuple[str, ...] = "data",
    chunk: int | None = None,
    bidirectional: bool = False,
    concept: Int[ArrayLike, " B"] | None = None,
    text_present: Bool[ArrayLike, "B K"] | None = None,
) -> Float[Array, " B"]:
    """`contrastive.sigmoid` of a batch whose rows are split over devices.

    Args:
        image: as in `contrastive.sigmoid`, the global array.
        text: as in `contrastive.sigmoid`, the global array.
        log_scale: as in `contrastive.sigmoid`.
        bias: as in `contrastive.sigmoid`.
        mesh: the devices.
        axis: the mesh axis, or axes, that split the rows.
        chunk: texts of a block at a time; None for the whole block of a device.
        bidirectional: texts travel both ways at once: half the hops one after another.
        concept: as in `contrastive.sigmoid`.
        text_present: as in `contrastive.sigmoid`.

    Returns:
        The loss of each image in nats, summed over the M texts, split as the images.

    Raises:
        ValueError: as `contrastive.sigmoid`; if the mesh has no such axis, or the axis
            does not divide the batch.

    Source:
        Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023,
        arXiv:2303.15343, Section 3.3. The travelling gradients are ours.
    """
    image, texts, owner = pairs.prepare(image, text, concept, text_present)
    ring = _ring(mesh, axis, chunk, bidirectional, rows=len(image))
    scale, bias = jnp.exp(pairs.wide(log_scale, image)), pairs.wide(bias, image)
    losses = functools.partial(_sigmoid_losses, ring)
    return _pay(ring, losses, _sigmoid_slope, image, owner, texts, scale, bias)[0]


def softmax(
    image: Float[ArrayLike, "B E"],
    text: Float[ArrayLike, "B E"] | Float[ArrayLike, "B K E"],
    *,
    log_scale: ScalarLike,
    mesh: Mesh | AbstractMesh,
    axis: str | tuple[str, ...] = "data",
    chunk: int | None = None,
    bidirectional: bool = False,
    concept: Int[ArrayLike, " B"] | None = None,
    text_present: Bool[ArrayLike, "B K"] | None = None,
) -> Float[Array, " B"]:
    """`contrastive.softmax` of a batch whose rows are split over devices.

    The normalizer of an image grows with each block that comes by; that of a text
    travels with it and is complete when it comes home.

    Args:
        image: as in `contrastive.softmax`, the global array.
        text: as in `contrastive.softmax`, the global array.
        log_scale: as in `contrastive.softmax`.
        mesh: as in `sigmoid`.
        axis: as in `sigmoid`.
        chunk: as in `sigmoid`.
        bidirectional: as in `sigmoid`.
        concept: as in `contrastive.softmax`.
        text_present: as in `contrastive.softmax`.

    Returns:
        The loss of each row in nats, split as the images.

    Raises:
        ValueError: as `sigmoid`.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language
        Supervision", 2021, arXiv:2103.00020, Figure 3. The ring is ours.
    """
    image, texts, owner = pairs.prepare(image, text, concept, text_present)
    ring = _ring(mesh, axis, chunk, bidirectional, rows=len(image))
    scale = jnp.exp(pairs.wide(log_scale, image))
    nothing = jnp.zeros_like(scale)
    losses = functools.partial(_softmax_losses, ring)
    by_image, by_text = _pay(
        ring, losses, _softmax_slope, image, owner, texts, scale, nothing
    )
    present = texts.present.reshape(len(image), -1)
    by_text = pairs.mean(by_text.reshape(present.shape), present, axis=1)
    return (by_image + by_text) / 2


class _Ring(NamedTuple):
    """How blocks of texts travel; its methods run on every device of the mesh."""

    mesh: Mesh | AbstractMesh
    axes: tuple[str, ...]
    size: int
    chunk: int | None
    both_ways: bool

    def move(self, tree: Any, hops: int) -> Any:
        """Sends arrays `hops` devices on, backwards if negative."""
        route = [(i, (i + hops) % self.size) for i in range(self.size)]
        send = lambda x: jax.lax.ppermute(x, self.axes, route)
        return jax.tree.map(send, tree) if hops % self.size else tree

    def around(
        self,
        visit: Callable[[Any], tuple[Any, Any]],
        merge: Callable[[Any, Any], Any],
        unseen: Callable[[Any], Any],
        block: Any,
    ) -> tuple[Any, Any]:
        """Has the block of every device visited by all devices.

        Args:
            visit: a block to two results: one that stays here, one that goes with it.
            merge: adds up results, of either kind.
            unseen: the result of no visit, shaped as the given one.
            block: what this device sends round.

        Returns:
            What all blocks left here, and what this one brought home.
        """
        ways = (1, -1) if self.both_ways else (1,)
        rounds, rest = divmod(self.size - 1, len(ways))
        coming = [self.move(block, hops) for hops in ways]
        here, own = visit(block)
        results = [own, unseen(own)][: len(ways)]

        def meet(here: Any, traveller: Any, hops: int) -> tuple[Any, Any]:
            # All moves are independent of the visit, so that they can go on meanwhile;
            # the result is therefore one hop behind its block.
            block, result = traveller
            stays, goes = visit(block)
            result = merge(self.move(result, hops), goes)
            return merge(here, stays), (self.move(block, hops), result)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            here, travellers = carry
            moved = []
            for hops, traveller in zip(ways, travellers, strict=True):
                here, traveller = meet(here, traveller, hops)
                moved.append(traveller)
            return (here, moved), None

        start = here, list(zip(coming, results, strict=True))
        (here, travellers), _ = jax.lax.scan(step, start, length=rounds)
        if rest:  # an even ring, both ways: the block of the far side comes once
            here, travellers[0] = meet(here, travellers[0], 1)
        results = [result for _, result in travellers]
        home = self.move(results[0], -rounds - rest)
        return here, merge(home, self.move(results[1], rounds)) if results[1:] else home


def _ring(
    mesh: Mesh | AbstractMesh,
    axis: str | tuple[str, ...],
    chunk: int | None,
    bidirectional: bool,
    *,
    rows: int,
) -> _Ring:
    axes = (axis,) if isinstance(axis, str) else axis
    if missing := [name for name in axes if name not in mesh.axis_names]:
        raise ValueError(
            f"a ring runs along axes of the mesh: got {missing}, it has "
            f"{tuple(mesh.axis_names)}."
        )
    size = math.prod(mesh.shape[name] for name in axes)
    if rows % size:
        raise ValueError(
            f"a ring needs as many rows on each of its {size} devices: got {rows} "
            f"rows. Take a multiple of {size}."
        )
    return _Ring(mesh, axes, size, chunk, bidirectional)


def _pay(
    ring: _Ring, losses: Callable, slope: Callable, *operands: Any
) -> tuple[Any, Any]:
    """The losses of images and of texts, with their gradients by a second journey.

    Args:
        ring: how texts travel.
        losses: local operands to the losses of images and texts, and to what of each
            the backward pass must know.
        slope: of the loss by each logit; see `_gradients`.
        operands: image, owner, texts, scale, bias; the last two scalars.
    """
    rows, scalar = PartitionSpec(ring.axes), PartitionSpec()
    split = (rows, rows, rows, scalar, scalar)
    # Gradients are written out here, so nothing is differentiated through the map.
    on_each = functools.partial(jax.shard_map, mesh=ring.mesh, check_vma=False)
    forth = on_each(losses, in_specs=split, out_specs=rows)
    back = on_each(
        functools.partial(_gradients, ring, slope),
        in_specs=(split, rows, rows),
        out_specs=(rows, rows, scalar, scalar),
    )

    @jax.custom_vjp
    def pay(*operands):
        return forth(*operands)[0]

    def forward(*operands):
        paid, known = forth(*operands)
        return paid, (operands, known)

    def backward(saved, slopes):
        operands, known = saved
        image, text, scale, bias = back(operands, known, slopes)
        of_texts: Any = (text, None, None)  # neither concepts nor masks have any
        return image, None, pairs.Texts(*of_texts), scale, bias

    pay.defvjp(forward, backward)
    return pay(*operands)


def _gradients(
    ring: _Ring, slope: Callable, operands: Any, known: Any, slopes: Any
) -> tuple[Array, Array, Array, Array]:
    """Local gradients by image, text, scale and bias, given those by the losses.

    `slope` is called with logits, positives, and pairs (known, slope by the loss) of
    the images and of the texts.
    """
    image, owner, texts, scale, bias = operands
    of_image, of_text = zip(known, slopes, strict=True)
    product_of = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    def add(sums: Any, block: Any):
        texts, of_text = block
        cosine = pairs.dot(image, texts.embedding)
        positive = owner[:, None] == texts.concept[None]
        by_logit = slope(scale * cosine + bias, positive, of_image, of_text)
        by_logit = jnp.where(texts.present[None], by_logit, 0)
        by_cosine = scale * by_logit
        text = texts.embedding.astype(scale.dtype)
        by_image = product_of("bm,me->be", by_cosine, text)
        by_text = product_of("bm,be->me", by_cosine, image.astype(scale.dtype))
        by_scale, by_bias = (by_logit * cosine).sum(axis=1), by_logit.sum(axis=1)
        return _add(sums, (by_image, by_scale, by_bias)), by_text

    zeros = jnp.zeros(image.shape, scale.dtype)
    start = (zeros, zeros[:, 0], zeros[:, 0])
    visit = lambda block: pairs.over_texts(add, start, block, ring.chunk)
    nothing = functools.partial(jax.tree.map, jnp.zeros_like)
    here, by_text = ring.around(visit, _add, nothing, (texts, of_text))
    by_image, by_scale, by_bias = here
    total = lambda x: jax.lax.psum(x.sum(), ring.axes)
    return (
        by_image.astype(image.dtype),
        by_text.astype(image.dtype),
        total(by_scale),
        total(by_bias),
    )


def _sigmoid_losses(ring: _Ring, image, owner, texts, scale, bias):
    def add(total: Array, texts: pairs.Texts):
        logits = scale * pairs.dot(image, texts.embedding) + bias
        positive = owner[:, None] == texts.concept[None]
        return pairs.add_sigmoid(total, logits, positive, texts.present[None]), ()

    start = jnp.zeros(len(image), scale.dtype)
    visit = lambda texts: pairs.over_texts(add, start, texts, ring.chunk)
    paid = ring.around(visit, _add, lambda nothing: nothing, texts)
    return paid, ((), ())


def _sigmoid_slope(logits: Array, positive: Array, of_image: Any, of_text: Any):
    _, slope = of_image
    sigmoid = jax.nn.sigmoid(jnp.where(positive, -logits, logits))
    return slope[:, None] * jnp.where(positive, -sigmoid, sigmoid)


def _softmax_losses(ring: _Ring, image, owner, texts, scale, bias):
    del bias  # the same for all, it would change nothing

    def add(rows: pairs.Normalizer, texts: pairs.Texts):
        logits = scale * pairs.dot(image, texts.embedding)
        positive = owner[:, None] == texts.concept[None]
        start = pairs.unseen(len(texts.concept), scale.dtype)
        every = jnp.ones((1, len(image)), bool)
        columns = pairs.accumulate(start, logits.T, positive.T, every)
        return pairs.accumulate(rows, logits, positive, texts.present[None]), columns

    start = pairs.unseen(len(image), scale.dtype)
    visit = lambda texts: pairs.over_texts(add, start, texts, ring.chunk)
    unseen = lambda like: pairs.unseen(len(like.peak), scale.dtype)
    known = ring.around(visit, _join, unseen, texts)
    rows, columns = known
    return (pairs.cross_entropy(rows), pairs.cross_entropy(columns)), known


def _softmax_slope(logits: Array, positive: Array, of_image: Any, of_text: Any):
    def along(side: tuple[pairs.Normalizer, Array], axis: int) -> Array:
        known, slope = side
        peak, total, count, slope = (
            jnp.expand_dims(x, axis)
            for x in (known.peak, known.total, known.positives, slope)
        )
        share = jnp.where(positive, 1 / jnp.maximum(count, 1), 0)
        probability = jnp.exp(logits - peak) / total
        return jnp.where(count > 0, slope * (probability - share), 0)

    return along(of_image, axis=1) + along(of_text, axis=0)


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _join(a: pairs.Normalizer, b: pairs.Normalizer) -> pairs.Normalizer:
    peak = jnp.maximum(a.peak, b.peak)
    grown = lambda x: x.total * jnp.exp(x.peak - peak)
    return pairs.Normalizer(
        peak,
        grown(a) + grown(b),
        a.positive_logits + b.positive_logits,
        a.positives + b.positives,
    )
