"""Training checkpoints: the whole state and the data position, through Orbax.

A checkpoint counts once a list of its files with their checksums stands beside them.
The list is written last, so that a checkpoint cut short by a kill is known as such and
one damaged later is found out before it is used; the one before it is then taken.
"""

import json
import logging
import threading
import zlib
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1

from big_mm import distributed

LOG = logging.getLogger(__name__)
FILES = "files.json"  # relative path -> [bytes, crc32]


class Store:
    """The checkpoints of one run, newest last.

    Args:
        directory: holds one folder per step; made when first needed.
        keep_last: how many of the newest stay; two at least, since the newest counts
            only some moments after it made Orbax delete the oldest.
        keep_every_steps: checkpoints of these steps stay for ever; None: none do.

    Raises:
        ValueError: if `keep_last` is below two.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep_last: int = 2,
        keep_every_steps: int | None = None,
    ):
        if keep_last < 2:
            raise ValueError(
                f"keep_last is at least 2, so that one survives a kill at any moment: "
                f"got {keep_last}."
            )
        policies = v1.training.preservation_policies
        keep: list[Any] = [policies.LatestN(keep_last)]
        if keep_every_steps:
            keep.append(policies.EveryNSteps(keep_every_steps))
        self.directory = epath.Path(directory).resolve()  # Orbax refuses relative ones
        self.directory.mkdir(parents=True, exist_ok=True)
        self._orbax = v1.training.Checkpointer(
            self.directory,
            preservation_policy=policies.AnyPreservationPolicy(keep),  # pyright: ignore[reportArgumentType]
            cleanup_tmp_directories=jax.process_count() == 1,
        )
        self._finishing: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, step: int, state: Any, data: dict[str, Any]) -> None:
        """Starts to save; returns when the arrays may change, not when all is written.

        Args:
            step: updates made so far.
            state: pytree of arrays, on any mesh.
            data: position of the data, as JSON.

        Raises:
            OSError: if this or the previous checkpoint could not be written.
        """
        self.wait()
        if distributed.on_first(lambda: step in self.steps()):
            return
        response = self._orbax.save_checkpointables_async(
            step, {"state": state, "data": data}, force=True
        )

        def finish():
            try:
                if response is not None:
                    response.result()
                if jax.process_index() == 0:
                    _write_list(self.directory / str(step))
            except BaseException as error:  # handed to the thread that trains
                self._failure = error

        self._finishing = threading.Thread(target=finish, name=f"save-{step}")
        self._finishing.start()

    def wait(self) -> None:
        """Returns once the last `save` is safe on disk; raises what it met."""
        distributed.together(self._join)

    def _join(self) -> None:
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first; damage is not looked for."""
        return sorted(
            int(path.name)
            for path in self.directory.iterdir()
            if path.name.isdigit() and (path / FILES).exists()
        )

    def restore_latest(self, abstract: Any) -> tuple[Any, dict[str, Any]] | None:
        """State and data position of the newest checkpoint that is whole.

        One that was not finished is deleted, one that was damaged since is set aside
        under another name, both with a warning.

        Args:
            abstract: the state's shapes, dtypes and shardings; the mesh may differ from
                the one that saved.
        """
        name = distributed.on_first(self._newest_whole)
        self._orbax.reload()
        return None if name is None else restore(self.directory / name, abstract)

    def _newest_whole(self) -> str | None:
        folders = sorted(_folders(self.directory), key=_step, reverse=True)
        whole = next((path for path in folders if damage(path) is None), None)
        for path in folders[: folders.index(whole) if whole else None]:
            _retire(path)
        return None if whole is None else whole.name

    def close(self) -> None:
        """Waits for the last save and lets go of Orbax's threads."""
        self._join()  # alone: it may be that only this process met an error
        self._orbax.close()


def restore(path: epath.PathLike, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """State and data position of one checkpoint folder, placed as `abstract` says."""
    target = {"state": abstract, "data": None}
    found = v1.load_checkpointables(epath.Path(path).resolve(), target)
    return found["state"], found["data"]


def damage(path: epath.PathLike) -> str | None:
    """What is wrong with a checkpoint folder in a few words, or None if it is whole."""
    path = epath.Path(path)
    try:
        listed = json.loads((path / FILES).read_text())
    except FileNotFoundError:
        return "it was not finished"
    except (ValueError, UnicodeDecodeError):
        return f"{FILES} is damaged"
    for name, (size, checksum) in listed.items():
        file = path / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().length != size or _crc32(file) != checksum:
            return f"{name} is damaged"
    return None


def latest(directory: epath.PathLike) -> epath.Path:
    """The newest whole checkpoint under a run's `checkpoints/`; changes nothing.

    Raises:
        ValueError: if there is none.
    """
    directory = epath.Path(directory)
    folders = _folders(directory) if directory.exists() else []
    for path in sorted(folders, key=_step, reverse=True):
        if damage(path) is None:
            return path
    raise ValueError(f"there is no whole checkpoint in {directory}.")


def _folders(directory: epath.Path) -> list[epath.Path]:
    return [path for path in directory.iterdir() if path.name.isdigit()]


def _step(path: epath.Path) -> int:
    return int(path.name)


def _retire(path: epath.Path) -> None:
    harm = damage(path)
    if not (path / FILES).exists():
        LOG.warning("checkpoint %s was not finished: deleted.", path.name)
        path.rmtree()
        return
    aside = path.parent / f"damaged_{path.name}"
    while aside.exists():
        aside = aside.parent / f"{aside.name}_again"
    path.rename(aside)
    LOG.warning(
        "checkpoint %s is not whole (%s): set aside as %s, the one before it is used.",
        path.name,
        harm,
        aside.name,
    )


def _write_list(path: epath.Path) -> None:
    files = {
        str(file.relative_to(path)): [file.stat().length, _crc32(file)]
        for file in sorted(_files(path))
    }
    partial = path / f"{FILES}.partial"
    partial.write_text(json.dumps(files, indent=1))
    partial.rename(path / FILES)


def _files(path: epath.Path) -> list[epath.Path]:
    found = []
    for entry in path.iterdir():
        if entry.is_dir():
            found += _files(entry)
        elif not entry.name.startswith(FILES):
            found.append(entry)
    return found


def _crc32(path: epath.Path, chunk_bytes: int = 1 << 24) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(chunk_bytes):
            checksum = zlib.crc32(block, checksum)
    return checksum


def abstract(tree: Any, shardings: Callable[[Any], Any] | Any = None) -> Any:
    """Shapes, dtypes and shardings of `tree`, which may itself be abstract."""
    if shardings is None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, tree)
    return jax.tree.map(
        lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to),
        tree,
        shardings,
    )
