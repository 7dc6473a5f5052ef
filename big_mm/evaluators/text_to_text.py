"""Retrieval of translations: do equal meanings of two languages meet?"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from big_mm.arrays import Params
from big_mm.data.evaluation_sets import RetrievalSet
from big_mm.evaluators import core
from big_mm.metrics import retrieval as metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToText:
    """Captions of each language ask for the captions of the same image in another.

    No image is encoded. A query whose image has no caption in the target language is
    left out; all captions of the target language are candidates.

    Attributes:
        encode: encodes texts.
        data: captions of many languages; only captions and owners are read.
        languages: the languages that ask; all of the data if None.
        targets: the languages that answer.
        ks: the k of each recall at k.
        families: whether to report means of language families.
    """

    encode: core.Encode
    data: RetrievalSet
    languages: Sequence[str] | None = None
    targets: Sequence[str] = ("en",)
    ks: Sequence[int] = (1,)
    families: bool = True

    def run(self, params: Params) -> Iterator[tuple[str, float]]:
        """Yields `LANGUAGE/to_TARGET/recall_at_K`, then means over languages.

        Raises:
            ValueError: if a language is missing or empty, or no pair of languages
                shares an image.
        """
        languages = core.choose_languages(self.data.texts, self.languages)
        targets = core.choose_languages(self.data.texts, self.targets)
        embedded = {
            language: core.embed_texts(self.encode, params, self.data.texts[language])
            for language in sorted({*languages, *targets})
        }
        values: dict[str, dict[str, float]] = {}
        for language in languages:
            for target in targets:
                if target == language:
                    continue
                asked = np.asarray(self.data.owners[language])
                answers = np.asarray(self.data.owners[target])
                shared = np.isin(asked, answers)
                if not shared.any():
                    continue
                scores = embedded[language][shared] @ embedded[target].T
                ranks = metrics.ranks_by_id(scores, asked[shared], answers)
                numbers = values.setdefault(language, {})
                for k in self.ks:
                    recall = metrics.recall_of_ranks(ranks, k)
                    numbers[f"to_{target}/recall_at_{k}"] = recall
        if not values:
            raise ValueError(
                f"no caption in {', '.join(languages)} has a translation in "
                f"{', '.join(targets)}: choose other languages or targets."
            )
        yield from core.add_means(values, families=self.families)
