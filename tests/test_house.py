"""The house keeps its floors, its size and its promises about imports."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import big_mm

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "big_mm").rglob("*.py"))
PYTHON = sorted(
    path
    for folder in ("big_mm", "configs", "tools", "benchmarks", "tests", "experiments")
    for path in (ROOT / folder).rglob("*.py")
)

# A room may import from lower floors, and from itself.
FLOORS = {
    "arrays": 1,
    "distributed": 1,
    "lookup": 1,
    "durations": 1,
    "writers": 1,
    "losses": 2,
    "metrics": 2,
    "schedules": 2,
    "text": 2,
    "layers": 3,
    "data": 3,
    "curation": 3,
    "optim": 3,
    "sharding": 3,
    "workdir": 3,
    "models": 4,
    "objectives": 4,
    "train": 5,
    "encoding": 5,
    "evaluators": 5,
    "checkpoints": 5,
    "encoder": 6,
    "hooks": 6,
    "report": 6,
    "build": 7,
    "costs": 8,
    "runs": 9,
    "cli": 10,
}


def room(path):
    return path.relative_to(ROOT / "big_mm").parts[0].removesuffix(".py")


def imports(path):
    """Names of the modules of big_mm that a file imports, inner imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"write imports from the root: {path}:{node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


ROOMS = [path for path in SOURCES if path != ROOT / "big_mm" / "__init__.py"]


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    here = room(path)
    assert here in FLOORS, f"give {here} a floor"
    for name in imports(path):
        if name.startswith("big_mm."):
            other = name.split(".")[1]
            assert other == here or FLOORS[other] < FLOORS[here], f"{here} -> {other}"


def test_losses_and_metrics_know_arrays_alone():
    for path in SOURCES:
        if room(path) in ("losses", "metrics"):
            ours = {n.split(".")[1] for n in imports(path) if n.startswith("big_mm.")}
            assert ours <= {"arrays", room(path)}, path


def test_the_trainer_knows_objectives_alone():
    ours = {n for n in imports(ROOT / "big_mm/train.py") if n.startswith("big_mm.")}
    assert {n.split(".")[1] for n in ours} <= {"arrays", "objectives"}
    assert all(
        n.startswith("big_mm.objectives.core") for n in ours if "objectives" in n
    )


def test_configs_import_ml_collections_and_common_alone():
    for path in (ROOT / "configs").glob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in ("ml_collections", "configs"), f"{path.name} imports {name}"
            if top == "configs":
                assert name == "configs.common", f"{path.name} imports {name}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small_and_functions_too(path):
    text = path.read_text()
    assert text.count("\n") <= 400, "more than 400 lines: is there a second idea in it?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name != "get_config":
            start = node.body[0]
            told = isinstance(start, ast.Expr) and isinstance(start.value, ast.Constant)
            first = node.body[1] if told and len(node.body) > 1 else start
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_no_room_for_odds_and_ends():
    names = {path.stem for path in PYTHON}
    assert not names & {"utils", "util", "helpers", "misc", "common_utils"}


def test_every_module_and_public_name_says_what_it_is():
    for path in SOURCES:
        text = path.read_text()
        if text.strip():
            assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_no_note_is_left_for_later():
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    for path in PYTHON:
        if path.name != "test_house.py":
            assert not marks.search(path.read_text()), path


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )


def test_import_is_light():
    code = "import sys, big_mm; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = set(run(code).stdout.split())
    heavy = {
        "jax",
        "flax",
        "tensorflow",
        "torch",
        "grain",
        "orbax",
        "matplotlib",
        "cv2",
    }
    assert not loaded & heavy


@pytest.mark.parametrize(
    "name",
    [
        "losses.contrastive.sigmoid",
        "losses.contrastive.softmax",
        "metrics.retrieval.recall_at_k",
        "metrics.retrieval.mean_rank_variance",
        "data.images.naflex_size",
    ],
)
def test_names_that_others_rely_on_are_found_after_a_bare_import(name):
    done = run(f"import big_mm; print(callable(big_mm.{name}))")
    assert done.stdout.strip() == "True", done.stderr


def test_a_part_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lossses'"):
        big_mm.lossses  # noqa: B018


def test_nothing_brings_tensorflow_or_torch():
    modules = [
        m.name
        for m in pkgutil.walk_packages([str(ROOT / "big_mm")], "big_mm.")
        if not m.ispkg
    ]
    assert "big_mm.train" in modules
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print(*(m for m in ('tensorflow', 'torch') if m in sys.modules))"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
