"""The figures of a report: as PNG on white, and as SVG in the colours of the page."""

import dataclasses
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline

from big_mm.report import fonts

INK, MUTED, LINE = "#1c2127", "#68707a", "#dfe3e8"
GOOD = "#1a7f4b"
SERIES = ("#2f6fb4", "#c4561f", "#2b8a5e", "#8b4fa8", "#a8741a", "#3a8fa3")
# In SVG these colours become variables of the page, which knows light from dark.
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)
}
HEAT = LinearSegmentedColormap.from_list(
    "heat", ["#f4f1ea", "#f0cf9b", "#dd8a5a", "#a8436a", "#4b2a6b"]
)
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold a dollar sign
}


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves over the steps of a run.

    Attributes:
        title: what is shown, with its unit.
        curves: name to steps and values.
        log: whether values are shown on a log scale.
        from_zero: whether the scale starts at zero.
    """

    title: str
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    log: bool = False
    from_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Bar:
    """One language's bar: a value, a wider one behind it, and its group."""

    label: str
    value: float
    behind: float | None
    group: str


@dataclasses.dataclass(frozen=True)
class BarChart:
    """A bar for each language.

    Attributes:
        title: what is shown.
        rows: from top to bottom.
        colors: group to colour.
        line: a value to compare with, drawn as a dashed line.
    """

    title: str
    rows: Sequence[Bar]
    colors: Mapping[str, str]
    line: float | None = None


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure that can be had as PNG or SVG.

    Attributes:
        title: for those who cannot see it.
        inches: width and height.
        draw: draws it.
        constrained: whether matplotlib makes room for labels.
    """

    title: str
    inches: tuple[float, float]
    draw: Callable[[Figure], None]
    constrained: bool = True

    def png(self) -> bytes:
        """On white; the same bytes each time."""
        out = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            figure = self._figure()
            FigureCanvasAgg(figure)
            figure.savefig(out, format="png", dpi=144, metadata={"Software": None})
        return out.getvalue()

    def svg(self) -> str:
        """An element for the page: no links, the page's font, the page's colours."""
        out = io.StringIO()
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.title}):
            figure = self._figure()
            FigureCanvasSVG(figure)
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        return _for_page(out.getvalue(), self.title)

    def _figure(self) -> Figure:
        figure = Figure(self.inches, layout="constrained" if self.constrained else None)
        self.draw(figure)
        return figure


def curves(panels: Sequence[Panel]) -> Drawing:
    """All panels in two columns."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // 2)

    def draw(figure: Figure) -> None:
        for number, panel in enumerate(panels, start=1):
            _draw_panel(figure.add_subplot(rows, columns, number), panel)

    return Drawing("Curves", (4.6 * columns, 2.7 * rows), draw)


def curve(panel: Panel) -> Drawing:
    """One panel."""
    draw = lambda figure: _draw_panel(figure.add_subplot(), panel)
    return Drawing(panel.title, (4.6, 2.7), draw)


def bars(chart: BarChart) -> Drawing:
    """One horizontal bar for each row, coloured by group."""
    rows = chart.rows
    behind = [row.value if row.behind is None else row.behind for row in rows]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(rows))
        paint = [chart.colors[row.group] for row in rows]
        axes.barh(places, behind, color=paint, alpha=0.32, height=0.74, linewidth=0)
        axes.barh(
            places, [r.value for r in rows], color=paint, height=0.74, linewidth=0
        )
        for place, row, end in zip(places, rows, behind, strict=True):
            text = f"{row.value:.2f}"
            text += "" if row.behind is None else f" / {row.behind:.2f}"
            axes.text(
                max(end, row.value) + 0.01, float(place), text, va="center", fontsize=7
            )
        if chart.line is not None:
            axes.axvline(chart.line, color=INK, linestyle=(0, (3, 3)), linewidth=1)
        labels = [f"{row.label}  ·  {row.group}" for row in rows]
        axes.set_yticks(places, labels, fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, max([*behind, chart.line or 0, 0.05]) * 1.15 + 0.04)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_title(chart.title, loc="left")

    return Drawing(chart.title, (7.5, 0.21 * len(rows) + 0.9), draw)


def heat_map(
    values: np.ndarray, languages: Sequence[str], groups: Sequence[str], title: str
) -> Drawing:
    """A language-by-language map.

    Args:
        values: (languages, languages); NaN where there is none.
        languages: codes, in the order of the rows; members of a group lie together.
        groups: the family of each language; a line is drawn where it changes.
        title: what is shown.
    """
    count = len(languages)
    side = min(11.0, max(3.6, 0.17 * count + 1.4))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        apart = values[~np.eye(count, dtype=bool)]
        known = apart[np.isfinite(apart)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        image = axes.imshow(values, cmap=HEAT, vmin=low, vmax=max(high, low + 1e-6))
        size = 8 if count <= 40 else 6.5 if count <= 64 else 5
        axes.set_xticks(range(count), languages, rotation=90, fontsize=size)
        axes.set_yticks(range(count), languages, fontsize=size)
        axes.tick_params(length=0)
        axes.grid(False)
        for place in range(1, count):
            if groups[place] != groups[place - 1]:
                axes.axhline(place - 0.5, color="white", linewidth=0.8)
                axes.axvline(place - 0.5, color="white", linewidth=0.8)
        axes.spines[:].set_visible(False)
        axes.set_title(title, loc="left")
        bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02, aspect=28)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(length=0, labelsize=8)

    return Drawing(title, (side + 0.7, side), draw)


@dataclasses.dataclass(frozen=True)
class Query:
    """A query of the grid, with the images that it found.

    Attributes:
        text: in its own script.
        language: its code.
        name: of the language, in English.
        gloss: what it means, in English.
        rank: of the right image.
        images: (top, H, W, 3), best first.
        right: which of them are right.
    """

    text: str
    language: str
    name: str
    gloss: str
    rank: int
    images: np.ndarray
    right: Sequence[bool]

    @property
    def meaning(self) -> str:
        """Language and gloss; no gloss where it repeats the text."""
        told = not self.gloss or self.gloss == self.text
        return self.name if told else f"{self.name}: {self.gloss}"


def query_grid(queries: Sequence[Query], *, columns: int = 2) -> Drawing:
    """Queries in their own script beside the images they found, best first."""
    rows = -(-len(queries) // columns)
    room, row_height = 3.4, 1.25  # in units of one thumbnail
    width = room + queries[0].images.shape[0] + 0.4

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
        axes.axis("off")
        for number, query in enumerate(queries):
            x = (number % columns) * width
            y = -(number // columns) * row_height - 1.1
            _draw_query(axes, query, x, y, room)
        axes.set_xlim(0, columns * width)
        axes.set_ylim(-rows * row_height, 0)

    inches = (columns * width * 0.62, rows * row_height * 0.62)
    return Drawing("Queries and their images", inches, draw, constrained=False)


def _draw_query(axes: Axes, query: Query, x: float, y: float, room: float) -> None:
    wide = fonts.outline(query.text, query.language).width * 0.36 > room - 0.3
    lines = _halves(query.text) if wide else [query.text]
    for line, text in enumerate(lines):
        size, base = (0.36, y + 0.5) if len(lines) == 1 else (0.29, y + 0.74)
        _draw_text(axes, text, query.language, x, base - 0.36 * line, size, room - 0.3)
    meaning = query.meaning
    short = meaning if len(meaning) <= 38 else meaning[:37] + "…"
    axes.text(x, y + 0.1, short, fontsize=7, color=MUTED)
    for place, image in enumerate(query.images):
        left = x + room + place
        box = (left + 0.04, left + 0.96, y + 0.04, y + 0.96)
        axes.imshow(image, extent=box, aspect="auto", zorder=1)
        if query.right[place]:
            frame = Rectangle(
                (left + 0.02, y + 0.02), 0.96, 0.96, fill=False, ec=GOOD, lw=2.2
            )
            axes.add_patch(frame)


def _halves(text: str) -> list[str]:
    """Two lines of about equal length, or one if there is no space to break at."""
    spaces = [place for place, character in enumerate(text) if character == " "]
    if not spaces:
        return [text]
    middle = min(spaces, key=lambda place: abs(2 * place - len(text)))
    return [text[:middle], text[middle + 1 :]]


def _draw_text(
    axes: Axes, text: str, language: str, x: float, y: float, size: float, room: float
) -> None:
    """Draws a text of any script from (x, y), smaller if it is wider than `room`."""
    drawing = fonts.outline(text, language)
    if not drawing.codes:
        return
    size = min(size, room / max(drawing.width, 1e-6))
    points = [(x + a * size, y + b * size) for a, b in drawing.vertices]
    axes.add_patch(
        PathPatch(Outline(points, drawing.codes), facecolor=INK, linewidth=0)
    )


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for color, (name, (steps, values)) in zip(
        (*SERIES, *SERIES), panel.curves.items(), strict=False
    ):
        marker = "o" if len(steps) < 3 else None
        axes.plot(steps, values, color=color, label=name, marker=marker, markersize=3)
    if panel.log and all(min(values) > 0 for _, values in panel.curves.values()):
        axes.set_yscale("log")
        axes.margins(y=0.25)  # room for the legend
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if panel.from_zero:
        top = max(max(values) for _, values in panel.curves.values())
        axes.set_ylim(0, 1.08 * top or 1)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel("step")
    axes.tick_params(length=0)
    if len(panel.curves) > 1:
        axes.legend(loc="best")


def _for_page(text: str, title: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"(font(-family)?: ?[^;\"]*?)'[^;\"]*", r"\1var(--face)", text)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    keep = lambda match: match[0] if match[1] in used else ""
    text = re.sub(r' id="([^"]+)"', keep, text)  # several figures share a page
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    label = html.escape(title, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
