"""What each section of a report shows, taken from the run; no HTML, no drawing."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from big_mm.report.figures import Bar, BarChart, Drawing, Panel, Query, heat_map
from big_mm.report.reading import Evaluation, Run
from big_mm.text.languages import LANGUAGES

# Families get these in the order of their names; neighbours in the wheel lie apart.
_WHEEL = (
    "#3b6fb6",
    "#c8622a",
    "#2f8f6b",
    "#a04a8c",
    "#a8812a",
    "#4a93a8",
    "#b6473f",
    "#6a62b8",
    "#6f8f3a",
    "#8a6a54",
    "#c0568a",
    "#5b7a99",
)
OTHER = "other"


def name_of(language: str) -> str:
    """English name of a language, or its code if it is not known."""
    known = LANGUAGES.get(language)
    return known.name if known else language


def family_of(language: str) -> str:
    """Family of a language, or `OTHER` if it is not known."""
    known = LANGUAGES.get(language)
    return known.family if known else OTHER


def file_name(evaluation: Evaluation) -> str:
    """Of the PNG of an evaluation's bars."""
    return f"languages_{re.sub(r'[^A-Za-z0-9_-]+', '_', evaluation.name)}.png"


def panels(run: Run) -> list[Panel]:
    """Curves of training, and of the means of evaluations that ran more than once."""
    series = run.series

    def chosen(pattern: str) -> dict[str, tuple[list[int], list[float]]]:
        found = {}
        for key in sorted(series):
            match = re.fullmatch(pattern, key)
            if match and len(series[key][0]) > 1:
                found[_words(match.group(match.lastindex or 0))] = series[key]
        return found

    losses = chosen("loss") | chosen(r"([^/]+/loss)")
    if len(losses) == 2:  # the total, and the one term that it is made of
        losses = chosen("loss")
    recall = chosen(r"(?:evals/)?([^/]+)/mean/text_to_image/recall_at_1")
    accuracy = chosen(r"(?:evals/)?([^/]+)/mean/accuracy")
    speed, wait = chosen("examples_per_s"), chosen("data_wait_fraction")
    found = [
        Panel("Loss", losses),
        Panel(
            "Recall at 1, text to image, mean of languages",
            recall,
            from_zero=True,
        ),
        Panel("Zero-shot accuracy", accuracy, from_zero=True),
        Panel("Logits", chosen(r".*/((?:positive|negative)_logit|bias)")),
        Panel("Norms", chosen(r"norm/(.+)"), log=True),
        Panel("Learning rate", chosen(r"(?:.*/)?learning_rate.*")),
        Panel("Examples per second", speed, from_zero=True),
        Panel("Share of time spent waiting for data", wait, from_zero=True),
    ]
    return [panel for panel in found if panel.curves]


def primary(run: Run) -> Evaluation | None:
    """What to show first: unseen vendor, seen concepts, trained languages."""

    def merit(evaluation: Evaluation) -> tuple[bool, bool, bool, int]:
        traits = evaluation.traits
        return (
            not traits.get("languages"),
            traits.get("vendor") == "unseen",
            traits.get("concepts") != "held-out",
            len(evaluation.languages("text_to_image/recall_at_1")),
        )

    return max(run.of_kind("retrieval"), key=merit, default=None)


def condition(evaluation: Evaluation) -> str:
    """What is new to the model, in words; else the evaluation's name."""
    traits = evaluation.traits
    words = [
        f"{traits[key]} {key}" for key in ("concepts", "vendor") if traits.get(key)
    ]
    if traits.get("languages"):
        words.append(traits["languages"])
    return " · ".join(words) or evaluation.title


def chart(evaluation: Evaluation) -> BarChart:
    """A bar for each language; families by their mean, languages by their value."""
    zero_shot = evaluation.kind == "zero_shot"
    what = "accuracy" if zero_shot else "text_to_image/recall_at_1"
    values = evaluation.languages(what)
    behind = {} if zero_shot else evaluation.languages("text_to_image/recall_at_5")
    families: dict[str, list[str]] = {}
    for language in values:
        families.setdefault(family_of(language), []).append(language)
    mean = {
        family: float(np.mean([values[language] for language in members]))
        for family, members in families.items()
    }
    rows = [
        Bar(name_of(language), values[language], behind.get(language), family)
        for family in sorted(families, key=lambda family: (-mean[family], family))
        for language in sorted(families[family], key=lambda code: (-values[code], code))
    ]
    title = "Zero-shot accuracy" if zero_shot else "Text to image: recall at 1 / at 5"
    return BarChart(
        f"{title}: {evaluation.title}",
        rows,
        _colors(list(families)),
        evaluation.get("", "majority"),
    )


def queries(showcase: Mapping[str, np.ndarray]) -> list[Query]:
    """The queries of the grid."""
    return [
        Query(
            text=str(showcase["query_text"][row]),
            language=str(showcase["query_language"][row]),
            name=name_of(str(showcase["query_language"][row])),
            gloss=str(showcase["query_gloss"][row]),
            rank=int(showcase["query_rank"][row]),
            images=showcase["top_images"][row],
            right=[bool(right) for right in showcase["top_right"][row]],
        )
        for row in range(len(showcase["query_text"]))
    ]


def heat_maps(showcase: Mapping[str, np.ndarray]) -> dict[str, Drawing]:
    """Language by language: cosine of translations, and their recall."""
    codes = [str(code) for code in showcase["languages"]]
    if len(codes) < 2:
        return {}
    order = sorted(range(len(codes)), key=lambda row: (family_of(codes[row]), row))
    languages = [codes[row] for row in order]
    groups = [family_of(language) for language in languages]
    titles = {
        "similarity": ("cosine", "Mean cosine of translations"),
        "translations": ("recall_at_1", "Recall at 1 of translations: row asks column"),
    }
    return {
        name: heat_map(showcase[key][np.ix_(order, order)], languages, groups, title)
        for name, (key, title) in titles.items()
    }


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells under column heads; the first cell of a row is its name.

    A second line in a name says more about it.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


def overview(run: Run) -> Table | None:
    """Every retrieval evaluation in a row, means over its languages."""
    columns = {
        "T→I R@1": "text_to_image/recall_at_1",
        "R@5": "text_to_image/recall_at_5",
        "R@10": "text_to_image/recall_at_10",
        "I→T R@1": "image_to_text/recall_at_1",
        "R@5 ": "image_to_text/recall_at_5",
        "median rank": "text_to_image/median_rank",
        "rank variance": "text_to_image/mean_rank_variance",
    }
    rows = [
        [
            f"{evaluation.title}\n{condition(evaluation)}",
            str(len(evaluation.languages("text_to_image/recall_at_1"))),
            *(evaluation.get("mean", what) for what in columns.values()),
        ]
        for evaluation in run.of_kind("retrieval")
    ]
    return Table(["evaluation", "languages", *columns], rows) if rows else None


def by_family(run: Run) -> Table | None:
    """Families in rows, conditions in columns, recall at 1 text to image in cells."""
    evaluations = run.of_kind("retrieval")
    what = "text_to_image/recall_at_1"
    families = sorted({f for e in evaluations for f in e.families(what)})
    if not families:
        return None
    rows: list[list[str | float | None]] = [
        ["all languages", *(e.get("mean", what) for e in evaluations)]
    ]
    for family in families:
        rows.append([family, *(e.families(what).get(family) for e in evaluations)])
    return Table(["family", *(condition(e) for e in evaluations)], rows)


def by_subset(evaluation: Evaluation) -> Table | None:
    """Subsets in rows, recall both ways in columns."""
    columns = {
        "T→I R@1": "text_to_image/recall_at_1",
        "R@5": "text_to_image/recall_at_5",
        "I→T R@1": "image_to_text/recall_at_1",
        "R@5 ": "image_to_text/recall_at_5",
    }
    subsets = sorted(evaluation.subsets("text_to_image/recall_at_1"))
    rows = [
        [subset, *(evaluation.get(f"{subset}/mean", what) for what in columns.values())]
        for subset in subsets
    ]
    return Table(["queries of", *columns], rows) if rows else None


def translations(run: Run) -> Table | None:
    """Evaluations of translations in rows, mean, least and greatest in columns."""
    rows: list[list[str | float | None]] = []
    for evaluation in run.of_kind("text_to_text"):
        for what in sorted({what for _, what in evaluation.values}):
            each = evaluation.languages(what)
            if each:
                low = min(each, key=lambda code: (each[code], code))
                high = max(each, key=lambda code: (each[code], code))
                rows.append(
                    [
                        f"{evaluation.title}, {_words(what).replace('/', ': ')}",
                        evaluation.get("mean", what),
                        f"{name_of(low)} {each[low]:.3f}",
                        f"{name_of(high)} {each[high]:.3f}",
                    ]
                )
    return Table(["evaluation", "mean", "least", "greatest"], rows) if rows else None


def _colors(families: Sequence[str]) -> dict[str, str]:
    return {
        family: _WHEEL[place % len(_WHEEL)]
        for place, family in enumerate(sorted(families))
    }


def _words(key: str) -> str:
    return key.replace("_", " ")
