"""Text operations: which texts of an image are used, and what is done to a string."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Picked(NamedTuple):
    """K texts of each of B images; slots without a text hold zeros."""

    language: Int[np.ndarray, "B K"]  # index into the languages asked for
    text: Int[np.ndarray, "B K"]  # which of the texts in that language
    present: Bool[np.ndarray, "B K"]


def choose(
    texts: Mapping[str, Sequence[str]],
    *,
    k: int,
    rng: np.random.Generator,
    languages: Sequence[str] | None = None,
    weights: Mapping[str, float] | None = None,
    replace: bool = False,
) -> list[tuple[str, str]]:
    """Draws `k` texts of one image, each in another language.

    Args:
        texts: language code to the texts in it.
        k: how many; fewer come back if fewer languages have a text.
        rng: moved on by the same amount, whatever the texts.
        languages: those allowed; default all of `texts`.
        weights: language code to how likely it is against the others; default 1.
        replace: draws languages anew for each text, so that they may repeat.

    Returns:
        (language, text) pairs.
    """
    names = list(texts) if languages is None else list(languages)
    if not names:
        return []
    counts = np.array([[len(texts.get(name, ())) for name in names]])
    noise = rng.random((1, len(names) + 2 * k))
    odds = weigh(names, weights)
    picked = pick(counts, noise, k=k, weights=odds, replace=replace)
    return [
        (names[int(language)], texts[names[int(language)]][int(text)])
        for language, text, present in zip(*(field[0] for field in picked), strict=True)
        if present
    ]


def weigh(
    languages: Sequence[str], weights: Mapping[str, float] | None
) -> Float[np.ndarray, " N"]:
    """The weight of each language, 1 where none is given.

    Raises:
        ValueError: on a weight for an unknown language, or one that is not positive.
    """
    weights = weights or {}
    lost = sorted(set(weights) - set(languages))
    if lost:
        raise ValueError(
            f"weights are for the languages used: {lost} are not among them."
        )
    if any(not weight > 0 for weight in weights.values()):
        raise ValueError(
            f"weights of languages are above 0: got {dict(weights)}. Leave a language "
            "out of `languages` to skip it."
        )
    return np.array([weights.get(name, 1.0) for name in languages], np.float64)


def pick(
    counts: Int[np.ndarray, "B N"],
    noise: Float[np.ndarray, "B J"],
    *,
    k: int,
    weights: Float[np.ndarray, " N"],
    replace: bool = False,
) -> Picked:
    """Turns random numbers into languages and texts, for all images at once.

    Args:
        counts: texts that each image has in each of N languages.
        noise: uniform in [0, 1), J = N + 2 k numbers of each image.
        k: texts to pick.
        weights: how likely each language is against the others, above 0.
        replace: languages may repeat.

    Returns:
        Indices; languages are distinct unless `replace`, texts uniform in each.
    """
    images, languages = counts.shape
    race, again, which = np.split(noise, [languages, languages + k], axis=1)
    has_text = counts > 0
    if replace:
        share = np.cumsum(np.where(has_text, weights[None], 0), axis=1)
        point = again * share[:, -1:]
        language = (point[:, :, None] >= share[:, None, :]).sum(-1)
        present = np.broadcast_to(share[:, -1:] > 0, (images, k))
    else:
        # Exponential clocks with rates `weights`: the order in which they ring is a
        # draw without replacement, and languages without a text never ring.
        rings = np.where(has_text, -np.log1p(-race) / weights[None], np.inf)
        order = np.argsort(rings, axis=1)[:, :k]
        language = np.zeros((images, k), np.int64)
        language[:, : order.shape[1]] = order
        present = np.arange(k)[None] < has_text.sum(1, keepdims=True)
    language = np.where(present, language, 0)
    number = np.take_along_axis(counts, language, axis=1)
    text = np.where(present, np.floor(which * number), 0)
    return Picked(language.astype(np.int32), text.astype(np.int32), present.copy())


def lower(text: str) -> str:
    """The text in lower case."""
    return text.lower()


def collapse_spaces(text: str) -> str:
    """The text with single spaces between words and none around it."""
    return " ".join(text.split())


def template(text: str, *, format: str) -> str:
    """Puts the text in place of `{}`.

    Raises:
        ValueError: if `format` has no `{}`.
    """
    if "{}" not in format:
        raise ValueError(
            f"a template says where the text goes by '{{}}': got {format!r}."
        )
    return format.replace("{}", text)
