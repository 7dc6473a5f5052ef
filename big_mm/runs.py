"""What the commands do with a config and a folder: train, evaluate, describe."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from big_mm import (
    build,
    costs,
    distributed,
    durations,
    hooks,
    lookup,
    report,
    sharding,
    train,
    workdir,
    writers,
)
from big_mm.arrays import Params
from big_mm.checkpoints import store
from big_mm.text import tokenizers

LOG = logging.getLogger(__name__)


def train_run(config: Any, path: Path) -> None:
    """Trains from scratch, or goes on where the run in `path` stopped; then reports.

    Raises:
        ValueError: on a config or a folder that does not fit.
        hooks.Stop: when the run ends early on purpose.
    """
    config = config.to_dict()
    distributed.check_same("the config", config)
    # A config that is refused claims no folder.
    run = distributed.together(lambda: _Run(build.parts(config), path))
    with contextlib.ExitStack() as stack:
        stack.callback(workdir.open_run(path, config).close)
        number = "" if distributed.first() else f"_{jax.process_index()}"
        stack.enter_context(_log_file(path / f"log{number}.txt"))
        saved = stack.enter_context(contextlib.closing(run.checkpoints()))
        first = saved.restore_latest(run.abstract)
        state = run.init() if first is None else first[0]
        start = int(state.step)
        LOG.info("%s at step %d of %d", path, start, run.total_steps)
        batches = run.batches(start)
        stack.callback(batches.close)
        writer = distributed.together(
            lambda: writers.Writer(path, start_step=start, wandb=run.log.get("wandb"))
        )
        stack.enter_context(contextlib.closing(writer))
        hooks_ = run.hooks(start, batches, writer, saved, stack)
        update = run.compiled_update()
        on_mesh = (sharding.put_batch(batch, run.mesh) for batch in batches)
        state = train.fit(
            state, update, on_mesh, total_steps=run.total_steps, hooks=hooks_
        )
        saved.wait()
    page = distributed.on_first(lambda: str(report.write(path)))
    if distributed.first():
        print(f"{path} is done: {run.total_steps} steps. Report: {page}")


class _Run:
    """The parts of a training run that need its data."""

    def __init__(self, made: build.Parts, path: Path):
        config = made.config
        self.mesh, self._parts, self._path = made.mesh, made, path
        self.log = dict(config.get("log") or {})
        build.only("log", self.log, ("every_steps", "wandb", "profile_step"))
        self._keep = dict(config.get("checkpoint") or {})
        self._save_every = (
            self._keep.pop("every_steps", None),
            self._keep.pop("every_minutes", 10),
        )
        build.only("checkpoint", self._keep, ("keep_last", "keep_every_steps"))
        if jax.process_count() > 1 and not self._save_every[0]:
            raise ValueError(
                "several processes save by steps, as their clocks differ: set "
                "checkpoint.every_steps."
            )
        self._data = dict(config["data"])
        self._source = lookup.call(self._data.pop("source"))
        self._examples = int(self._data["batch_examples"])
        sharding.check_batch(self._examples, made.mesh)
        distributed.check_rows(sharding.batch_sharding(made.mesh), self._examples)
        lengths = {
            "batch_examples": self._examples,
            "epoch_examples": len(self._source),
        }
        self.total_steps = durations.to_steps(config["total_steps"], **lengths)
        lengths["total_steps"] = self.total_steps
        tx, self._schedules = build.optimizer(config, made.model, **lengths)
        self.init, self.abstract = build.initial_state(made, tx)
        decay = config.get("teacher_decay")
        goal = build.objective(config, made.model)
        self.update = train.make_update(goal, tx, teacher_decay=decay, mesh=made.mesh)
        self._evaluators = build.evaluators(config, made.encoding, workdir=path)
        self.batches(0).close()

    def compiled_update(self) -> train.Update:
        """The update, which leaves the state where it was.

        Without being told, XLA may move weights: the second step would be compiled once
        more, and a resumed run would compute other bits than one that went through.
        """
        stay = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        shardings = (stay, everywhere)
        return jax.jit(self.update, donate_argnums=0, out_shardings=shardings)

    def checkpoints(self) -> store.Store:
        """The run's checkpoints."""
        return store.Store(self._path / "checkpoints", **self._keep)

    def batches(self, start_step: int) -> Any:
        """The run's batches from one step on, those of this process."""
        text = dict(self._parts.config["preprocess"]["text"])
        tokenizer = tokenizers.load(text.pop("tokenizer"))
        length = text.pop("length_tokens")
        section = {"name": "data.loader:batches", **self._data}
        return lookup.call(
            section,
            source=self._source,
            seed=self._parts.config["seed"],
            tokenizer=tokenizer,
            token_policy=text,
            length_tokens=length,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def hooks(
        self,
        start: int,
        batches: Any,
        writer: writers.Writer,
        saved: store.Store,
        stack: contextlib.ExitStack,
    ) -> list[train.Hook]:
        """All hooks, in the order they run."""
        wait_s = _Total(batches.take_wait_s)
        shared = {"batch_examples": self._examples, "wait_s": wait_s}
        log = hooks.Log(
            writer,
            every_steps=self.log.get("every_steps", 50),
            schedules=self._schedules,
            **shared,
        )
        made: list[train.Hook] = [log]
        if distributed.first():
            progress = hooks.Progress(
                start_step=start, total_steps=self.total_steps, **shared
            )
            stack.callback(progress.close)
            made.append(progress)
        if self.log.get("profile_step") and distributed.first():
            first = int(self.log["profile_step"])
            made.append(hooks.Profile(self._path, first_step=first))
        evaluate = [
            hooks.Evaluate(name, evaluator, writer, **{"every_steps": None, **when})
            for name, (evaluator, when) in self._evaluators.items()
        ]
        steps, minutes = self._save_every
        position = lambda step: {"next_step": step, "examples": step * self._examples}
        save = hooks.Checkpoint(
            saved, every_steps=steps, every_minutes=minutes, data=position
        )
        preempt = hooks.Preempt(save, saved)
        stop = hooks.StopOnNonFinite(self._path, before=[*evaluate, save])
        return [*made, stop, *evaluate, save, preempt]


class _Total:
    """Adds up what a function hands out piece by piece."""

    def __init__(self, take: Callable[[], float]):
        self._take, self._sum = take, 0.0

    def __call__(self) -> float:
        self._sum += self._take()
        return self._sum


def load_run(checkpoint: Path) -> tuple[build.Parts, train.State]:
    """Parts and newest state of a run's folder, or of one checkpoint inside it.

    Raises:
        ValueError: if it is no run, or has no whole checkpoint.
    """
    folder = checkpoint
    if (
        checkpoint.parent.parent / workdir.CONFIG
    ).exists() and checkpoint.name.isdigit():
        folder = checkpoint.parent.parent
        harm = store.damage(checkpoint)
        if harm is not None:
            raise ValueError(f"checkpoint {checkpoint} is not whole: {harm}.")
    else:
        workdir.read_config(
            folder
        )  # says what is missing before checkpoints are sought
        checkpoint = Path(store.latest(folder / "checkpoints"))
    made = build.parts(workdir.read_config(folder))
    tx, _ = build.optimizer(
        made.config, made.model, batch_examples=1, epoch_examples=1, total_steps=10**9
    )
    _, abstract = build.initial_state(made, tx)
    state, _ = store.restore(checkpoint, abstract)
    return made, state


def evaluate_run(
    checkpoint: Path,
    path: Path,
    names: Sequence[str] | None = None,
    *,
    data_dir: str | None = None,
) -> None:
    """Measures a run with evaluators of its config; writes metrics.json and a report.

    Args:
        checkpoint: a run's folder, or one checkpoint in it.
        path: folder for the results.
        names: keys of the config's `evals`; None for all.
        data_dir: where datasets lie: `data_dir` of their loaders, and $DATA in paths.

    Raises:
        ValueError: if an evaluator is not in the config, or the checkpoint is no run.
    """
    if data_dir:
        os.environ["DATA"] = data_dir
    made, state = load_run(checkpoint)
    config = dict(made.config)
    sections = config.get("evals") or {}
    for name in names or ():
        if name not in sections:
            near = lookup.nearest(name, sections)
            raise ValueError(f"the run has no evaluator {name!r}.{near}")
    config["evals"] = {n: sections[n] for n in (names or sections)}
    path.mkdir(parents=True, exist_ok=True)
    about = {"checkpoint": str(checkpoint.resolve()), "step": int(state.step)}
    figures = _earlier_figures(path / "metrics.json", about)
    context = {"workdir": path} | ({"data_dir": data_dir} if data_dir else {})
    for name, (evaluator, when) in build.evaluators(
        config, made.encoding, **context
    ).items():
        start = time.monotonic()
        params = getattr(state, when.get("weights", "params"))
        figures |= hooks.evaluate(name, evaluator, params)
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
    workdir.write_json(path / "metrics.json", about | figures)
    print(f"{len(figures)} figures: {path / 'metrics.json'}. {report.write(path)}")


def _earlier_figures(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What other evaluators said of the same checkpoint, to be kept beside the new."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if any(found.pop(key, None) != value for key, value in about.items()):
        raise ValueError(
            f"{path} holds figures of another checkpoint: got {about}. Choose another "
            f"--workdir."
        )
    return found


def describe_config(config: Any, devices: int | None = None) -> str:
    """What a config's run costs, as JSON; reads no data of it.

    Args:
        config: of the run.
        devices: of the mesh; with it the step is compiled for as many simulated devices
            to tell the memory of its activations.
    """
    plain = config.to_dict()
    compiled = devices is not None
    facts = costs.describe(plain, devices=devices, compiled=compiled)
    return json.dumps(facts, indent=2)


def describe_run(checkpoint: Path) -> str:
    """Step, parameter counts and hash of the weights of a run, as JSON."""
    _, state = load_run(checkpoint)
    facts = {
        "checkpoint": str(checkpoint),
        "step": int(state.step),
        **costs.counts(state.params),
        "weights_sha256": weights_sha256(state.params),
    }
    return json.dumps(facts, indent=2)


def weights_sha256(params: Params) -> str:
    """One hash over names, shapes and bits of all weights."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    ours, libraries = logging.getLogger("big_mm"), logging.getLogger("absl")
    level = ours.level
    ours.setLevel(logging.INFO)
    for logger in (ours, libraries):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in (ours, libraries):
            logger.removeHandler(handler)
        ours.setLevel(level)
        handler.close()
