"""A run's figures as one HTML page, readable anywhere, and as PNGs beside it."""

import os
from collections.abc import Iterator
from pathlib import Path

from big_mm.report import figures, page, sections
from big_mm.report.reading import Run, read

FILE = "report.html"


def write(workdir: str | Path) -> Path:
    """Writes report.html and its PNGs from what a run left in its folder.

    Reads config.json, metrics.jsonl, metrics.json (of `evaluate`) and showcase.npz,
    each if it is there; the page says what is missing and how to get it. It holds its
    own fonts and pictures and asks no other machine for anything. The same files give
    the same page.

    Args:
        workdir: the run's folder.

    Returns:
        The path of the page.

    Raises:
        ValueError: if there is no such folder, no file of a run in it, or a file is
            damaged.
    """
    workdir = Path(workdir)
    run = read(workdir)
    heat_maps = sections.heat_maps(run.showcase) if run.showcase else {}
    for name, drawing in _pictures(run):
        _replace(workdir / name, drawing.png())
    for name, drawing in heat_maps.items():
        _replace(workdir / f"{name}.png", drawing.png())
    _replace(workdir / FILE, page.render(run, heat_maps).encode())
    return workdir / FILE


def _pictures(run: Run) -> Iterator[tuple[str, figures.Drawing]]:
    """The figures by file name; missing ones are left out."""
    panels = sections.panels(run)
    if panels:
        yield "curves.png", figures.curves(panels)
    for evaluation in (*run.of_kind("retrieval"), *run.of_kind("zero_shot")):
        chart = sections.chart(evaluation)
        if chart.rows:
            yield sections.file_name(evaluation), figures.bars(chart)
    if run.showcase is not None:
        queries = sections.queries(run.showcase)
        if queries:
            yield "queries.png", figures.query_grid(queries)


def _replace(path: Path, content: bytes) -> None:
    """Writes in one go: a kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
