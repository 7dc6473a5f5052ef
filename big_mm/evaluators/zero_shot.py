"""Zero-shot classification, the classes named in many languages."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from big_mm.arrays import Params
from big_mm.data.evaluation_sets import ClassificationSet
from big_mm.evaluators import core
from big_mm.metrics import classification as metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """Share of images whose class is nearest, for each language of the class names.

    A class is the mean of the unit embeddings of its texts, normalised again. Images
    are encoded once.

    Attributes:
        encode: encodes images and texts.
        data: labelled images, and the texts of each class in many languages.
        languages: the languages to measure; all of the data if None.
        families: whether to report means of language families.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language
        Supervision", 2021, arXiv:2103.00020, Section 3.1.4.
    """

    encode: core.Encode
    data: ClassificationSet
    languages: Sequence[str] | None = None
    families: bool = True

    def run(self, params: Params) -> Iterator[tuple[str, float]]:
        """Yields `LANGUAGE/accuracy`, `LANGUAGE/mean_per_class_recall` and means.

        `majority` is the accuracy of always answering the largest class.

        Raises:
            ValueError: if the data has no image, or a language is missing or empty.
        """
        languages = core.choose_languages(self.data.class_texts, self.languages)
        image = core.embed_images(self.encode, params, self.data.images)
        labels = np.asarray(self.data.labels)
        values = {}
        for language in languages:
            scores = image @ self._classes(params, language).T
            values[language] = {
                "accuracy": float(metrics.accuracy(scores, labels)),
                "mean_per_class_recall": float(
                    metrics.mean_per_class_recall(scores, labels)
                ),
            }
        yield "majority", float(np.bincount(labels).max() / len(labels))
        yield from core.add_means(values, families=self.families)

    def _classes(self, params: Params, language: str) -> np.ndarray:
        lists = self.data.class_texts[language]
        texts = [text for texts in lists for text in texts]
        embedded = core.embed_texts(self.encode, params, texts)
        return metrics.class_embeddings(
            embedded, np.repeat(np.arange(len(lists)), [len(texts) for texts in lists])
        )
