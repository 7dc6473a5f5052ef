"""From a config to the parts of a run: the one file that knows them all."""

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from big_mm import lookup, sharding, train
from big_mm.arrays import Params
from big_mm.checkpoints import store
from big_mm.data.images import Pipeline
from big_mm.encoding import Encoding
from big_mm.evaluators.core import Evaluator
from big_mm.models.core import Model
from big_mm.objectives.core import Objective, Term, after, weighted_sum
from big_mm.text import tokenizers

LOG = logging.getLogger(__name__)
REQUIRED = ("seed", "total_steps", "preprocess", "data", "model", "terms", "optimizer")
OPTIONAL = ("teacher_decay", "mesh", "sharding", "evals", "log", "checkpoint")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a config stands for before data is read or a weight exists."""

    config: Mapping[str, Any]
    mesh: Mesh
    model: Model
    tokenize: Callable[[Sequence[str]], np.ndarray]
    encoding: Encoding

    def place(self, tree: Any) -> Any:
        """Shardings of weights, or of anything that repeats their paths."""
        strategy = self.config.get("sharding") or "replicated"
        weights = tree.params if isinstance(tree, train.State) else tree
        place = functools.partial(sharding.place, mesh=self.mesh, strategy=strategy)
        place(weights, axes=self.model.axes)  # refuses weights that do not divide
        return place(tree, axes=self.model.axes, uneven="replicate")


def parts(config: Mapping[str, Any]) -> Parts:
    """Model, mesh and the way images and texts go into the model.

    Raises:
        ValueError: if a section is unknown or missing, or a part refuses its own.
    """
    check_sections(config)
    config = expand(config)
    mesh = sharding.make_mesh(config.get("mesh") or (("data", -1),))
    model = lookup.call(config["model"])
    preprocess = dict(config["preprocess"])
    only("preprocess", preprocess, ("image_ops", "text"))
    text = dict(preprocess["text"])
    tokenizer = tokenizers.load(text.pop("tokenizer"))
    only("preprocess.text", text, ("length_tokens", *tokenizers.Policy._fields))
    tokenize = functools.partial(tokenizer.encode, **text)
    rows = config["model"]["text"].get("vocab_size")
    if rows is not None and tokenizer.vocab_size > rows:
        raise ValueError(
            f"the model needs a row for every id of the tokenizer: got "
            f"model.text.vocab_size={rows} and {tokenizer.vocab_size} ids."
        )
    pipeline = Pipeline(preprocess["image_ops"])
    if pipeline.random:
        raise ValueError(
            "preprocess.image_ops make an image ready for the model and draw nothing: "
            "random operations belong to data.image_ops."
        )
    encoding = Encoding(model, mesh, pipeline, tokenize)
    return Parts(config, mesh, model, tokenize, encoding)


def expand(value: Any) -> Any:
    """The same config with $NAME in its strings replaced from the environment.

    Raises:
        ValueError: if a variable is not set.
    """
    if isinstance(value, Mapping):
        return {key: expand(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [expand(each) for each in value]
    if not isinstance(value, str):
        return value
    full = os.path.expandvars(value)
    if lost := re.search(r"\$\{?(\w+)", full):
        raise ValueError(
            f"{value!r} needs the environment variable {lost[1]}: it is not set."
        )
    return full


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuses a config whose sections are not those of a run."""
    known = REQUIRED + OPTIONAL
    only("a config", config, known)
    missing = [key for key in REQUIRED if key not in config]
    if missing:
        raise ValueError(f"a config needs {missing}: got {sorted(config)}.")


def evaluators(
    config: Mapping[str, Any], encoding: Encoding, **context: Any
) -> dict[str, tuple[Evaluator, dict[str, Any]]]:
    """Name -> evaluator and the settings of when it runs."""
    made = {}
    for name, section in (config.get("evals") or {}).items():
        section = dict(section)
        when = {k: section.pop(k) for k in ("every_steps", "weights") if k in section}
        data = lookup.call(section.pop("data"), **context)
        made[name] = (lookup.call(section, encode=encoding, data=data, **context), when)
    return made


def objective(config: Mapping[str, Any], model: Model) -> Objective:
    """The terms of a config, each under its weight, on one forward pass."""
    terms = {}
    for name, section in config["terms"].items():
        section = dict(section)
        weight = float(section.pop("weight", 1.0))
        terms[name] = Term(lookup.call(section), weight)

    def forward(params: Params, batch: Any, context: Any) -> Any:
        return model.apply(params, image=batch["image"], text=batch["text"])

    return after(forward, weighted_sum(terms))


def optimizer(
    config: Mapping[str, Any], model: Model, **lengths: int
) -> tuple[optax.GradientTransformation, Mapping[str, Callable[[int], Any]]]:
    """The optimizer, and its schedules by the names they are logged under."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    section = {"name": "optim:make", **config["optimizer"]}
    tx, rate = lookup.call(section, params=params, **lengths)
    return tx, {"learning_rate": rate}


def initial_state(
    parts: Parts, tx: optax.GradientTransformation
) -> tuple[Callable[[], train.State], train.State]:
    """A function that makes the first state where it will live, and that state's form.

    Returns:
        The function, and shapes, dtypes and shardings in place of arrays.
    """
    config = parts.config
    teacher = config.get("teacher_decay") is not None
    init = lambda: train.init(
        jax.random.key(config["seed"]), parts.model.init, tx, teacher=teacher
    )
    shape = jax.eval_shape(init)
    placed = parts.place(shape)
    return jax.jit(init, out_shardings=placed), store.abstract(shape, placed)


def only(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses keys of `given` that are not known, with the nearest that is."""
    for key in given:
        if key not in known:
            raise ValueError(f"{what} has no {key!r}.{lookup.nearest(key, known)}")
