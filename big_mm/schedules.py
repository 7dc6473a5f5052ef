"""Learning-rate schedules: a number in [0, 1] for each step, to multiply rates with."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from big_mm import durations
from big_mm.lookup import nearest

Step: TypeAlias = int | Int[Array, ""]
Schedule: TypeAlias = Callable[[Step], Float[Array, ""]]


def make(
    name: str = "cosine",
    *,
    total_steps: int,
    warmup: int | float | str = 0,
    cooldown: int | float | str = 0,
    batch_examples: int | None = None,
    epoch_examples: int | None = None,
    **shape: Any,
) -> Schedule:
    """A schedule: its shape after the warm-up, times two linear ramps.

    At step s of S, with warm-up W and cool-down C, it is
    `shape(s) * min(1, s / W) * min(1, (S - s) / C)`: 0 at step 0 of a warm-up and at
    step S of a cool-down. Steps count updates made before, so the first update sees 0.

    Args:
        name: "cosine", "linear" (or "polynomial"), "rsqrt", "stair" or "constant".
        total_steps: S, where cosine and linear have come to their end.
        warmup: a duration, as `durations.to_steps` reads it: 500, "10 %", "2 epochs".
        cooldown: a duration, likewise.
        batch_examples: examples of one step, for durations.
        epoch_examples: examples of the training set, for durations.
        **shape: `end` (cosine, linear): where it ends, default 0. `power` (linear),
            default 1. `timescale` (rsqrt): a duration after which the rate has fallen
            to 1 / sqrt(2), default 10,000; `shift` (rsqrt): a duration by which the
            fall has begun before, default 0. `steps` and `mults` (stair): from the
            step (a duration) on, the multiplier holds.

    Returns:
        step -> multiplier, float32.

    Raises:
        ValueError: if the name or an argument is unknown, a duration cannot be read,
            or the warm-up does not end before the run does.

    Source:
        Beyer et al., "Big Vision", 2022, github.com/google-research/big_vision;
        rsqrt: Zhai et al., "Scaling Vision Transformers", 2021, arXiv:2106.04560,
        Section 3.5; cosine: Loshchilov and Hutter, "SGDR", 2016,
        arXiv:1608.03983, Equation 5.
    """
    if total_steps < 1:
        raise ValueError(
            f"a schedule needs total_steps of 1 or more: got {total_steps}."
        )
    if name not in SHAPES:
        raise ValueError(f"there is no schedule {name!r}.{nearest(name, SHAPES)}")

    def to_steps(value: int | float | str) -> int:
        return durations.to_steps(
            value,
            total_steps=total_steps,
            batch_examples=batch_examples,
            epoch_examples=epoch_examples,
        )

    warm, cool = to_steps(warmup), to_steps(cooldown)
    # A run of one step is a trial of everything else.
    if warm >= total_steps > 1:
        raise ValueError(
            f"the warm-up must end before the run: got {warm} of {total_steps} steps."
        )
    factory, known = SHAPES[name]
    unknown = sorted(set(shape) - set(known))
    if unknown:
        raise ValueError(
            f"schedule {name!r} knows {', '.join(known) or 'no argument'} besides "
            f"warmup and cooldown: got {', '.join(unknown)}."
        )
    curve = factory(to_steps, max(1, total_steps - warm), **shape)

    def schedule(step: Step) -> Float[Array, ""]:
        now = jnp.asarray(step).astype(jnp.float32)
        value = curve(jnp.maximum(now - warm, 0.0), now)
        if warm:
            value = value * jnp.minimum(1.0, now / warm)
        if cool:
            value = value * jnp.clip((total_steps - now) / cool, 0.0, 1.0)
        return value

    return schedule


# A shape is made with what turns durations into steps, and the steps after the warm-up.
# It takes the steps since the warm-up and the steps since the beginning.


def _constant(to_steps, length, /):
    return lambda since, now: jnp.ones_like(since)


def _linear(to_steps, length, /, *, end: float = 0.0, power: float = 1.0):
    def curve(since, now):
        return end + (1 - end) * (1 - jnp.minimum(since / length, 1.0)) ** power

    return curve


def _cosine(to_steps, length, /, *, end: float = 0.0):
    def curve(since, now):
        turn = jnp.pi * jnp.minimum(since / length, 1.0)
        return end + (1 - end) * 0.5 * (1 + jnp.cos(turn))

    return curve


def _rsqrt(
    to_steps,
    length,
    /,
    *,
    timescale: int | float | str = 10_000,
    shift: int | float | str = 0,
):
    scale, before = to_steps(timescale), to_steps(shift)
    if scale < 1:
        raise ValueError(f"timescale must be 1 step or more: got {timescale!r}.")
    return lambda since, now: 1 / jnp.sqrt(1 + (since + before) / scale)


def _stair(
    to_steps, length, /, *, steps: Sequence[Any] = (), mults: Sequence[float] = ()
):
    starts = [to_steps(value) for value in steps]
    if len(starts) != len(mults) or starts != sorted(starts):
        raise ValueError(
            "a stair needs ascending steps and one of mults for each: got "
            f"steps={list(steps)}, mults={list(mults)}."
        )
    values = jnp.array([1.0, *mults], jnp.float32)
    starts = jnp.array(starts, jnp.float32)
    return lambda since, now: values[jnp.searchsorted(starts, now, side="right")]


SHAPES = {
    "constant": (_constant, ()),
    "linear": (_linear, ("end", "power")),
    "polynomial": (_linear, ("end", "power")),
    "cosine": (_cosine, ("end",)),
    "rsqrt": (_rsqrt, ("timescale", "shift")),
    "stair": (_stair, ("steps", "mults")),
}
