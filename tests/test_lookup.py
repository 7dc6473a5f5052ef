"""Configs name code; typos are answered with the nearest name."""

import pytest

from big_mm import lookup


def test_resolve_finds_modules_under_big_mm_and_elsewhere():
    assert lookup.resolve("lookup:nearest") is lookup.nearest
    assert lookup.resolve("math:sqrt")(9) == 3


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        ("lokup:nearest", "Did you mean 'lookup'"),
        ("lookup:neerest", "Did you mean 'nearest'"),
        ("lookup", "'module:object'"),
        ("lookup:_import", "no '_import'"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(name, offer):
    with pytest.raises(ValueError, match=offer):
        lookup.resolve(name)


def test_a_module_that_cannot_be_imported_says_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "needs_absent.py").write_text("import absent_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_package"):
        lookup.resolve("needs_absent:anything")


@pytest.fixture
def section(tmp_path, monkeypatch):
    (tmp_path / "adding.py").write_text("def add(a, *, b=1): return a + b")
    monkeypatch.syspath_prepend(tmp_path)
    return {"name": "adding:add"}


def test_call_passes_the_section_and_what_the_run_offers(section):
    assert lookup.call({**section, "b": 5}, a=2, unused=7) == 7
    assert lookup.partial({**section, "b": 5})(3) == 8


@pytest.mark.parametrize(
    ("keys", "context", "rule"),
    [
        ({"bb": 2}, {"a": 1}, "takes no 'bb'. Did you mean 'b'"),
        ({}, {}, r"needs \['a'\]"),
        ({"a": 1}, {"a": 2}, "set by the run"),
    ],
)
def test_call_refuses_keys_that_do_not_fit(section, keys, context, rule):
    with pytest.raises(ValueError, match=rule):
        lookup.call({**section, **keys}, **context)


def test_call_needs_a_name():
    with pytest.raises(ValueError, match="needs a 'name'"):
        lookup.call({"b": 1})
