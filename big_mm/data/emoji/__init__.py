"""The embedded dataset: about 1,900 emoji, three vendors' drawings, 56 languages.

Small, real and shipped with the package: what the quickstart trains on. Four splits ask
what was learnt: `train` (two vendors), `seen_concepts_unseen_vendor`,
`held_out_concepts_seen_vendor` and `held_out_concepts_unseen_vendor`. Of the languages,
XM3600's 36 are trained on ("train"); "held_out_related" are near kin of those in the
same script, "held_out_script" are written in letters that training never shows.

Flags and clock faces cannot be told from what they look like unless each was learnt
("flag: Chad"): `retrieval` names them as subsets, to be reported apart.
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from big_mm.data.emoji import pack
from big_mm.data.evaluation_sets import ClassificationSet, RetrievalSet
from big_mm.lookup import nearest
from big_mm.text import languages as known_languages

SPLITS = tuple(pack.SPLITS)
LANGUAGE_SETS = ("train", "held_out_related", "held_out_script")
GROUPS = (
    "smileys-emotion",
    "people-body",
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
    "symbols",
    "flags",
)

_STALE_SECONDS = 3600  # a folder of a run that was killed


def prepare(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Writes the dataset as ArrayRecord files, once; says so while it does.

    Takes some ten seconds the first time and none after. May be killed, and may run in
    several processes at once: the folder appears whole or not at all. A new version of
    the pack gets a new folder.

    Args:
        data_dir: where datasets live; None for $BIG_MM_DATA, else ~/.cache/big_mm.

    Returns:
        The TFDS folder, for `tfds.builder_from_directory` too.
    """
    home = data_home(data_dir)
    final = home / f"emoji-{pack.fingerprint()}"
    dataset = final / "emoji" / pack.VERSION
    if dataset.is_dir():
        return dataset
    home.mkdir(parents=True, exist_ok=True)
    _remove_stale(home)
    partial = Path(tempfile.mkdtemp(prefix=".emoji-partial-", dir=home))
    print(f"Preparing the emoji dataset in {final}, once.", file=sys.stderr)
    try:
        _build(partial)
        partial.chmod(0o755)  # mkdtemp's folder is its owner's alone
        partial.rename(final)
    except OSError:
        if not dataset.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return dataset


def data_home(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all datasets: the one given, $BIG_MM_DATA, or ~/.cache/big_mm."""
    return Path(
        data_dir or os.environ.get("BIG_MM_DATA") or Path.home() / ".cache" / "big_mm"
    ).expanduser()


class Source:
    """One split by random access; small to pickle, as Grain's workers need it.

    An item is a dict: `image` (PNG bytes), `texts` (language to its texts, the name
    first; a language without any is left out), `concept` (its number), `emoji`,
    `group`, `subgroup`, `vendor`.
    """

    def __init__(self, records: Any, languages: Sequence[str], *, keywords: bool):
        self._records = records
        self._keywords = keywords
        order = {code: place for place, code in enumerate(pack.languages())}
        self._places = [(code, order[code]) for code in languages]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"the split has {len(self)} examples: got {index}.")
        record = self._records[index % len(self)]
        texts = {}
        for code, place in self._places:
            if name := record["names"][place].decode():
                words = record["keywords"][place].decode() if self._keywords else ""
                texts[code] = [name, *(words.split(pack.SEPARATOR) if words else ())]
        item = {"image": record["image"], "texts": texts}
        item["concept"] = int(record["concept"])
        for key in ("emoji", "group", "subgroup", "vendor"):
            item[key] = record[key].decode()
        return item


def load(
    split: str = "train",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    languages: str | Sequence[str] | None = None,
    texts: Literal["names", "names_and_keywords"] = "names",
) -> Source:
    """The examples of a split: a drawing, and what it is called.

    Args:
        split: one of `SPLITS`.
        data_dir: as in `prepare`, which is called.
        languages: codes, or one of `LANGUAGE_SETS`; None for "train", the 36.
        texts: keywords are shared by many emoji ("face"), names by none: keywords make
            false negatives in a contrastive batch.

    Raises:
        ValueError: if the split, a language or `texts` is not known.
    """
    import tensorflow_datasets as tfds  # a second, so only when asked for

    _one_of(split, SPLITS, "split")
    _one_of(texts, ("names", "names_and_keywords"), "kind of texts")
    codes = _choose("train" if languages is None else languages)
    read = tfds.builder_from_directory(prepare(data_dir))
    skip = {"image": tfds.decode.SkipDecoding()}
    records = read.as_data_source(split=split, decoders=skip)  # pyright: ignore[reportCallIssue]
    return Source(records, codes, keywords=texts == "names_and_keywords")


def retrieval(
    split: str,
    *,
    languages: str | Sequence[str] = "train",
    vendor: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> RetrievalSet:
    """Drawings, and the name of each in each language that has one.

    Args:
        split: one of `SPLITS`.
        languages: codes, or one of `LANGUAGE_SETS`.
        vendor: whose drawings; needed where a split has several.
        data_dir: as in `prepare`.

    Returns:
        The set, with the subsets "flags", "clocks" and "others".

    Raises:
        ValueError: if a name is not known, or the split shows a concept more than once.
    """
    _one_of(split, SPLITS, "split")
    vendors = pack.SPLITS[split].vendors
    if vendor is None and len(vendors) > 1:
        raise ValueError(
            f"a name must belong to one drawing: {split!r} has those of "
            f"{' and '.join(vendors)}. Choose a vendor."
        )
    if vendor is not None:
        _one_of(vendor, vendors, f"vendor in {split!r} named")
    source = load(split, data_dir=data_dir, languages=languages)
    items = [item for item in source if vendor in (None, item["vendor"])]
    texts: dict[str, list[str]] = {code: [] for code in _choose(languages)}
    owners: dict[str, list[int]] = {code: [] for code in texts}
    for owner, item in enumerate(items):
        for code, (name,) in item["texts"].items():
            texts[code].append(name)
            owners[code].append(owner)
    flags = np.array([item["group"] == "flags" for item in items])
    clocks = np.array([_is_clock_face(item["concept"]) for item in items])
    return RetrievalSet(
        images=[item["image"] for item in items],
        texts=texts,
        owners={code: np.array(of, np.int64) for code, of in owners.items()},
        subsets={"flags": flags, "clocks": clocks, "others": ~(flags | clocks)},
    )


def groups(
    split: str,
    *,
    languages: str | Sequence[str] = "train",
    texts: Literal["names", "labels"] = "names",
    data_dir: str | os.PathLike[str] | None = None,
) -> ClassificationSet:
    """Drawings to be sorted into the nine groups of Unicode's emoji.

    Args:
        split: one of `SPLITS`.
        languages: codes, or one of `LANGUAGE_SETS`.
        texts: "names" describes a group by the names of its training concepts, "labels"
            by what the language calls the group.
        data_dir: as in `prepare`.

    Raises:
        ValueError: if a name is not known, or a language lacks texts of a group.
    """
    _one_of(texts, ("names", "labels"), "kind of texts")
    items = [*load(split, data_dir=data_dir, languages=languages)]
    class_texts = _training_names if texts == "names" else _labels
    return ClassificationSet(
        images=[item["image"] for item in items],
        labels=np.array([GROUPS.index(item["group"]) for item in items]),
        class_names=GROUPS,
        class_texts={code: class_texts(code) for code in _choose(languages)},
    )


def _training_names(code: str) -> list[list[str]]:
    concepts = pack.concepts()
    held_out = frozenset(pack.texts()["held_out"])
    of_group: dict[str, list[str]] = {group: [] for group in GROUPS}
    for number, name in enumerate(pack.texts()["names"][code]):
        if name and number not in held_out:
            of_group[concepts[number].group].append(name)
    return [of_group[group] for group in GROUPS]


def _labels(code: str) -> list[list[str]]:
    labels = pack.texts()["labels"][code]
    return [labels.get(group, []) for group in GROUPS]


def _is_clock_face(number: int) -> bool:
    """Whether a concept is one of the 24 dials, which differ in their hands alone."""
    name = pack.texts()["names"]["en"][number]
    return pack.concepts()[number].subgroup == "time" and name.endswith(
        ("o\u2019clock", "-thirty")
    )


def _choose(languages: str | Iterable[str]) -> tuple[str, ...]:
    sets = pack.texts()["languages"]
    if isinstance(languages, str):
        if languages in sets:
            return tuple(sets[languages])
        if languages not in pack.languages():
            known = [*LANGUAGE_SETS, *pack.languages()]
            raise ValueError(
                f"languages are codes or one of {', '.join(LANGUAGE_SETS)}: got "
                f"{languages!r}.{nearest(languages, known)}"
            )
    return known_languages.choose(languages, pack.languages())


def _one_of(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise ValueError(f"there is no {what} {value!r}.{nearest(value, known)}")


def _remove_stale(home: Path) -> None:
    for path in home.glob(".emoji-partial-*"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _build(folder: Path) -> None:
    import tensorflow_datasets as tfds  # takes a second, so only when asked for

    from big_mm.data.emoji.builder import Emoji

    tfds.disable_progress_bar()  # its lines name the partial folder, and outlast it
    with contextlib.redirect_stdout(io.StringIO()):  # it would name the partial folder
        Emoji(data_dir=folder, file_format="array_record").download_and_prepare()
