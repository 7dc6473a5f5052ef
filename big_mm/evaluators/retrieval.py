"""Image-text retrieval in many languages, both ways."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from big_mm.arrays import Params
from big_mm.data.evaluation_sets import RetrievalSet
from big_mm.evaluators import core
from big_mm.metrics import retrieval as metrics

WAYS = ("text_to_image", "image_to_text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Recall both ways for each language, then means with all languages equal.

    Images are encoded once. A caption's right answer is the image it describes; an
    image's right answers are all its captions in the language. Images without a caption
    in a language are candidates there, but no queries. The protocol is that of XM3600.

    Attributes:
        encode: encodes images and texts.
        data: images, and captions of many languages.
        languages: the languages to measure; all of the data if None.
        ks: the k of each recall at k.
        families: whether to report means of language families.
        subsets: whether to report each subset of the data: its captions (images) ask
            among all images (captions), so that figures of subsets can be compared.

    Source:
        Thapliyal et al., "Crossmodal-3600: A Massively Multilingual Multimodal
        Evaluation Dataset", 2022, arXiv:2205.12522, Section 5.
    """

    encode: core.Encode
    data: RetrievalSet
    languages: Sequence[str] | None = None
    ks: Sequence[int] = (1, 5, 10)
    families: bool = True
    subsets: bool = True

    def run(self, params: Params) -> Iterator[tuple[str, float]]:
        """Yields `LANGUAGE/WAY/recall_at_K` and `.../median_rank`, then their means.

        Each subset's means follow as `SUBSET/mean/WAY/...`; with two languages or more,
        `mean/WAY/mean_rank_variance` says how differently they rank the same images.

        Raises:
            ValueError: if the data has no image, or a language is missing or empty.
        """
        languages = core.choose_languages(self.data.texts, self.languages)
        image = core.embed_images(self.encode, params, self.data.images)
        values: dict[str, dict[str, float]] = {}
        parts: dict[str, dict[str, dict[str, float]]] = {}
        asked: dict[str, dict[str, np.ndarray]] = {way: {} for way in WAYS}
        for language in languages:
            text = core.embed_texts(self.encode, params, self.data.texts[language])
            owners = np.asarray(self.data.owners[language])
            ranks = rank_both_ways(text @ image.T, owners)
            values[language] = self._numbers(ranks)
            for way, (rank, owner) in ranks.items():
                asked[way][language] = best_of_each(rank, owner, len(image))
            for subset, members in self.data.subsets.items() if self.subsets else ():
                inside = {
                    way: (rank[members[owner]], owner[members[owner]])
                    for way, (rank, owner) in ranks.items()
                }
                if len(inside["text_to_image"][0]):
                    parts.setdefault(subset, {})[language] = self._numbers(inside)
        yield from core.add_means(values, families=self.families)
        for subset, numbers in parts.items():
            for name, value in core.add_means(numbers, families=False):
                if name.startswith("mean/"):
                    yield f"{subset}/{name}", value
        for way, ranks in asked.items():
            table = np.stack(list(ranks.values()))
            shared = (table > 0).all(axis=0)
            if len(languages) > 1 and shared.any():
                spread = metrics.mean_rank_variance(table[:, shared])
                yield f"mean/{way}/mean_rank_variance", spread

    def _numbers(
        self, ranks: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, float]:
        numbers = {}
        for way, (rank, _) in ranks.items():
            for k in self.ks:
                numbers[f"{way}/recall_at_{k}"] = metrics.recall_of_ranks(rank, k)
            numbers[f"{way}/median_rank"] = metrics.median_rank(rank)
        return numbers


def rank_both_ways(
    scores: Float[np.ndarray, "Q R"], owners: Int[np.ndarray, " Q"]
) -> dict[str, tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]]:
    """Ranks of the right answers, and the image each query is about, for both ways.

    Args:
        scores: similarity of each caption to each image.
        owners: the image that each caption describes.
    """
    images, described = np.arange(scores.shape[1]), np.unique(owners)
    back = metrics.ranks_by_id(scores.T[described], described, owners)
    return {
        "text_to_image": (metrics.ranks_by_id(scores, owners, images), owners),
        "image_to_text": (back, described),
    }


def best_of_each(
    ranks: Int[np.ndarray, " N"], owners: Int[np.ndarray, " N"], count: int
) -> Int[np.ndarray, " R"]:
    """The best rank among the queries about each of `count` images; 0 where none is."""
    best = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(best, owners, ranks)
    return np.where(best == np.iinfo(np.int64).max, 0, best)
