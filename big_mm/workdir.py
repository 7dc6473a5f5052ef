"""A run's folder: whose it is, what started it, and that one process has it."""

import fcntl
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import jax

from big_mm import distributed

CONFIG = "config.json"
FREE_TO_CHANGE = ("mesh", "sharding")  # where arrays lie, not what they hold


def open_run(path: Path, config: Mapping[str, Any]) -> IO[str]:
    """Makes or takes up a run's folder; keep the result open as long as the run lasts.

    Args:
        path: the folder.
        config: of the run, as JSON values.

    Raises:
        ValueError: if the folder belongs to a run of another config, holds files of
            something else, or is in use by another process.
    """
    config = json.loads(json.dumps(config))
    if path.exists() and not path.is_dir():
        raise ValueError(f"--workdir is a folder: {path} is a file.")
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / ".lock").open("w")
    try:
        distributed.on_first(lambda: _claim(path, lock, config))
    except BaseException:
        lock.close()
        raise
    return lock


def read_config(path: Path) -> dict[str, Any]:
    """The config of the run in `path`.

    Raises:
        ValueError: if there is no run, or its config cannot be read.
    """
    file = path / CONFIG
    if not file.exists():
        raise ValueError(f"a run's folder holds {CONFIG}: there is none in {path}.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: {error}.") from None


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file in one go: a kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, path)


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names at which two JSON values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            name = f"{prefix}.{key}" if prefix else key
            if key not in new:
                found.append(f"{name}: {old[key]!r} -> (not set)")
            elif key not in old:
                found.append(f"{name}: (not set) -> {new[key]!r}")
            else:
                found += differences(old[key], new[key], name)
        return found
    return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]


def _claim(path: Path, lock: IO[str], config: Mapping[str, Any]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(
            f"one process trains in a folder: another has {path}. Stop it, or choose "
            f"another --workdir."
        ) from None
    names = [p.name for p in path.iterdir()]
    others = [n for n in names if not re.fullmatch(r"\.lock|log(_\d+)?\.txt", n)]
    if (path / CONFIG).exists():
        _refuse_another_config(path, config)
    elif others:
        raise ValueError(
            f"a new run needs an empty folder: {path} holds {sorted(others)[:5]} and "
            f"no {CONFIG}. Choose another --workdir."
        )
    else:
        write_json(path / CONFIG, config)
    _write_environment(path)


def _refuse_another_config(path: Path, config: Mapping[str, Any]) -> None:
    found = [
        line
        for line in differences(read_config(path), config)
        if line.split(":")[0].split(".")[0] not in FREE_TO_CHANGE
    ]
    if found:
        shown = "; ".join(found[:8]) + ("; ..." if len(found) > 8 else "")
        raise ValueError(
            f"{path} holds a run of another config ({shown}). Choose another "
            f"--workdir, or give the config it was started with."
        )


def _write_environment(path: Path) -> None:
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    status = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True
    )
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "git_commit": commit.stdout.strip() or None,
        "git_changed_files": len(status.stdout.splitlines()),
        "python": sys.version.split()[0],
        "packages": {
            name: importlib.metadata.version(name)
            for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "grain")
        },
        "devices": [str(device) for device in jax.devices()][:8],
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
    }
    file = path / "environment.json"
    starts = json.loads(file.read_text()) if file.exists() else []
    write_json(file, [*starts, entry])
