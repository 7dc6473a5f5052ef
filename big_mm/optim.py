"""Optimizers: one chain of Optax transformations from a config, and rules by path."""

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Int

from big_mm import schedules
from big_mm.arrays import Params
from big_mm.lookup import nearest

RULE_KEYS = ("path", "learning_rate", "weight_decay", "freeze", "schedule")


def make(
    params: Params,
    *,
    method: str = "adam",
    learning_rate: float,
    schedule: Mapping[str, Any] | None = None,
    total_steps: int,
    weight_decay: float = 0.0,
    decay_follows: str = "schedule",
    clip_norm: float | None = None,
    rules: Sequence[Mapping[str, Any]] = (),
    batch_examples: int | None = None,
    epoch_examples: int | None = None,
    **arguments: Any,
) -> tuple[optax.GradientTransformation, schedules.Schedule]:
    """The update of every weight, and the learning rate of a step.

    Gradients are clipped, turned into a direction by the method, and then at step t

        weight -= schedule(t) * (learning_rate * direction + weight_decay * weight)

    with the learning rate and the decay times the multipliers of the weight's rule. The
    decay is never part of the gradient ("adam" and "adamw" are one method), and is not
    multiplied by the learning rate, as in big_vision; PyTorch's AdamW does so, and
    with `decay_follows="learning_rate"` this does: the decay that papers of its users
    state is then meant.

    Args:
        params: the weights or their shapes; only paths and shapes are read.
        method: a key of `METHODS`.
        learning_rate: the factor of the schedule, whose peak is 1.
        schedule: arguments of `schedules.make`; constant if None.
        total_steps: updates of the whole run.
        weight_decay: for weights whose path ends in "kernel", unless a rule says more.
        decay_follows: what the decay is multiplied by, beside the schedule.
        clip_norm: the largest global norm of the gradients of all trained weights.
        rules: each has a `path`, a regular expression that is searched for in paths
            such as "image/blocks_0/up/kernel", and any of: `learning_rate`, a positive
            multiplier; `weight_decay`, a multiplier, then also for weights that are no
            kernels; `freeze=True`; `schedule`, in place of the general one. The first
            rule that matches a weight is the only one for it.
        batch_examples: examples of one step, for durations in schedules.
        epoch_examples: examples of the training set, for durations in schedules.
        **arguments: of the method, such as `b2=0.95` or `mu_dtype="bfloat16"`.

    Returns:
        The transformation, whose update is to be added to the weights and needs them.
        Its state repeats the paths of the weights; a frozen weight has none there, and
        its update is exactly 0. And step -> learning rate, without rules.

    Raises:
        ValueError: if the method, an argument, or a rule's key is unknown, a rule takes
            effect on no weight, or all weights are frozen.
    """
    if decay_follows not in ("schedule", "learning_rate"):
        raise ValueError(
            f"decay_follows is 'schedule' or 'learning_rate': got {decay_follows!r}."
        )
    general = {"name": "constant"} if schedule is None else dict(schedule)
    rules = [dict(rule) for rule in rules]
    rule_of = _match(params, rules)

    def curve(config: Mapping[str, Any]) -> schedules.Schedule:
        return schedules.make(
            total_steps=total_steps,
            batch_examples=batch_examples,
            epoch_examples=epoch_examples,
            **config,
        )

    def plan(path: str, rule: Mapping[str, Any]) -> _Plan:
        kernel = path.rsplit("/", 1)[-1] == "kernel"
        rate = learning_rate * rule.get("learning_rate", 1.0)
        decay = weight_decay * rule.get("weight_decay", 1.0 if kernel else 0.0)
        if decay_follows == "learning_rate":
            decay *= rate
        own = rule.get("schedule")
        return _Plan(rate, decay, base if own is None else curve(own))

    base = curve(general)
    frozen = _map_paths(lambda path, _: bool(rule_of[path].get("freeze")), params)
    trained = jax.tree.map(lambda x: not x, frozen)
    if not any(jax.tree.leaves(trained)):
        raise ValueError(
            "an optimizer needs a weight that is not frozen: rules freeze all."
        )
    plans = _map_paths(lambda path, _: plan(path, rule_of[path]), params)
    parts = [_method(method, arguments), _step(plans)]
    if clip_norm is not None:
        if clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, or None: got {clip_norm}.")
        parts.insert(0, optax.clip_by_global_norm(clip_norm))
    chain = optax.chain(
        optax.masked(optax.chain(*parts), trained),
        optax.masked(optax.set_to_zero(), frozen),
    )
    return _promoting(chain), lambda step: learning_rate * base(step)


class _Plan(NamedTuple):
    """How one weight moves."""

    learning_rate: float
    weight_decay: float
    schedule: schedules.Schedule


class StepState(NamedTuple):
    """How many updates were made."""

    count: Int[Array, ""]


def _step(plans: Any) -> optax.GradientTransformation:
    """From directions to what is added to the weights."""

    def init(params: Params) -> StepState:
        return StepState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Params = None):
        if params is None:
            raise ValueError("weight decay needs the weights: call update with params.")

        def move(plan: _Plan, direction: ArrayLike, weight: ArrayLike) -> Array:
            step = plan.learning_rate * direction + plan.weight_decay * weight
            return -plan.schedule(state.count) * step

        # Where a weight is frozen the other trees have an empty node.
        moved = jax.tree.map(
            lambda plan, direction, weight: (
                direction
                if isinstance(direction, optax.MaskedNode)
                else move(plan, direction, weight)
            ),
            plans,
            updates,
            params,
            is_leaf=lambda x: isinstance(x, _Plan),
        )
        return moved, StepState(state.count + 1)

    return optax.GradientTransformation(init, update)


def _promoting(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Optax mixes integers, float32 and bfloat16 memories: allowed in here."""

    def update(updates: Any, state: Any, params: Params = None):
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


# ---- methods: from gradients to directions ----


def adam(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, mu_dtype: Any = None
) -> optax.GradientTransformation:
    """Adam. SigLIP takes b2 = 0.95: at large batch 0.999 is not stable.

    Source:
        Kingma and Ba, "Adam", 2014, arXiv:1412.6980, Algorithm 1; b2: Zhai et al.,
        "Sigmoid Loss for Language Image Pre-Training", 2023, arXiv:2303.15343.
    """
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=_dtype(mu_dtype))


def adafactor(
    *,
    momentum: float | None = 0.9,
    b2_cap: float = 0.999,
    decay_exponent: float = 0.8,
    factored_from: int = 32,
    clip_rms: float | None = None,
    eps: float = 1e-30,
    mu_dtype: Any = "bfloat16",
) -> optax.GradientTransformation:
    """Adafactor as vision transformers use it: with momentum, without relative steps.

    The second moment decays by 1 - t^-decay_exponent, at most b2_cap, and is stored
    factored for weights whose second largest dimension is at least `factored_from`.

    Source:
        Zhai et al., "Scaling Vision Transformers", 2021, arXiv:2106.04560, Section 3.4;
        Shazeer and Stern, "Adafactor", 2018, arXiv:1804.04235, Algorithm 4.
    """

    def decay(step: Any, exponent: Any) -> Any:
        t = jnp.asarray(step).astype(jnp.float32) + 1
        return jnp.minimum(b2_cap, 1 - t**-exponent)

    parts = [
        optax.scale_by_factored_rms(
            decay_rate=decay_exponent,
            min_dim_size_to_factor=factored_from,
            epsilon=eps,
            decay_rate_fn=decay,
        )
    ]
    if clip_rms is not None:
        parts.append(optax.clip_by_block_rms(clip_rms))
    if momentum:
        parts.append(
            optax.ema(momentum, debias=False, accumulator_dtype=_dtype(mu_dtype))
        )
    return optax.chain(*parts)


def lion(
    *, b1: float = 0.9, b2: float = 0.99, mu_dtype: Any = None
) -> optax.GradientTransformation:
    """The sign of a momentum: one memory, and steps of one size for all weights.

    Source:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023,
        arXiv:2302.06675, Algorithm 2.
    """
    return optax.scale_by_lion(b1=b1, b2=b2, mu_dtype=_dtype(mu_dtype))


def sgd(
    *, momentum: float = 0.0, nesterov: bool = False, mu_dtype: Any = None
) -> optax.GradientTransformation:
    """The gradient, or with momentum the decaying sum of gradients.

    Source:
        Sutskever et al., "On the importance of initialization and momentum in deep
        learning", 2013, Equations 1 to 4.
    """
    if not momentum:
        return optax.identity()
    return optax.trace(momentum, nesterov=nesterov, accumulator_dtype=_dtype(mu_dtype))


METHODS = {
    "adam": adam,
    "adamw": adam,
    "adafactor": adafactor,
    "lion": lion,
    "sgd": sgd,
}


def _method(name: str, arguments: Mapping[str, Any]) -> optax.GradientTransformation:
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}.{nearest(name, METHODS)}")
    known = inspect.signature(METHODS[name]).parameters
    for key in arguments:
        if key not in known:
            raise ValueError(
                f"method {name!r} has no argument {key!r}.{nearest(key, known)}"
            )
    return METHODS[name](**arguments)


def _dtype(name: Any) -> Any:
    return None if name is None else jnp.dtype(name)


# ---- rules ----


def _map_paths(function: Any, tree: Any) -> Any:
    def call(path: Any, leaf: Any) -> Any:
        return function(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)

    return jax.tree_util.tree_map_with_path(call, tree)


def _match(params: Params, rules: Sequence[Mapping[str, Any]]) -> dict[str, Mapping]:
    """The rule of each weight, by its path; an empty one where none matches."""
    paths: list[str] = []
    _map_paths(lambda path, _: paths.append(path), params)
    for rule in rules:
        _check(rule)
    matched: dict[str, Mapping] = {path: {} for path in paths}
    free = set(paths)
    for rule in rules:
        found = [path for path in paths if re.search(rule["path"], path)]
        if not found:
            near = difflib.get_close_matches(rule["path"], paths, n=3, cutoff=0.0)
            raise ValueError(
                f"a rule must match a weight: {rule['path']!r} matches none of "
                f"{len(paths)}, near are {', '.join(near)}."
            )
        if not free.intersection(found):
            raise ValueError(
                f"a rule must take effect: the {len(found)} weights of "
                f"{rule['path']!r} have earlier rules. Move it up, or drop it."
            )
        matched |= {path: rule for path in found if path in free}
        free -= set(found)
    return matched


def _check(rule: Mapping[str, Any]) -> None:
    for key in rule:
        if key not in RULE_KEYS:
            raise ValueError(f"a rule has no {key!r}.{nearest(key, RULE_KEYS)}")
    if "path" not in rule:
        raise ValueError(f"a rule needs a path: got {dict(rule)}.")
    try:
        re.compile(rule["path"])
    except re.error as error:
        raise ValueError(
            f"a path is a regular expression: {rule['path']!r} is none ({error})."
        ) from error
    if rule.get("learning_rate", 1.0) <= 0:
        raise ValueError(
            f"a rule's learning_rate multiplies and is positive: got {dict(rule)}. "
            "Say freeze=True to keep weights as they are."
        )
    if rule.get("freeze") and len(rule) > 2:
        raise ValueError(f"a frozen weight needs no further rule: got {dict(rule)}.")
