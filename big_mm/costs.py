"""What a run costs before it runs: parameters, FLOPs, and bytes on each device.

Everything follows from shapes. Nothing is allocated, and neither the data nor the
tokenizer of the config is read. More devices than there are can be asked for: the
step is then compiled for that many simulated CPU devices in a process of its own.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.sharding import Mesh

from big_mm import build, lookup, sharding, train
from big_mm.arrays import Params
from big_mm.data.images import Pipeline
from big_mm.encoding import Encoding
from big_mm.objectives.core import Context, Objective

NOTES = (
    "training FLOPs are three times the forward pass, the usual count; "
    "training_with_remat is what the step multiplies, recomputation included",
    "activations are the temporary memory of the step as XLA compiles it for CPU "
    "devices: gradients and gathered weights are in it; other backends fuse attention "
    "and keep bfloat16 where a CPU widens it, and mostly need less",
)


def describe(
    config: Mapping[str, Any], *, devices: int | None = None, compiled: bool = True
) -> dict[str, Any]:
    """Parameters, FLOPs of an example and bytes on a device, of a config's run.

    Args:
        config: of the run, as nested dicts.
        devices: of the mesh. None: as many as its sizes multiply to, or those that are
            there if one size is -1.
        compiled: whether the step is compiled for its `activations`: half a minute or
            so for a model with `scan=True`, minutes for a deep one without.

    Returns:
        `parameters` and `parameters_by_part`; `devices`, `mesh`, `batch_examples`;
        `flops_per_example` by part, with the texts of one image together;
        `bytes_per_device` of weights, optimizer, teacher (if there is one), batch and
        activations, and their total; `notes` on how far the figures can be trusted.

    Raises:
        ValueError: on a section that its part refuses, a mesh that does not fit the
            devices, or a weight or batch that does not fit the mesh.
    """
    build.check_sections(config)
    wanted = _devices(config) if devices is None else devices
    if wanted is not None and wanted < 1:
        raise ValueError(f"a run has 1 device or more: got devices={devices}.")
    # Not on an accelerator: it may be in use, and the figures would depend on it.
    if jax.default_backend() != "cpu" or wanted not in (None, jax.device_count()):
        return _simulated(config, wanted or jax.device_count(), compiled)
    return _described(config, compiled)


def counts(params: Params) -> dict[str, Any]:
    """Numbers of parameters: all, and those of each part."""
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    return {
        "parameters": count(params),
        "parameters_by_part": {key: count(value) for key, value in params.items()},
    }


def flops(function: Callable[..., Any], *args: Any) -> int:
    """Multiplications and additions in the matrix products and convolutions of a call.

    A loop's products count once for each of its rounds; of branches the dearest counts;
    zeros between the entries of a dilated input are not multiplied.

    Args:
        function: traced, not run.
        *args: its arguments, or their shapes.

    Raises:
        ValueError: if a loop whose rounds are not known before has products.
    """
    return _flops(jax.make_jaxpr(function)(*args).jaxpr)


def table(facts: Mapping[str, Any]) -> str:
    """What `describe` found, as lines for people."""
    lines = ["parameters"]
    parts = {**facts["parameters_by_part"], "all": facts["parameters"]}
    lines += [f"  {name:<22}{size:>22,}" for name, size in parts.items()]
    lines += ["GFLOP of one example"]
    work = facts["flops_per_example"]
    lines += [f"  {name:<22}{size / 1e9:>22,.3f}" for name, size in work.items()]
    mesh = " x ".join(f"{name} {size}" for name, size in facts["mesh"].items())
    lines += [
        f"GiB on each of {facts['devices']} devices ({mesh}), "
        f"batch of {facts['batch_examples']:,}"
    ]
    memory = facts["bytes_per_device"]
    lines += [f"  {name:<22}{size / 2**30:>22,.3f}" for name, size in memory.items()]
    return "\n".join([*lines, *(f"{note}." for note in facts["notes"])])


def _devices(config: Mapping[str, Any]) -> int | None:
    sizes = [int(size) for _, size in config.get("mesh") or (("data", -1),)]
    return None if -1 in sizes else math.prod(sizes)


def _simulated(config: Mapping[str, Any], devices: int, compiled: bool) -> dict:
    """`_described` in a process that has these devices."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "big_mm.costs"],
        input=json.dumps({"config": config, "compiled": compiled}),
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the simulation of {devices} devices fell:\n{done.stderr}")
    facts = json.loads(done.stdout)
    if "refused" in facts:
        raise ValueError(facts["refused"])
    return facts


def _described(config: Mapping[str, Any], compiled: bool) -> dict[str, Any]:
    """`describe` on the devices of this process."""
    config = {**config, "model": build.expand(config["model"])}  # no other paths
    mesh = sharding.make_mesh(config.get("mesh") or (("data", -1),))
    model = lookup.call(config["model"])
    encoding = Encoding(model, mesh, Pipeline(()), _unread)
    made = build.Parts(config, mesh, model, _unread, encoding)
    examples = int(config["data"]["batch_examples"])
    # Lengths shape the schedules alone; those of the data are not known here.
    lengths = {"epoch_examples": examples, "total_steps": 10**9}
    tx, _ = build.optimizer(config, model, batch_examples=examples, **lengths)
    _, state = build.initial_state(made, tx)
    batch = _batch(config, mesh)
    terms = build.objective(config, model)
    # The mesh is closed over: a context that holds one cannot be traced.
    goal = lambda params, rows, about: terms(params, rows, about._replace(mesh=mesh))
    memory = {"weights": _bytes(state.params), "optimizer": _bytes(state.opt)}
    if state.teacher is not None:
        memory["teacher"] = _bytes(state.teacher)
    memory["batch"] = _bytes(batch)
    if compiled:
        decay = config.get("teacher_decay")
        update = train.make_update(goal, tx, teacher_decay=decay)
        memory["activations"] = _temporary(update, state, batch)
    return {
        **counts(state.params),
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "batch_examples": examples,
        "flops_per_example": _by_part(model.apply, goal, state, batch, examples),
        "bytes_per_device": {**memory, "total": sum(memory.values())},
        "notes": list(NOTES),
    }


def _unread(texts: Sequence[str]) -> np.ndarray:
    raise ValueError("costs are counted without the tokenizer: there is none.")


def _batch(config: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The batch that the config's data would give, as shapes on the mesh."""
    data = config["data"]
    examples, texts = int(data["batch_examples"]), int(data.get("texts_per_image", 0))
    sharding.check_batch(examples, mesh)
    forms: dict[str, tuple[tuple[int, ...], Any]] = {"concept": ((), np.int32)}
    if data.get("image_ops") is not None:
        # What comes out of the operations is found by running them on a blank image.
        blank = np.zeros((1024, 1024, 3), np.uint8)
        image = Pipeline(data["image_ops"])(blank, np.random.default_rng(0))
        forms["image"] = image.shape, image.dtype
    if texts:
        length = int(config["preprocess"]["text"]["length_tokens"])
        forms["text"] = (texts, length), np.int32
        forms["language"] = (texts,), np.int32
        forms["text_present"] = (texts,), np.bool_
    rows = sharding.batch_sharding(mesh)
    return {
        key: jax.ShapeDtypeStruct((examples, *shape), dtype, sharding=rows)
        for key, (shape, dtype) in forms.items()
    }


def _bytes(tree: Any) -> int:
    """Of all arrays of a tree, on the device that has most."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _temporary(update: Callable[..., Any], state: Any, batch: Any) -> int:
    """Bytes of a device that an update needs beside its state and its batch."""
    lowered = jax.jit(update, donate_argnums=0).lower(state, batch)
    # It will not run: machine code need not be good, and memory is planned before it.
    step = lowered.compile({"xla_backend_optimization_level": "0"})
    stats = step.memory_analysis()
    if stats is None:
        raise ValueError(
            "this backend does not say what memory a step needs: describe the run "
            "with JAX_PLATFORMS=cpu."
        )
    # The new state takes the place of the old one where their placements agree.
    fresh = max(0, stats.output_size_in_bytes - stats.alias_size_in_bytes)
    return stats.temp_size_in_bytes + fresh


def _by_part(
    apply: Callable[..., Any],
    goal: Objective,
    state: train.State,
    batch: Mapping[str, Any],
    examples: int,
) -> dict[str, int]:
    """FLOPs of one example: forward by part, then all of it, then a training step."""
    work = {
        side: flops(lambda p, x, side=side: apply(p, **{side: x}), state.params, given)
        for side in ("image", "text")
        if (given := batch.get(side)) is not None
    }
    given = state.params, batch, Context(state.rng, state.step, state.teacher)
    forward = flops(goal, *given)
    work |= {
        "loss": forward - sum(work.values()),
        "forward": forward,
        "training": 3 * forward,
        "training_with_remat": flops(jax.value_and_grad(goal, has_aux=True), *given),
    }
    return {name: value // examples for name, value in work.items()}


def _flops(jaxpr: core.Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        ((contracted, _), _) = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        depth = math.prod(left[axis] for axis in contracted)
        return 2 * math.prod(equation.outvars[0].aval.shape) * depth
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        channels = kernel[params["dimension_numbers"].rhs_spec[0]]
        depth = math.prod(kernel) // channels
        products = math.prod(equation.outvars[0].aval.shape) * depth
        return 2 * products // math.prod(params["lhs_dilation"])
    inner = [_flops(jaxpr) for jaxpr in core.jaxprs_in_params(params)]
    if name == "cond":
        return max(inner)
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "while" and sum(inner):
        raise ValueError(
            "FLOPs are counted before a run: this one has matrix products in a loop "
            "that says itself when it ends. Use lax.scan."
        )
    if name == "shard_map":
        return sum(inner) * math.prod(
            params["mesh"].shape[axis] for axis in params["newly_manual_axes"]
        )
    return sum(inner)


def _main() -> None:
    given = json.load(sys.stdin)
    try:
        facts = _described(given["config"], given["compiled"])
    except ValueError as error:
        facts = {"refused": str(error)}
    json.dump(facts, sys.stdout)


if __name__ == "__main__":
    _main()
