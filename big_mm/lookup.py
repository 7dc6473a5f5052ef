"""Finds what a config names: `"losses.contrastive:sigmoid"` -> the function."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent


def resolve(name: str) -> Any:
    """The object that `"module:name"` names.

    The module is looked for under `big_mm` first, then as it stands, so that a project
    of one's own adds its parts by `"my_project.losses:mine"` without registering them.

    Args:
        name: module path, a colon, and the name of an object in that module.

    Raises:
        ValueError: if the module or the object does not exist; offers the nearest name.
    """
    path, colon, attribute = name.partition(":")
    if not colon or not path or not attribute:
        raise ValueError(f"names have the form 'module:object': got {name!r}.")
    module = _import(f"big_mm.{path}") or _import(path)
    if module is None:
        near = nearest(path, _modules())
        raise ValueError(f"there is no module {path!r} for {name!r}.{near}")
    if attribute.startswith("_") or not hasattr(module, attribute):
        public = [key for key in vars(module) if not key.startswith("_")]
        near = nearest(attribute, public)
        raise ValueError(f"{module.__name__} has no {attribute!r}.{near}")
    return getattr(module, attribute)


def call(section: Mapping[str, Any], /, **context: Any) -> Any:
    """Calls what `section["name"]` names with the rest of the section.

    `context` holds what the config cannot: those of its values are passed that the
    callable asks for by name.

    Raises:
        ValueError: on a missing `name`, a key the callable does not take (the nearest
            is offered), or a required one that is missing.
    """
    name, function, given = _read(section)
    known = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    extra = {key: value for key, value in context.items() if key in known}
    for key in given:
        if key in extra:
            raise ValueError(f"{key!r} of {name} is set by the run, not by a config.")
        if key not in known and not open_ended:
            free = [k for k in known if k not in context]
            raise ValueError(f"{name} takes no {key!r}.{nearest(key, free)}")
    missing = [
        key
        for key, p in known.items()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and key not in given
        and key not in extra
    ]
    if missing:
        raise ValueError(f"{name} needs {missing}: add them to the config.")
    return function(**given, **extra)


def partial(section: Mapping[str, Any]) -> Callable[..., Any]:
    """The function `section["name"]` names, with the section's other keys fixed.

    Raises:
        ValueError: as `call`, save that missing arguments are left for the caller.
    """
    name, function, given = _read(section)
    known = inspect.signature(function).parameters
    for key in given:
        if key not in known:
            raise ValueError(f"{name} takes no {key!r}.{nearest(key, known)}")
    return lambda *args, **kwargs: function(*args, **given, **kwargs)


def nearest(word: str, words: Any) -> str:
    """A sentence that offers the nearest of `words`, or all of a few; else nothing."""
    words = list(words)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(sorted(words))}." if 0 < len(words) <= 20 else ""


def _read(section: Mapping[str, Any]) -> tuple[str, Callable, dict[str, Any]]:
    if "name" not in section:
        raise ValueError(f"a section needs a 'name': got the keys {sorted(section)}.")
    given = {key: value for key, value in section.items() if key != "name"}
    return section["name"], resolve(section["name"]), given


def _import(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if path == missing or path.startswith(missing + "."):
            return None
        raise  # the module is there, but something it needs is not


def _modules() -> list[str]:
    paths = (path.relative_to(_ROOT).with_suffix("") for path in _ROOT.rglob("*.py"))
    return [".".join(path.parts) for path in paths if path.name != "__init__"]
