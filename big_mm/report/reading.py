"""Reads what a run left in its folder; whatever is not there is simply missing."""

import dataclasses
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_WHAT = re.compile(
    r"(text_to_image|image_to_text)/(recall_at_\d+|median_rank|mean_rank_variance)"
    r"|to_[^/]+/recall_at_\d+|accuracy|mean_per_class_recall"
)
_ARRAYS = (
    "query_text",
    "query_language",
    "query_gloss",
    "query_rank",
    "top_images",
    "top_scores",
    "top_right",
    "candidates",
    "languages",
    "cosine",
    "recall_at_1",
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The latest figures of one evaluator.

    Attributes:
        name: its key in the config.
        step: updates the weights had seen; None if it was measured by `evaluate`.
        values: (whose, what) to figure: ("de", "text_to_image/recall_at_1"), where
            whose is a language, `mean`, `family/NAME` or `SUBSET/mean`.
        traits: words on the condition: concepts, vendor, languages.
    """

    name: str
    step: int | None
    values: Mapping[tuple[str, str], float]
    traits: Mapping[str, str]

    @property
    def kind(self) -> str:
        """Either "retrieval", "zero_shot" or "text_to_text"."""
        whats = {what for _, what in self.values}
        if any(what.startswith(("text_to_image", "image_to_text")) for what in whats):
            return "retrieval"
        return "zero_shot" if "accuracy" in whats else "text_to_text"

    @property
    def title(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    def get(self, whose: str, what: str) -> float | None:
        """One figure, or None if it was not measured."""
        return self.values.get((whose, what))

    def languages(self, what: str) -> dict[str, float]:
        """A figure for each language that has it."""
        return {
            whose: value
            for (whose, key), value in self.values.items()
            if key == what and "/" not in whose and whose not in ("mean", "")
        }

    def families(self, what: str) -> dict[str, float]:
        """A figure for each language family that has it."""
        return {
            whose.removeprefix("family/"): value
            for (whose, key), value in self.values.items()
            if key == what and whose.startswith("family/")
        }

    def subsets(self, what: str) -> dict[str, float]:
        """A figure for each subset that has it."""
        return {
            whose.removesuffix("/mean"): value
            for (whose, key), value in self.values.items()
            if key == what and whose.endswith("/mean")
        }


@dataclasses.dataclass(frozen=True)
class Run:
    """All that is known of a run.

    Attributes:
        name: of its folder.
        config: as it was run; empty if there is none.
        series: name of a number to its steps and values, of training and evaluations.
        evaluations: by name, in the order of the config.
        showcase: arrays that `evaluators.showcase` wrote, or None.
    """

    name: str
    config: Mapping[str, Any]
    series: Mapping[str, tuple[list[int], list[float]]]
    evaluations: Mapping[str, Evaluation]
    showcase: Mapping[str, np.ndarray] | None

    def of_kind(self, kind: str) -> list[Evaluation]:
        """The evaluations of one kind."""
        return [e for e in self.evaluations.values() if e.kind == kind]


def read(workdir: Path) -> Run:
    """Reads config.json, metrics.jsonl, metrics.json and showcase.npz.

    Raises:
        ValueError: if there is no such folder, none of the files is in it, or one of
            them is damaged.
    """
    files = ("config.json", "metrics.jsonl", "metrics.json", "showcase.npz")
    if not workdir.is_dir():
        raise ValueError(f"there is no folder {workdir} to report on.")
    if not any((workdir / file).exists() for file in files):
        raise ValueError(
            f"{workdir} holds no run: none of {', '.join(files)} is there. Train or "
            "evaluate with --workdir first."
        )
    config = _json(workdir / "config.json")
    series = _series(workdir / "metrics.jsonl")
    latest = {key: (steps[-1], values[-1]) for key, (steps, values) in series.items()}
    measured = {
        key: (None, float(value))
        for key, value in _json(workdir / "metrics.json").items()
        if _is_number(value)
    }
    evaluations = _evaluations({**latest, **measured}, config.get("evals") or {})
    return Run(
        name=workdir.resolve().name,
        config=config,
        series=series,
        evaluations=evaluations,
        showcase=_showcase(workdir / "showcase.npz"),
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error}. Remove it or restore it."
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object: got {type(content)}.")
    return content


def _series(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Every finite number by name; a step that comes twice counts as it came last."""
    points: dict[str, dict[int, float]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):  # cut short by a kill
                break
            raise ValueError(
                f"line {number} of {path} is damaged: {error}. Remove the line."
            ) from None
        for key, value in row.items():
            if _is_number(value):
                points.setdefault(key, {})[step] = float(value)
    return {
        key: (sorted(series), [series[step] for step in sorted(series)])
        for key, series in points.items()
    }


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def split_name(key: str) -> tuple[str, str, str] | None:
    """`NAME/WHOSE/WHAT` in its parts, or None if it is no evaluator's figure."""
    name, _, rest = key.removeprefix("evals/").partition("/")
    if rest == "majority":
        return name, "", "majority"
    for match in _WHAT.finditer(rest):
        if match.end() == len(rest) and match.start() >= 2:
            return name, rest[: match.start() - 1], match.group()
    return None


def _evaluations(
    figures: Mapping[str, tuple[int | None, float]], sections: Mapping[str, Any]
) -> dict[str, Evaluation]:
    values: dict[str, dict[tuple[str, str], float]] = {}
    steps: dict[str, int | None] = {}
    for key, (step, value) in figures.items():
        parts = split_name(key)
        if parts:
            name, whose, what = parts
            values.setdefault(name, {})[whose, what] = value
            steps[name] = step
    order = [*(n for n in sections if n in values), *(n for n in values)]
    return {
        name: Evaluation(
            name, steps[name], values[name], _traits(name, sections.get(name))
        )
        for name in dict.fromkeys(order)
        if any(what != "majority" for _, what in values[name])
    }


def _traits(name: str, section: Any) -> dict[str, str]:
    """What split and languages say: `held_out_concepts_unseen_vendor`, `train`.

    Where the config has neither, the evaluation's name is asked.
    """
    data = section.get("data") if isinstance(section, Mapping) else None
    data = data if isinstance(data, Mapping) else {}
    split, languages = str(data.get("split", name)), str(data.get("languages", name))
    traits = {}
    if re.search(r"held_out_concept|unseen_concept", split):
        traits["concepts"] = "held-out"
    elif re.search(r"seen_concept|^train$", split):
        traits["concepts"] = "seen"
    if "unseen_vendor" in split:
        traits["vendor"] = "unseen"
    elif re.search(r"seen_vendor|^train$", split):
        traits["vendor"] = "seen"
    if match := re.search(r"held_out_(related|script|language)", languages):
        traits["languages"] = {
            "related": "held-out languages, relatives of trained ones",
            "script": "held-out languages, new scripts",
            "language": "held-out languages",
        }[match[1]]
    return traits


def _showcase(path: Path) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in _ARRAYS}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Remove it or restore it."
        ) from None
