"""Objectives that add up: the one thing the trainer knows of what is trained."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from big_mm.arrays import Batch, Metrics, Params, Scalar


class Context(NamedTuple):
    """What an objective may know beyond its source and the batch."""

    rng: PRNGKeyArray
    step: Int[Array, ""]
    teacher: Params | None = None  # moving average of the weights; no gradient flows
    mesh: Any = None  # the devices, for losses that must see them


Objective: TypeAlias = Callable[[Any, Batch, Context], tuple[Scalar, Metrics]]
Forward: TypeAlias = Callable[[Params, Batch, Context], Any]
Schedule: TypeAlias = Callable[[Int[Array, ""]], Scalar | float]


class Term(NamedTuple):
    """One part of a sum, with a constant or scheduled weight."""

    objective: Objective
    weight: float | Schedule = 1.0


def weighted_sum(terms: Mapping[str, Term]) -> Objective:
    """Adds objectives, each under its own weight, name and random stream.

    Metrics of a term are reported under its name (`sigmoid/loss`), unweighted. A term
    added or removed leaves the random numbers of the others as they were.

    Raises:
        ValueError: if there is no term.
    """
    if not terms:
        raise ValueError("an objective needs at least one term: got none.")

    def total(source, batch: Batch, context: Context) -> tuple[Scalar, Metrics]:
        loss, metrics = jnp.float32(0), {}
        for name, (objective, weight) in terms.items():
            rng = jax.random.fold_in(context.rng, zlib.crc32(name.encode()))
            value, extra = objective(source, batch, context._replace(rng=rng))
            scale = weight(context.step) if callable(weight) else weight
            loss = loss + scale * value
            extra = {"loss": value, "weight": jnp.float32(scale), **extra}
            metrics |= {f"{name}/{key}": metric for key, metric in extra.items()}
        return loss, metrics

    return total


def after(forward: Forward, objective: Objective) -> Objective:
    """The objective of what `forward` gives: one forward pass, however many terms."""
    return lambda params, batch, context: objective(
        forward(params, batch, context), batch, context
    )
