"""The page: every section as HTML. All text of the run goes through `_text`."""

import base64
import html
import io
import json
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from big_mm.report import figures, fonts, sections
from big_mm.report.figures import Drawing, Query
from big_mm.report.reading import Evaluation, Run
from big_mm.report.sections import Table
from big_mm.text.languages import LANGUAGES

_TEMPLATE = Path(__file__).with_name("page.html")
_SHOWCASE = "add an evaluator <code>evaluators.showcase:Showcase</code> to the config"


def render(run: Run, heat_maps: dict[str, Drawing]) -> str:
    """The page of a run, whole."""
    queries = sections.queries(run.showcase) if run.showcase else []
    parts = [
        _header(run),
        _overview(run),
        _training(run),
        _languages(run),
        _zero_shot(run),
        _queries(run, queries),
        _side_by_side(run, heat_maps),
        _where_it_holds(run),
        _footer(run),
    ]
    template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=_text(f"{run.name} · big_mm"),
        fonts=fonts.css((query.text, query.language) for query in queries),
        body="\n".join(part for part in parts if part),
    )


def _header(run: Run) -> str:
    evaluation = sections.primary(run)
    steps = max((steps[-1] for steps, _ in run.series.values()), default=None)
    words = [f"{steps:,} steps" if steps else ""]
    if evaluation:
        count = len(evaluation.languages("text_to_image/recall_at_1"))
        words.append(f"{count} language{'s' if count != 1 else ''}")
    if run.showcase:
        words.append(
            f"{int(run.showcase['candidates']):,} candidate images in the grid"
        )
    lead = " · ".join(word for word in words if word) or "No figures yet"
    return (
        f"<h1>{_text(run.name)}</h1>\n<p class=lead>{_text(lead)}</p>\n"
        f"<div class=tiles>{''.join(_tiles(run))}</div>"
    )


def _tiles(run: Run) -> list[str]:
    tiles = []
    retrieval = sections.primary(run)
    if retrieval:
        for k in (1, 5):
            what = f"text_to_image/recall_at_{k}"
            mean, each = retrieval.get("mean", what), retrieval.languages(what)
            if mean is not None and each:
                label = f"Recall at {k}, text to image"
                note = f"{sections.condition(retrieval)}. {_span(each)}"
                tiles.append(_tile(f"{mean:.3f}", label, note))
    for zero_shot in run.of_kind("zero_shot")[:1]:
        mean, majority = (
            zero_shot.get("mean", "accuracy"),
            zero_shot.get("", "majority"),
        )
        if mean is not None:
            span = _span(zero_shot.languages("accuracy"))
            note = f"{sections.condition(zero_shot)}. {span}"
            if majority is not None:
                note += f"; always the largest class: {majority:.2f}"
            tiles.append(_tile(f"{mean:.3f}", "Zero-shot accuracy", note))
    if "loss" in run.series:
        steps, losses = run.series["loss"]
        note = f"from {losses[0]:.3f} at step {steps[0]:,}"
        if "examples_per_s" in run.series:
            speed = float(np.median(run.series["examples_per_s"][1]))
            note += f"; {speed:,.0f} examples per second"
        tiles.append(_tile(f"{losses[-1]:.3f}", "Loss at the end", note))
    return tiles


def _tile(value: str, label: str, note: str) -> str:
    return (
        f"<div class=tile><span>{_text(label)}</span><b>{_text(value)}</b>"
        f"<small>{_text(note)}</small></div>"
    )


def _span(each: dict[str, float]) -> str:
    """Least and greatest of the languages, in words."""
    low, high = min(each, key=each.__getitem__), max(each, key=each.__getitem__)
    if low == high:
        return sections.name_of(low)
    return (
        f"{sections.name_of(low)} {each[low]:.2f} to "
        f"{sections.name_of(high)} {each[high]:.2f}"
    )


def _overview(run: Run) -> str:
    table = sections.overview(run)
    if table is None:
        missing = "No retrieval was measured: add <code>evals</code> to the config."
        return f"<h2>At a glance</h2>\n{_missing(missing)}"
    note = (
        "Means with all languages equal. T→I: captions ask for images, I→T: images for "
        "captions. Rank variance: spread of an image's rank over the languages that "
        "ask for it, smaller is steadier."
    )
    return f"<h2>At a glance</h2>\n{_table(table)}<p class=note>{note}</p>"


def _training(run: Run) -> str:
    panels = sections.panels(run)
    if not panels:
        missing = "No curves: <code>metrics.jsonl</code> has no two rows of training."
        return f"<h2>Training</h2>\n{_missing(missing)}"
    drawn = "".join(
        f"<div class=panel>{figures.curve(panel).svg()}</div>" for panel in panels
    )
    return f"<h2>Training</h2>\n<div class=panels>{drawn}</div>"


def _languages(run: Run) -> str:
    first = sections.primary(run)
    if first is None:
        return ""
    held_out = [
        evaluation
        for evaluation in run.of_kind("retrieval")
        if evaluation.traits.get("languages")
    ]
    opened = list({e.name: e for e in (first, *held_out)}.values())
    parts = ["<h2>Every language</h2>"]
    parts.append(
        "<p class=note>Text to image. Strong bar: recall at 1; pale bar: recall at 5. "
        "Families by their mean.</p>"
    )
    for evaluation in opened:
        title = f"{evaluation.title}: {sections.condition(evaluation)}"
        parts.append(f"<h3>{_text(title)}</h3>{_bars(evaluation)}")
    for evaluation in run.of_kind("retrieval"):
        if evaluation not in opened:
            title = f"{evaluation.title}: {sections.condition(evaluation)}"
            parts.append(
                f"<details><summary>{_text(title)}</summary>{_bars(evaluation)}</details>"
            )
    return "\n".join(parts)


def _zero_shot(run: Run) -> str:
    evaluations = run.of_kind("zero_shot")
    if not evaluations:
        return ""
    parts = ["<h2>Zero-shot classification</h2>"]
    parts.append(
        "<p class=note>The nearest class by its names in each language. Dashed: always "
        "the largest class.</p>"
    )
    for number, evaluation in enumerate(evaluations):
        title = _text(f"{evaluation.title}: {sections.condition(evaluation)}")
        bars = _bars(evaluation)
        if number == 0:
            parts.append(f"<h3>{title}</h3>{bars}")
        else:
            parts.append(f"<details><summary>{title}</summary>{bars}</details>")
    return "\n".join(parts)


def _bars(evaluation: Evaluation) -> str:
    chart = sections.chart(evaluation)
    widest = max([0.05, *(max(row.value, row.behind or 0) for row in chart.rows)])
    full = min(1.0, max(widest * 1.04, chart.line or 0))
    percent = lambda value: f"{100 * min(value / full, 1):.2f}"
    line = "" if chart.line is None else f'<u style="--w:{percent(chart.line)}"></u>'
    groups: dict[str, list[str]] = {}
    for row in chart.rows:
        behind, second = "", ""
        if row.behind is not None:
            behind = f'<i class=behind style="--w:{percent(row.behind)}"></i>'
            second = f" <small>{row.behind:.3f}</small>"
        groups.setdefault(row.group, []).append(
            f"<div class=bar><span>{_text(row.label)}</span><span class=track>{behind}"
            f'<i style="--w:{percent(row.value)}"></i>{line}</span>'
            f"<span class=value>{row.value:.3f}{second}</span></div>"
        )
    families = "".join(
        f'<div class=family style="--c:{chart.colors[family]}">'
        f"<h4><i></i>{_text(family)}</h4>{''.join(rows)}</div>"
        for family, rows in groups.items()
    )
    return f"<div class=families>{families}</div>"


def _queries(run: Run, queries: Sequence[Query]) -> str:
    title = "<h2>Queries and what they find</h2>"
    if run.showcase is None:
        return f"{title}\n{_missing(f'No pictures yet: {_SHOWCASE}.')}"
    count = int(run.showcase["candidates"])
    top = run.showcase["top_images"].shape[1]
    note = (
        f"The {top} nearest of {count:,} images, best first; the right one is marked, "
        "and its rank given. Queries are drawn by a fixed hash, not chosen by how well "
        "they do."
    )
    cards = "".join(_query(query) for query in queries)
    return f"{title}\n<p class=note>{note}</p><div class=queries>{cards}</div>"


def _query(query: Query) -> str:
    known = LANGUAGES.get(query.language)
    direction = known.direction if known else "auto"
    face = ",".join(fonts.families(query.text, query.language))
    style = f"font-family:{face + ',' if face else ''}var(--face)"
    found = "".join(
        f"<figure{' class=right' if right else ''}>"
        f'<img alt="{"right image" if right else "another image"}, place {place}" '
        f'src="data:image/webp;base64,{_webp(image)}"></figure>'
        for place, (image, right) in enumerate(
            zip(query.images, query.right, strict=True), start=1
        )
    )
    return (
        f'<div class=query><div class=native lang="{_text(query.language)}" '
        f'dir="{direction}" style="{_text(style)}">{_text(query.text)}</div>'
        f"<div class=gloss>{_text(query.meaning)} · rank {query.rank:,}</div>"
        f"<div class=found>{found}</div></div>"
    )


def _side_by_side(run: Run, heat_maps: dict[str, Drawing]) -> str:
    title = "<h2>Languages beside each other</h2>"
    parts = [title]
    if heat_maps:
        parts.append(
            "<p class=note>How near captions of the same image lie in two languages; "
            "families lie together, the scale spans the pairs of two languages.</p>"
        )
        first, *others = heat_maps.values()
        parts.append(f"<div class='map scroll'>{first.svg()}</div>")
        for drawing in others:
            parts.append(
                f"<details><summary>{_text(drawing.title)}</summary>"
                f"<div class='map scroll'>{drawing.svg()}</div></details>"
            )
    else:
        parts.append(_missing(f"No map of languages yet: {_SHOWCASE}."))
    table = sections.translations(run)
    if table is not None:
        parts.append("<h3>Captions that find their translation first</h3>")
        parts.append(_table(table))
    return "\n".join(parts)


def _where_it_holds(run: Run) -> str:
    table = sections.by_family(run)
    if table is None:
        return ""
    parts = ["<h2>Where it holds</h2>"]
    parts.append(
        "<p class=note>Recall at 1, text to image, by language family (rows) and by "
        "what is new to the model (columns).</p>"
    )
    parts.append(_table(table, heat=True))
    first = sections.primary(run)
    subsets = sections.by_subset(first) if first else None
    if first and subsets:
        parts.append(f"<h3>Parts of {_text(first.title)}</h3>{_table(subsets)}")
        parts.append("<p class=note>Queries of a part ask among all candidates.</p>")
    return "\n".join(parts)


def _footer(run: Run) -> str:
    config = ""
    if run.config:
        text = _text(json.dumps(run.config, indent=2, ensure_ascii=False))
        config = f"<details><summary>Config</summary><pre>{text}</pre></details>"
    else:
        config = _missing("No <code>config.json</code> in this folder.")
    return (
        f"<h2>How it was run</h2>\n{config}\n<footer class=note>Recall at k: share of "
        "queries with a right answer among the k nearest candidates; a tie counts "
        "against the query. The figures of this page are in metrics.jsonl, and as PNG "
        "beside it. Letters: Noto fonts, SIL Open Font License 1.1.</footer>"
    )


def _table(table: Table, *, heat: bool = False) -> str:
    """A table; `heat` shades its numbers."""
    numbers = [cell for row in table.rows for cell in row if isinstance(cell, float)]
    top = max([0.05, *numbers])
    heads = "".join(
        f"<th{' class=wrap' if heat else ''}>{_text(head)}</th>" for head in table.heads
    )
    body = []
    for number, row in enumerate(table.rows):
        cells = []
        for cell in row:
            if isinstance(cell, float):
                shown = f"{cell:.3f}" if cell < 10 else f"{cell:.1f}"
                tint = f" class=heat style='--v:{55 * cell / top:.1f}'" if heat else ""
                cells.append(f"<td{tint}>{shown}</td>")
            else:
                name, _, more = str("—" if cell is None else cell).partition("\n")
                more = f"<small>{_text(more)}</small>" if more else ""
                cells.append(f"<td>{_text(name)}{more}</td>")
        mark = " class=first" if heat and number == 0 else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    return (
        f"<div class=scroll><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _missing(words: str) -> str:
    return f"<div class=missing>{words}</div>"


def _text(text: object) -> str:
    return "—" if text is None else html.escape(str(text), quote=True)


def _webp(image: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="webp", quality=88, method=4)
    return base64.b64encode(out.getvalue()).decode()
