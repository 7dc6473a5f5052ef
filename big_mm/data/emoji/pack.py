"""What the committed pack holds: drawings, names, keywords, labels, held-out concepts.

Written by tools/build_emoji_pack.py.
"""

import functools
import hashlib
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_HERE = Path(__file__).parent
PACK = _HERE / "pack"
VERSION = "1.0.0"
VENDORS = ("noto", "fluent", "twemoji")
SIZE_PX = 48
SEPARATOR = "|"  # between keywords


class Split(NamedTuple):
    """Which concepts, drawn by whom."""

    held_out: bool
    vendors: tuple[str, ...]


# Twemoji is never trained on, and no concept of a held-out split is.
SPLITS = {
    "train": Split(False, ("noto", "fluent")),
    "seen_concepts_unseen_vendor": Split(False, ("twemoji",)),
    "held_out_concepts_seen_vendor": Split(True, ("noto",)),
    "held_out_concepts_unseen_vendor": Split(True, ("twemoji",)),
}


class Concept(NamedTuple):
    """An emoji without skin tone. Its number is its place in Unicode's order."""

    emoji: str
    hexcode: str
    group: str
    subgroup: str


@functools.cache
def texts() -> dict[str, Any]:
    """The pack's texts.

    Keys: concepts, held_out (numbers), languages (set to codes), names and keywords
    (language to one string a concept, "" where there is none), labels (language to
    group to texts).
    """
    return json.loads(lzma.decompress((PACK / "texts.json.xz").read_bytes()))


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """All concepts, in the order of their numbers."""
    return tuple(Concept(*row) for row in texts()["concepts"])


def languages() -> tuple[str, ...]:
    """Codes of all languages of the pack: the order of texts in a record."""
    return tuple(code for codes in texts()["languages"].values() for code in codes)


@functools.cache
def fingerprint() -> str:
    """Twelve hex digits that change when the pack or what it is made into does."""
    digest = hashlib.sha256()
    for path in (_HERE / "pack.py", _HERE / "builder.py", *sorted(PACK.iterdir())):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def drawings(vendor: str) -> Iterator[tuple[int, bytes]]:
    """Concept number and WebP bytes of each drawing of a vendor."""
    with np.load(PACK / f"{vendor}.npz") as pack:
        numbers, ends, webp = pack["concepts"], pack["ends"], pack["webp"].tobytes()
    start = 0
    for number, end in zip(numbers.tolist(), ends.tolist(), strict=True):
        yield number, webp[start:end]
        start = end
