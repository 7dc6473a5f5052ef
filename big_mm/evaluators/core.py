"""What every evaluator is: data and a way to encode it, giving named numbers.

An evaluator is a frozen dataclass. The run gives it `encode` and `data`; its other
fields are keys of the config. Names of numbers read from the wide to the narrow,
`de/text_to_image/recall_at_1`, with `mean` and `family/Romance` in a language's place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from big_mm.arrays import Params
from big_mm.lookup import nearest
from big_mm.text import languages as text_languages


@runtime_checkable
class Encode(Protocol):
    """Encodes raw images and raw texts with given weights, batch by batch."""

    def image(self, params: Params, images: Sequence[Any]) -> Any:
        """Unit-norm float32 embeddings (N, E) of N images."""
        ...

    def text(self, params: Params, texts: Sequence[str]) -> Any:
        """Unit-norm float32 embeddings (N, E) of N texts."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """One measurement on one dataset."""

    def run(self, params: Params) -> Iterator[tuple[str, float]]:
        """Yields the names and values of what was measured."""
        ...


def embed_images(
    encode: Encode, params: Params, images: Sequence[Any]
) -> Float[np.ndarray, "R E"]:
    """Embeddings of all images, checked.

    Raises:
        ValueError: if there are no images, or `encode` gave something else than one
            finite unit vector for each.
    """
    return _checked(encode.image(params, images), len(images), "images")


def embed_texts(
    encode: Encode, params: Params, texts: Sequence[str]
) -> Float[np.ndarray, "Q E"]:
    """Embeddings of all texts, checked as `embed_images` does."""
    return _checked(encode.text(params, texts), len(texts), "texts")


def _checked(embeddings: Any, count: int, what: str) -> np.ndarray:
    if count == 0:
        raise ValueError(f"there is nothing to measure: got no {what}.")
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or len(embeddings) != count:
        raise ValueError(
            f"{count} {what} need ({count}, E) embeddings: got {embeddings.shape}."
        )
    norms = np.linalg.norm(embeddings.astype(np.float32), axis=1)
    # bfloat16 towers round each coordinate to 8 bits, hence the wide margin
    bad = ~(np.abs(norms - 1) < 2e-2)  # so that a NaN counts as bad
    if bad.any():
        raise ValueError(
            f"embeddings have unit norm: {bad.sum()} of {count} {what} have not, the "
            f"first has {norms[bad][0]}. Normalise in the encoder, or look for NaN "
            "in the weights."
        )
    return embeddings.astype(np.float32)


def choose_languages(
    texts: Mapping[str, Sequence[Any]], wanted: Sequence[str] | None
) -> tuple[str, ...]:
    """The languages to measure, in alphabetical order: `wanted`, or all there are.

    Raises:
        ValueError: if a wanted language is not in `texts`, if one has no text, or if
            none is left.
    """
    chosen = sorted(texts if wanted is None else set(wanted))
    if not chosen:
        raise ValueError("an evaluator needs at least one language: got none.")
    for language in chosen:
        if language not in texts:
            raise ValueError(
                f"the data has no texts in {language!r}.{nearest(language, texts)}"
            )
        if len(texts[language]) == 0:
            raise ValueError(
                f"language {language!r} has no text. Leave it out, or choose a split "
                "that has some."
            )
    return tuple(chosen)


def add_means(
    values: Mapping[str, Mapping[str, float]], *, families: bool
) -> Iterator[tuple[str, float]]:
    """Yields each language's numbers, then their means.

    Args:
        values: language to name to number. Not all languages need all names.
        families: whether to add a mean for each language family too.

    Yields:
        `de/NAME`, then `mean/NAME` with all languages equal, then `family/FAMILY/NAME`
        with all languages of the family equal. A language whose family is not known
        counts in the mean alone.
    """
    groups: dict[str, list[str]] = {"mean": list(values)}
    if families:
        for language in values:
            known = text_languages.LANGUAGES.get(language)
            if known is not None:
                groups.setdefault(f"family/{known.family}", []).append(language)
    for language, numbers in values.items():
        for name, value in numbers.items():
            yield f"{language}/{name}", float(value)
    for group, members in sorted(groups.items(), key=lambda item: item[0] != "mean"):
        names = dict.fromkeys(name for member in members for name in values[member])
        for name in names:
            having = [values[m][name] for m in members if name in values[m]]
            yield f"{group}/{name}", float(np.mean(having))
