"""Where a run's numbers go: metrics.jsonl, TensorBoard and, if asked for, W&B."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

NAME = "metrics.jsonl"


class Writer:
    """Writes rows of numbers once, whatever the number of processes.

    Rows later than `start_step`, left by a run that was killed after its last
    checkpoint, are dropped first: they are about to be made again, to the same bits.

    Args:
        workdir: folder of the run.
        start_step: the step the run goes on from.
        wandb: arguments of `wandb.init`, or None for no W&B.

    Raises:
        ValueError: if W&B is asked for and not installed.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        start_step: int = 0,
        wandb: Mapping[str, Any] | None = None,
    ):
        self._primary = jax.process_index() == 0
        self._wandb = None
        if not self._primary:
            return
        if wandb is not None:
            self._wandb = _start_wandb(workdir, wandb)
        path = Path(workdir) / NAME
        keep_rows(path, up_to_step=start_step)
        self._rows = path.open("a", encoding="utf-8")
        from tensorboardX import SummaryWriter  # 0.2 s that `import big_mm` saves

        self._tensorboard = SummaryWriter(
            str(Path(workdir) / "tensorboard"), purge_step=start_step + 1
        )

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Writes one row; numbers that are not finite are written as null."""
        if not self._primary:
            return
        row = {key: float(value) for key, value in numbers.items()}
        finite = {k: (v if math.isfinite(v) else None) for k, v in row.items()}
        self._rows.write(json.dumps({"step": step, **finite}) + "\n")
        self._rows.flush()
        for key, value in row.items():
            self._tensorboard.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.log(row, step=step)

    def close(self) -> None:
        """Flushes everything to disk."""
        if not self._primary:
            return
        self._rows.close()
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut short by a kill is left out."""
    path = Path(path)
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def keep_rows(path: str | Path, *, up_to_step: int) -> None:
    """Drops the rows later than `up_to_step`; the file is replaced in one go."""
    path = Path(path)
    if not path.exists():
        return
    rows = [row for row in read_rows(path) if row["step"] <= up_to_step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    os.replace(partial, path)


def _start_wandb(workdir: str | Path, arguments: Mapping[str, Any]) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ValueError(
            "log.wandb needs the wandb package: pip install 'big_mm[wandb]', or set "
            "log.wandb to None."
        ) from None
    return wandb.init(dir=str(workdir), resume="allow", **arguments)
