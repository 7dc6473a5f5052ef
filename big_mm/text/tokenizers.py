"""SentencePiece tokenizers, and the ways SigLIP and SigLIP 2 lay out their ids.

A model trained elsewhere (Gemma's, mC4's, mT5's) is loaded from its `.model` file; the
name "emoji" stands for the small one that comes with the package.
"""

import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import sentencepiece
from jaxtyping import Int

from big_mm.lookup import nearest

NAMED = {"emoji": Path(__file__).parent / "emoji.model"}

Eos = Literal["sticky", "yes", "no"]


class Policy(NamedTuple):
    """How ids are laid out in a row; `tokenizer.encode(..., **policy._asdict())`.

    Attributes:
        bos: whether the row starts with the begin-of-text id.
        eos: "yes" ends the text with the end id and cuts it off with the rest of a long
            row; "sticky" keeps it there as the last id; "no" has none.
        lower: whether the text is lower-cased first.
        pad_id: what fills the row up; None for the tokenizer's own padding id.
    """

    bos: bool = False
    eos: Eos = "sticky"
    lower: bool = True
    pad_id: int | None = None


# The text towers attend to the padding and pool the last place of the row: the padding
# id and the full length (64) are part of the model. SigLIP pads with the end id.
POLICIES = {"siglip": Policy(pad_id=1), "siglip2": Policy(pad_id=0)}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A SentencePiece model. Safe to share between threads, and to pickle.

    Attributes:
        proto: the contents of the `.model` file.

    Raises:
        ValueError: if `proto` is no SentencePiece model.
    """

    proto: bytes = dataclasses.field(repr=False)

    def __post_init__(self):
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(self.proto)
        except RuntimeError as error:
            raise ValueError(
                "a tokenizer is a SentencePiece .model file: these "
                f"{len(self.proto)} bytes are none."
            ) from error
        object.__setattr__(self, "_processor", processor)

    def __getstate__(self) -> dict[str, Any]:
        return {"proto": self.proto}

    def __setstate__(self, state: dict[str, Any]):
        object.__setattr__(self, "proto", state["proto"])
        self.__post_init__()

    @property
    def _sp(self) -> sentencepiece.SentencePieceProcessor:
        return self.__dict__["_processor"]

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return self._sp.GetPieceSize()

    @property
    def pad_id(self) -> int:
        """The model's padding id; 0 where it has none."""
        return max(self._sp.pad_id(), 0)

    @property
    def eos_id(self) -> int:
        """The id that ends a text; -1 where the model has none."""
        return self._sp.eos_id()

    @property
    def bos_id(self) -> int:
        """The id that begins a text; -1 where the model has none."""
        return self._sp.bos_id()

    def encode(
        self,
        texts: Sequence[str],
        *,
        length_tokens: int,
        bos: bool = False,
        eos: Eos = "sticky",
        lower: bool = True,
        pad_id: int | None = None,
    ) -> Int[np.ndarray, "M L"]:
        """Rows of exactly `length_tokens` ids, cut off or filled up at the end.

        Args:
            texts: M texts.
            length_tokens: the width of a row, L.
            bos: as in `Policy`, like the three that follow.
            eos: see `bos`.
            lower: see `bos`.
            pad_id: see `bos`.

        Returns:
            The ids as int32.

        Raises:
            ValueError: if one string is given instead of a list, the length is not
                positive, `eos` is not known, or the model lacks an id asked for.

        Source:
            Zhai et al., 2023, arXiv:2303.15343 and Tschannen et al., 2025,
            arXiv:2502.14786; "sticky" is the name of google-research/big_vision.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts is a list of strings: got the string {texts!r}.")
        if length_tokens < 1:
            raise ValueError(f"a row holds one id or more: got {length_tokens=}.")
        if eos not in ("sticky", "yes", "no"):
            raise ValueError(f"eos is 'sticky', 'yes' or 'no': got {eos!r}.")
        self._require(bos=bos, eos=eos != "no")
        texts = [text.lower() for text in texts] if lower else list(texts)
        fill = self.pad_id if pad_id is None else pad_id
        rows = np.full((len(texts), length_tokens), fill, np.int32)
        for row, ids in zip(rows, self._sp.EncodeAsIds(texts), strict=True):
            if bos:
                ids = [self.bos_id, *ids]
            if eos != "no":
                keep = length_tokens - 1 if eos == "sticky" else len(ids)
                ids = [*ids[:keep], self.eos_id]
            ids = ids[:length_tokens]
            row[: len(ids)] = ids
        return rows

    def lengths(
        self, texts: Sequence[str], *, lower: bool = True
    ) -> Int[np.ndarray, " M"]:
        """The number of ids of each text, without begin and end."""
        texts = [text.lower() for text in texts] if lower else list(texts)
        return np.array([len(ids) for ids in self._sp.EncodeAsIds(texts)], np.int32)

    def decode(self, rows: Int[np.ndarray, "M L"]) -> list[str]:
        """The texts of rows of ids, up to the first end id and without padding."""
        texts = []
        for row in rows.tolist():
            if self.eos_id in row:
                row = row[: row.index(self.eos_id)]
            skip = (self.pad_id, self.bos_id)
            texts.append(self._sp.DecodeIds([i for i in row if i not in skip]))
        return texts

    def _require(self, *, bos: bool, eos: bool) -> None:
        if (bos and self.bos_id < 0) or (eos and self.eos_id < 0):
            kind = "bos" if bos and self.bos_id < 0 else "eos"
            raise ValueError(
                f"this tokenizer has no {kind} id. Encode with "
                f"{'bos=False' if kind == 'bos' else 'eos=' + repr('no')}."
            )


def load(path_or_name: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a `.model` file, or the one that `NAMED` has under this name.

    Raises:
        ValueError: if there is no such file or name, or the file is no SentencePiece
            model.
    """
    path = NAMED.get(str(path_or_name), Path(path_or_name))
    if not path.is_file():
        raise ValueError(
            f"a tokenizer is a name or the path of a .model file: there is no "
            f"{str(path_or_name)!r}.{nearest(str(path_or_name), NAMED)}"
        )
    return Tokenizer(path.read_bytes())


def train(
    corpus: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    vocab_size: int = 32_000,
    kind: Literal["unigram", "bpe"] = "unigram",
    coverage: float = 0.9995,
    max_sentences: int = 0,
) -> Path:
    """Trains a tokenizer with Gemma's special ids: pad 0, eos 1, bos 2, unk 3.

    Texts are case-folded and compatibility-normalised (NFKC); characters too rare for
    the vocabulary fall back to bytes, so that nothing is ever unknown. The same corpus
    gives the same file, bit for bit.

    Args:
        corpus: the path of a UTF-8 file with one text a line, or an iterable: of texts
            (`str`), of such files (`Path`), or of both.
        out: the `.model` file to write.
        vocab_size: ids wanted. A small corpus may give fewer.
        kind: "unigram" or "bpe".
        coverage: share of the corpus's characters that get a piece of their own.
        max_sentences: texts sampled from a large corpus; 0 takes all.

    Raises:
        ValueError: if `out` exists, a file of the corpus is missing, the corpus is
            empty, or `vocab_size` cannot hold the 256 bytes and the special ids.

    Source:
        Kudo, "Subword Regularization", 2018, arXiv:1804.10959 (unigram).
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} exists. Remove it or write elsewhere.")
    if vocab_size < 300:
        raise ValueError(
            f"256 bytes and four special ids need their places: got {vocab_size=}. "
            "Ask for 300 or more."
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_lines(corpus),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=kind,
            character_coverage=coverage,
            normalization_rule_name="nfkc_cf",
            byte_fallback=True,
            hard_vocab_limit=False,  # a small corpus has fewer pieces to give
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            input_sentence_size=max_sentences,
            shuffle_input_sentence=False,
            num_threads=16,  # of shards, not of cores: it fixes the order of sums
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"the tokenizer was not trained: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(model.getvalue())
    return out


def _lines(corpus: Any) -> Iterable[str]:
    if isinstance(corpus, str | os.PathLike):
        corpus = [Path(corpus)]
    for item in corpus:
        if not isinstance(item, os.PathLike):
            yield item
            continue
        if not Path(item).is_file():
            raise ValueError(f"a corpus is made of text files: there is no {item}.")
        with open(item, encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file)
