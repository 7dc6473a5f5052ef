"""Zero-shot classification: classes from texts, and how often they are right. NumPy."""

import numpy as np
from jaxtyping import Float, Int


def class_embeddings(
    text: Float[np.ndarray, "M E"], class_of_text: Int[np.ndarray, " M"]
) -> Float[np.ndarray, "V E"]:
    """One embedding for each class from the texts (prompts) that name it.

    Args:
        text: embeddings of any non-zero norm.
        class_of_text: which class each text names, from 0 without a gap; a class may
            have any number of texts.

    Returns:
        The mean of the normalised texts of each class, normalised again, in the type
        of `text`.

    Raises:
        ValueError: if a class has no text, a text has norm 0 or is NaN, or the texts
            of a class cancel out.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language
        Supervision", 2021, arXiv:2103.00020, Section 3.1.4.
    """
    if not len(class_of_text) or class_of_text.min() < 0:
        raise ValueError("class_of_text counts classes from 0, and one is needed.")
    texts = np.bincount(class_of_text)
    if not texts.all():
        lost = np.flatnonzero(texts == 0)
        raise ValueError(
            f"every class needs a text: classes {lost[:5].tolist()} have none. Leave "
            "them out and count the others anew."
        )
    total = np.zeros((len(texts), text.shape[1]), np.float64)
    np.add.at(total, class_of_text, _unit(text.astype(np.float64), "texts"))
    # Whether divided by the number of texts or not: the direction is the same.
    return _unit(total, "classes").astype(text.dtype)


def accuracy(
    scores: Float[np.ndarray, "B V"], labels: Int[np.ndarray, " B"], k: int = 1
) -> float:
    """Share of examples whose class is among the k that score highest.

    A tie goes to the class of lower index, as argmax has it: several class names are
    the same word in some languages, and one of the two classes should still be found.

    Raises:
        ValueError: if there is no example, a score is NaN, a label is no class, or k
            is less than 1.
    """
    if k < 1:
        raise ValueError(f"k counts classes from 1: got {k}.")
    _check(scores, labels)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    ahead = (scores > own) | ((scores == own) & before)
    return float(np.mean(ahead.sum(axis=1) < k))


def mean_per_class_recall(
    scores: Float[np.ndarray, "B V"], labels: Int[np.ndarray, " B"]
) -> float:
    """Accuracy within each class that has examples, then the mean over these classes.

    Raises:
        ValueError: if there is no example, a score is NaN, or a label is no class.
    """
    _check(scores, labels)
    right = scores.argmax(axis=1) == labels
    examples = np.bincount(labels)
    found = np.bincount(labels, weights=right)
    return float(np.mean(found[examples > 0] / examples[examples > 0]))


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    if not len(labels):
        raise ValueError("accuracy is over 1 example or more: got none.")
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {scores.size} scores are NaN.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels must be classes 0 to {scores.shape[1] - 1}: got "
            f"{labels.min()} to {labels.max()}."
        )


def _unit(x: np.ndarray, what: str) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    if not (norm > 0).all():
        lost = np.flatnonzero(~(norm[:, 0] > 0))
        raise ValueError(
            f"{what} {lost[:5].tolist()} have no direction (norm 0 or NaN)."
        )
    return x / norm
