"""What a report shows: queries with their images, languages beside each other."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from big_mm import distributed
from big_mm.arrays import Params
from big_mm.data.evaluation_sets import RetrievalSet
from big_mm.data.images import decode
from big_mm.evaluators import core
from big_mm.lookup import nearest
from big_mm.metrics import retrieval as metrics

FILE = "showcase.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Showcase:
    """Queries with the images they find, and how near languages are to one another.

    Queries are drawn by a hash of their image, never by how well they do: one language
    after another, each time an image not yet asked for. The pictures go to `FILE` in
    `workdir`, where `big_mm.report` finds them; `run` yields figures of the same.

    Attributes:
        encode: encodes images and texts.
        data: images, and captions of many languages.
        workdir: the run's folder.
        languages: those that are compared and asked in; all of the data if None.
        queries: how many to draw, or a list of (language, gloss) pairs that are asked
            for by their caption in `gloss_language`.
        gloss_language: the language that explains a query to the reader.
        top: images shown for each query, best first.
        thumbnail_px: side of the images in the file.
        compared: how many images' captions are compared between languages, at most.
    """

    encode: core.Encode
    data: RetrievalSet
    workdir: str | Path
    languages: Sequence[str] | None = None
    queries: int | Sequence[Sequence[str]] = 24
    gloss_language: str = "en"
    top: int = 6
    thumbnail_px: int = 48
    compared: int = 256

    def run(self, params: Params) -> Iterator[tuple[str, float]]:
        """Writes the file, then yields figures of the queries and of the languages.

        `queries/recall_at_1` and `.../recall_at_TOP` are those of the queries shown;
        `translations/cosine` and `translations/recall_at_1` are means over all pairs
        of two languages (`.../cosine_of_others`: of captions of different images).

        Raises:
            ValueError: if a language is missing or empty, or a wanted query is not in
                the data.
        """
        languages = core.choose_languages(self.data.texts, self.languages)
        queries = self._queries(languages)
        image = core.embed_images(self.encode, params, self.data.images)
        texts = [self.data.texts[language][row] for language, row in queries]
        text = core.embed_texts(self.encode, params, texts)
        owners = np.array([self.data.owners[lang][row] for lang, row in queries])
        scores = text @ image.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.top]
        right = best == owners[:, None]
        cosine, recall, others = self._compare(params, languages)
        _write(
            Path(self.workdir) / FILE,
            query_text=np.array(texts),
            query_language=np.array([language for language, _ in queries]),
            query_gloss=np.array([self._gloss(int(owner)) for owner in owners]),
            query_rank=metrics.ranks_by_id(scores, owners, np.arange(len(image))),
            top_images=np.stack([[self._thumbnail(int(i)) for i in r] for r in best]),
            top_scores=np.take_along_axis(scores, best, axis=1),
            top_right=right,
            candidates=np.array(len(image)),
            languages=np.array(languages),
            cosine=cosine,
            recall_at_1=recall,
        )
        yield "queries/recall_at_1", float(right[:, 0].mean())
        yield f"queries/recall_at_{self.top}", float(right.any(axis=1).mean())
        apart = ~np.eye(len(languages), dtype=bool)
        for name, values in {
            "cosine": cosine,
            "cosine_of_others": others,
            "recall_at_1": recall,
        }.items():
            known = values[apart & np.isfinite(values)]
            if known.size:
                yield f"translations/{name}", float(known.mean())

    def _queries(self, languages: Sequence[str]) -> list[tuple[str, int]]:
        """(language, index of the caption) of each query."""
        if not isinstance(self.queries, int):
            return [self._find(*pair) for pair in self.queries]
        order = sorted(languages, key=lambda language: _hash("language", language))
        left = {
            language: sorted(
                range(len(self.data.texts[language])),
                key=lambda row: _hash(language, int(self.data.owners[language][row])),
            )
            for language in order
        }
        chosen: list[tuple[str, int]] = []
        asked: set[int] = set()
        while len(chosen) < self.queries and any(left.values()):
            for language in order:
                owners = self.data.owners[language]
                rows = left[language]
                while rows and int(owners[rows[0]]) in asked:
                    rows.pop(0)
                if rows and len(chosen) < self.queries:
                    chosen.append((language, rows[0]))
                    asked.add(int(owners[rows.pop(0)]))
        return chosen

    def _find(self, language: str, gloss: str) -> tuple[str, int]:
        core.choose_languages(self.data.texts, [language, self.gloss_language])
        glosses = list(self.data.texts[self.gloss_language])
        if gloss not in glosses:
            near = nearest(gloss, glosses)
            raise ValueError(
                f"no {self.gloss_language!r} caption of the data is {gloss!r}.{near}"
            )
        owner = self.data.owners[self.gloss_language][glosses.index(gloss)]
        rows = np.flatnonzero(np.asarray(self.data.owners[language]) == owner)
        if not len(rows):
            raise ValueError(f"{gloss!r} has no caption in {language!r}: ask another.")
        return language, int(rows[0])

    def _gloss(self, owner: int) -> str:
        owners = np.asarray(self.data.owners.get(self.gloss_language, []))
        rows = np.flatnonzero(owners == owner)
        return self.data.texts[self.gloss_language][int(rows[0])] if len(rows) else ""

    def _compare(
        self, params: Params, languages: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean cosine of translations, recall at 1, and mean cosine of the others."""
        count = len(self.data.images)
        drawn = sorted(range(count), key=lambda index: _hash("compared", index))
        kept = np.zeros(count, bool)
        kept[drawn[: self.compared]] = True
        embedded: list[np.ndarray] = []
        first = np.full((len(languages), count), -1)  # caption of each image, if any
        for row, language in enumerate(languages):
            owners = np.asarray(self.data.owners[language])
            captions = np.flatnonzero(kept[owners])[::-1]  # so that the first stays
            first[row, owners[captions]] = captions
            chosen = [self.data.texts[language][int(i)] for i in first[row] if i >= 0]
            dense = np.zeros((count, 0), np.float32)
            if chosen:
                found = core.embed_texts(self.encode, params, chosen)
                dense = np.zeros((count, found.shape[1]), np.float32)
                dense[first[row] >= 0] = found
            embedded.append(dense)
        shape = (len(languages), len(languages))
        cosine, recall, others = (np.full(shape, np.nan) for _ in range(3))
        for i, j in itertools.combinations_with_replacement(range(len(languages)), 2):
            shared = (first[i] >= 0) & (first[j] >= 0)
            number = int(shared.sum())
            if not number:
                continue
            scores = embedded[i][shared] @ embedded[j][shared].T
            same = np.eye(number, dtype=bool)
            right = float(np.trace(scores))
            cosine[i, j] = cosine[j, i] = right / number
            recall[i, j] = metrics.recall_of_ranks(metrics.ranks(scores, same), 1)
            recall[j, i] = metrics.recall_of_ranks(metrics.ranks(scores.T, same), 1)
            if number > 1:
                rest = float(scores.sum()) - right
                others[i, j] = others[j, i] = rest / (number * number - number)
        return cosine, recall, others

    def _thumbnail(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The whole image, its longer side `thumbnail_px`, centred on white."""
        image, side = decode(self.data.images[index]), self.thumbnail_px
        scale = side / max(image.shape[:2])
        width, height = (max(1, round(n * scale)) for n in image.shape[1::-1])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        canvas = np.full((side, side, 3), 255, np.uint8)
        top, start = (side - height) // 2, (side - width) // 2
        canvas[top : top + height, start : start + width] = small
        return canvas


def _hash(*parts: str | int) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def _write(path: Path, **arrays: Any) -> None:
    """Writes the file in one go: a kill leaves the old one or the new one."""
    if not distributed.first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(partial, path)
