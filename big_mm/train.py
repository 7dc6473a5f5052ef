"""The trainer: a state, a pure update and the loop that runs it between hooks."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from big_mm.arrays import Batch, Metrics, Params
from big_mm.objectives.core import Context, Objective


class State(NamedTuple):
    """All that a run is at one step; with the batch of that step, all of its future."""

    step: Int[Array, ""]  # updates made so far
    params: Params
    opt: Any
    teacher: Params | None  # moving average of the weights
    rng: PRNGKeyArray  # the run's; each step folds in its number


Update: TypeAlias = Callable[[State, Batch], tuple[State, Metrics]]


@runtime_checkable
class Hook(Protocol):
    """Work between two updates: logging, evaluation, checkpoints."""

    def due(self, step: int, total_steps: int) -> bool:
        """Whether `run` is wanted after update number `step`."""
        ...

    def run(self, step: int, state: State, metrics: Metrics, batch: Batch) -> None:
        """Does the work; may raise to end the run."""
        ...


def init(
    rng: PRNGKeyArray,
    init_params: Callable[[PRNGKeyArray], Params],
    optimizer: optax.GradientTransformation,
    *,
    teacher: bool,
) -> State:
    """The state before the first update; the teacher is a copy of the weights."""
    init_rng, rng = jax.random.split(rng)
    params = init_params(init_rng)
    copy = jax.tree.map(jnp.copy, params) if teacher else None
    return State(jnp.int32(0), params, optimizer.init(params), copy, rng)


def make_update(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    teacher_decay: float | None = None,
    mesh: Any = None,
) -> Update:
    """One pure update, ready for `jax.jit`. Losses are those of the old weights.

    Args:
        objective: of the weights and a batch.
        optimizer: turns gradients into updates.
        teacher_decay: share of the old teacher that a step keeps, if there is one.
        mesh: the devices, for objectives that must see them.

    Raises:
        ValueError: if the decay is not in [0, 1].
    """
    if teacher_decay is not None and not 0 <= teacher_decay <= 1:
        raise ValueError(f"teacher_decay is in [0, 1]: got {teacher_decay}.")

    def update(state: State, batch: Batch) -> tuple[State, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        context = Context(rng, state.step, teacher=state.teacher, mesh=mesh)
        grad = jax.value_and_grad(objective, has_aux=True)
        (loss, metrics), grads = grad(state.params, batch, context)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes ints and floats
            updates, opt = optimizer.update(grads, state.opt, state.params)
            params = optax.apply_updates(state.params, updates)
            teacher = state.teacher
            if teacher is not None and teacher_decay is not None:
                teacher = optax.incremental_update(params, teacher, 1 - teacher_decay)
        metrics = {
            **metrics,
            "loss": loss,
            "norm/grads": optax.tree.norm(grads),
            "norm/updates": optax.tree.norm(updates),
            "norm/params": optax.tree.norm(params),
        }
        return State(state.step + 1, params, opt, teacher, state.rng), metrics

    return update


def fit(
    state: State,
    update: Update,
    batches: Iterable[Any],
    *,
    total_steps: int,
    hooks: Sequence[Hook] = (),
) -> State:
    """Updates `state` to `total_steps`; hooks run in the order given.

    Args:
        state: where to start; its step says which.
        update: jitted `make_update`.
        batches: from the batch of that step on.
        total_steps: of the whole run, those already made included.
        hooks: called after each update for which they are due.

    Raises:
        ValueError: if the batches end before the run does.
    """
    first, stream = int(state.step), iter(batches)
    for step in range(first + 1, total_steps + 1):
        batch = next(stream, None)
        if batch is None:
            raise ValueError(
                f"the data must last for {total_steps} steps: it ended after "
                f"{step - 1}. Repeat it, or lower total_steps."
            )
        state, metrics = update(state, batch)
        for hook in hooks:
            if hook.due(step, total_steps):
                hook.run(step, state, metrics, batch)
    return state
