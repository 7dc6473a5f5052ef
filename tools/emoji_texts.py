"""What emoji are called: Unicode's names, keywords and labels, per language."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tools.emoji_images import plain
from tools.emoji_sources import fetch, files

# emojibase's groups, and the labels of Unicode's character picker that mean the same.
GROUP_LABELS = {
    "smileys-emotion": ("smiley",),
    "people-body": ("person", "body"),
    "animals-nature": ("animals_nature",),
    "food-drink": ("food_drink",),
    "travel-places": ("travel_places",),
    "activities": ("activities",),
    "objects": ("objects",),
    "symbols": ("symbols",),
    "flags": ("flags",),
}


class Concept(NamedTuple):
    """An emoji without skin tone; its place in Unicode's order is its number."""

    emoji: str
    hexcode: str
    group: str
    subgroup: str


class Texts(NamedTuple):
    """Of one language: a name or "" of each concept, keywords joined by "|"."""

    names: list[str]
    keywords: list[str]
    labels: dict[str, list[str]]


def concepts(cache: Path) -> list[Concept]:
    """Every emoji in Unicode's order, without skin tones, hair and single letters."""
    package = dict(files(fetch("emojibase", cache)))
    hierarchy = json.loads(package["package/meta/groups.json"])
    groups, subgroups = hierarchy["groups"], hierarchy["subgroups"]
    rows = json.loads(package["package/en/data.json"])
    rows = [row for row in rows if groups.get(str(row.get("group"))) in GROUP_LABELS]
    return [
        Concept(
            emoji=row["emoji"],
            hexcode=row["hexcode"],
            group=groups[str(row["group"])],
            subgroup=subgroups[str(row["subgroup"])],
        )
        for row in sorted(rows, key=lambda row: row["order"])
    ]


def texts(
    emoji: Sequence[str], languages: Sequence[str], cache: Path
) -> dict[str, Texts]:
    """The texts of each language, in the order of `emoji`."""
    told: dict[str, dict[str, Any]] = {language: {} for language in languages}
    labels: dict[str, dict[str, Any]] = {}
    for source, key in (
        ("annotations", "annotations"),
        ("annotations_derived", "annotationsDerived"),
    ):
        for language, data in _by_language(source, cache, "annotations.json"):
            if language in told:
                entries = data[key]["annotations"]
                told[language] |= {plain(k): v for k, v in entries.items()}
    for language, data in _by_language("labels", cache, "characterLabels.json"):
        if language in told:
            (locale,) = data["main"].values()
            labels[language] = locale["characterLabels"]
    return {
        language: Texts(
            names=[_name(told[language].get(plain(e), {})) for e in emoji],
            keywords=[_keywords(told[language].get(plain(e), {})) for e in emoji],
            labels={
                group: [_clean(labels[language][key]) for key in keys]
                for group, keys in GROUP_LABELS.items()
                if language in labels and all(key in labels[language] for key in keys)
            },
        )
        for language in languages
    }


def _by_language(source: str, cache: Path, file: str):
    for name, data in files(fetch(source, cache)):
        if name.endswith(f"/{file}"):
            yield name.split("/")[-2], json.loads(data)


def _name(entry: Mapping[str, list[str]]) -> str:
    return _clean(": ".join(entry.get("tts", [])))  # one, save for a slip in Telugu


def _keywords(entry: Mapping[str, list[str]]) -> str:
    """Without the name itself, and without repeats."""
    words = map(_clean, entry.get("default", []))
    kept = dict.fromkeys(word for word in words if word and word != _name(entry))
    return "|".join(kept)


def _clean(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if "|" in text or "↑" in text:  # the separator; CLDR's mark of an inherited value
        raise ValueError(f"a text of the source has a mark that means more: {text!r}.")
    return text
