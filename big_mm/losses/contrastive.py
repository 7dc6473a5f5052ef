"""Contrastive losses of images and texts: sigmoid (SigLIP) and softmax (CLIP).

Both take one or several texts for each image, concepts that several rows share, and
absent texts; both hold B x M logits at once (M = B x K texts), or B x `chunk` of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, ScalarLike

from big_mm.losses import pairs


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
    image, texts, owner = pairs.prepare(image, text, concept, text_present)
    scale = jnp.exp(pairs.wide(log_scale, image))
    bias = pairs.wide(bias, image)

    def add(total: Float[Array, " B"], texts: pairs.Texts):
        logits = scale * pairs.dot(image, texts.embedding) + bias
        positive = owner[:, None] == texts.concept[None]
        present = texts.present[None]
        return pairs.add_sigmoid(total, logits, positive, present), None

    start = jnp.zeros(len(image), scale.dtype)
    total, _ = pairs.over_texts(add, start, texts, chunk)
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
    image, texts, owner = pairs.prepare(image, text, concept, text_present)
    rows, scale = len(image), jnp.exp(pairs.wide(log_scale, image))

    def add(state: pairs.Normalizer, texts: pairs.Texts):
        logits = scale * pairs.dot(image, texts.embedding)
        positive = owner[:, None] == texts.concept[None]
        by_text = -pairs.mean(jax.nn.log_softmax(logits, axis=0), positive, axis=0)
        return pairs.accumulate(state, logits, positive, texts.present[None]), by_text

    start = pairs.unseen(rows, scale.dtype)
    state, by_text = pairs.over_texts(add, start, texts, chunk)
    present = texts.present.reshape(rows, -1)
    by_text = pairs.mean(by_text.reshape(present.shape), present, axis=1)
    return (pairs.cross_entropy(state) + by_text) / 2
