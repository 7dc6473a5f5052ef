"""What happens between two updates: numbers, progress, checkpoints, ends."""

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.progress
from jax.experimental import multihost_utils

from big_mm.arrays import Batch, Metrics, Params
from big_mm.checkpoints.store import Store
from big_mm.evaluators.core import Evaluator
from big_mm.train import Hook, State
from big_mm.writers import Writer

LOG = logging.getLogger(__name__)


class Stop(Exception):
    """Ends a run on purpose; `code` is the exit code of the process."""

    code = 1


class NonFinite(Stop):
    """The loss or the gradient stopped being a number."""

    code = 3


class Preempted(Stop):
    """The machine was asked for; all was saved and the same command goes on."""

    code = 75


def every(step: int, total_steps: int, steps: int | None) -> bool:
    """Whether `step` is a multiple of `steps`, or the last one."""
    return step == total_steps or bool(steps and step % steps == 0)


class Log:
    """Writes losses, norms, schedules and speed to the run's `Writer`.

    Args:
        writer: of the run.
        every_steps: between two rows.
        batch_examples: of the global batch.
        schedules: name -> function of the step, e.g. the learning rate.
        wait_s: seconds spent waiting for data so far.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        every_steps: int,
        batch_examples: int,
        schedules: Mapping[str, Callable[[int], Any]],
        wait_s: Callable[[], float],
    ):
        self._writer, self._every = writer, every_steps
        self._examples, self._schedules, self._wait_s = (
            batch_examples,
            schedules,
            wait_s,
        )
        self._mark: tuple[int, float, float] | None = None

    def due(self, step: int, total_steps: int) -> bool:
        """At the first step, every so many, and at the last."""
        return self._mark is None or every(step, total_steps, self._every)

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Writes one row; waits for the device to have made it."""
        row = {key: float(value) for key, value in metrics.items()}
        row |= {key: float(fn(step - 1)) for key, fn in self._schedules.items()}
        now, waited = time.monotonic(), self._wait_s()
        if self._mark is not None:
            steps, seconds = step - self._mark[0], now - self._mark[1]
            row["examples_per_s"] = steps * self._examples / seconds
            row["step_s"] = seconds / steps
            row["data_wait_fraction"] = (waited - self._mark[2]) / seconds
        self._mark = (step, now, waited)
        self._writer.write(step, row)


class Progress:
    """A line in the terminal: step, loss, speed, wait for data, time left.

    Where output goes to a file, a new line every half minute instead.
    """

    def __init__(
        self,
        *,
        start_step: int,
        total_steps: int,
        batch_examples: int,
        wait_s: Callable[[], float],
    ):
        self._examples, self._wait_s = batch_examples, wait_s
        self._seen = (start_step, time.monotonic(), wait_s())
        columns = rich.progress
        self._bar = rich.progress.Progress(
            "train",
            columns.BarColumn(bar_width=8),
            columns.MofNCompleteColumn(),
            "{task.fields[text]}",
            columns.TimeRemainingColumn(),
            refresh_per_second=2,
        )
        self._task = self._bar.add_task(
            "train", total=total_steps, completed=start_step, text="compiling"
        )
        self._live = self._bar.console.is_terminal
        self._refresh_s = 2.0 if self._live else 30.0
        if self._live:
            self._bar.start()

    def due(self, step: int, total_steps: int) -> bool:
        """Every few seconds and at the end, so that no update waits for the screen."""
        late = time.monotonic() - self._seen[1] >= self._refresh_s
        return step == total_steps or late

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Redraws the line."""
        loss = float(metrics["loss"])
        now, waited = time.monotonic(), self._wait_s()
        steps, seconds = step - self._seen[0], now - self._seen[1]
        speed = steps * self._examples / seconds
        wait = (waited - self._seen[2]) / seconds
        self._seen = (step, now, waited)
        text = f"loss {loss:.4f} · {speed:,.0f} examples/s · wait {wait:.0%} ·"
        self._bar.update(self._task, completed=step, text=text)
        if not self._live:
            total = self._bar.tasks[0].total
            left = self._bar.tasks[0].time_remaining
            ending = f" {left:.0f} s left" if left else ""
            LOG.info("step %d/%d %s%s", step, total, text, ending)

    def close(self) -> None:
        """Leaves the last line on the screen."""
        if self._live:
            self._bar.stop()


class Checkpoint:
    """Saves the whole state, by steps and by minutes, and at the end."""

    def __init__(
        self,
        store: Store,
        *,
        every_steps: int | None,
        every_minutes: float | None,
        data: Callable[[int], dict[str, Any]],
    ):
        self._store, self._steps, self._data = store, every_steps, data
        self._seconds = math.inf if every_minutes is None else 60 * every_minutes
        self._saved = time.monotonic()

    def due(self, step: int, total_steps: int) -> bool:
        """By steps or by the clock; several processes go by steps alone."""
        alone = jax.process_count() == 1
        late = alone and time.monotonic() - self._saved >= self._seconds
        return late or every(step, total_steps, self._steps)

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Starts to save; never a state that came of a non-finite update."""
        if finite(metrics):
            self._store.save(step, state, self._data(step))
        self._saved = time.monotonic()


class Preempt:
    """On SIGTERM: saves after the current update, then ends with exit code 75.

    Of several processes, all stop after the same update when one of them is asked.
    """

    def __init__(self, checkpoint: Checkpoint, store: Store):
        self._checkpoint, self._store, self._asked = checkpoint, store, False
        self._alone = jax.process_count() == 1
        if self._alone:  # otherwise JAX itself listens, and tells the others
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def due(self, step: int, total_steps: int) -> bool:
        """Once asked."""
        if not self._alone:
            self._asked |= multihost_utils.reached_preemption_sync_point(step)
        return self._asked and step < total_steps

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Saves, waits until all is on disk, raises `Preempted`."""
        self._checkpoint.run(step, state, metrics, batch)
        self._store.wait()
        raise Preempted(f"saved at step {step}: the same command goes on from there.")


class StopOnNonFinite:
    """Ends a run whose loss, gradient or weights are no numbers; keeps their batch.

    It looks at each update when the next one is under way, so that nothing waits, and
    at once when one of the hooks `before` is about to use the state.
    """

    def __init__(self, workdir: Path, *, before: Sequence[Hook] = ()):
        self._workdir, self._before = workdir, before
        self._last: tuple[int, Metrics, Batch] | None = None
        self._at_once = False

    def due(self, step: int, total_steps: int) -> bool:
        """After every update."""
        used = any(hook.due(step, total_steps) for hook in self._before)
        self._at_once = used or step == total_steps
        return True

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Checks the update before this one, and this one if it must."""
        if self._last is not None:
            self._check(*self._last)
        self._last = (step, metrics, batch)
        if self._at_once:
            self._check(*self._last)

    def _check(self, step: int, metrics: Metrics, batch: Batch) -> None:
        if finite(metrics):
            return
        process = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""
        path = self._workdir / f"nonfinite_batch_{step}{process}.npz"
        arrays: dict[str, Any] = {key: _local(value) for key, value in batch.items()}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        numbers = {k: float(v) for k, v in metrics.items() if k in _WATCHED}
        raise NonFinite(
            f"step {step} is not finite: {numbers}. Its batch is in {path}; lower the "
            f"learning rate, clip gradients, or look at the batch."
        )


def _local(array: Any) -> np.ndarray:
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    shards = {str(s.index): s.data for s in array.addressable_shards}  # no copies
    return np.concatenate([np.asarray(data) for data in shards.values()])


_WATCHED = ("loss", "norm/grads", "norm/params")


def finite(metrics: Metrics) -> bool:
    """Whether loss, gradients and weights are numbers; waits for the device."""
    return all(math.isfinite(float(metrics[key])) for key in _WATCHED)


class Evaluate:
    """Runs one evaluator and writes its figures under its name in the config."""

    def __init__(
        self,
        name: str,
        evaluator: Evaluator,
        writer: Writer,
        *,
        every_steps: int | None,
        weights: str = "params",
    ):
        if weights not in ("params", "teacher"):
            raise ValueError(f"weights is 'params' or 'teacher': got {weights!r}.")
        self._name, self._evaluator, self._writer = name, evaluator, writer
        self._every, self._weights = every_steps, weights

    def due(self, step: int, total_steps: int) -> bool:
        """Every so many steps and at the last."""
        return every(step, total_steps, self._every)

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Measures and writes; `evaluation_s` says how long it took."""
        start = time.monotonic()
        figures = evaluate(self._name, self._evaluator, getattr(state, self._weights))
        figures[f"{self._name}/evaluation_s"] = time.monotonic() - start
        self._writer.write(step, figures)


def evaluate(name: str, evaluator: Evaluator, params: Params) -> dict[str, float]:
    """An evaluator's figures, under the name it has in the config."""
    return {f"{name}/{key}": float(value) for key, value in evaluator.run(params)}


class Profile:
    """A JAX profile of a few updates, for TensorBoard and Perfetto."""

    def __init__(self, workdir: Path, *, first_step: int, steps: int = 5):
        self._path, self._first, self._last = workdir, first_step, first_step + steps

    def due(self, step: int, total_steps: int) -> bool:
        """At the two ends of the window."""
        return step in (self._first, min(self._last, total_steps))

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Starts or stops the trace."""
        jax.block_until_ready(state.params)
        if step == self._first:
            jax.profiler.start_trace(str(self._path / "profile"))
        else:
            jax.profiler.stop_trace()
