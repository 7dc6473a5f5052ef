"""Where arrays live: the mesh, the placement of weights by their paths, and batches.

Model code names no mesh axis. A table beside each architecture gives every weight's
dimensions logical names, `(regex, ("embed", "mlp"))`, counted from the last dimension
so that a stacked layer axis in front stays whole. A strategy maps logical names to mesh
axes. Optimizer state and the teacher repeat the weights' paths, so the same table
places them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from big_mm.lookup import nearest

Axes: TypeAlias = Sequence[tuple[str, Sequence[str | None]]]

# Logical name -> mesh axes; of several candidates, the first that the mesh has.
STRATEGIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "replicated": {},
    "fsdp": {"embed": ("fsdp", "data")},
    "fsdp_tensor": {
        "embed": ("fsdp", "data"),
        "heads": ("tensor",),
        "mlp": ("tensor",),
        "vocab": ("tensor",),
    },
}


def make_mesh(axes: Sequence[Sequence[Any]]) -> Mesh:
    """A mesh over all devices.

    Args:
        axes: `(name, size)` pairs; one size may be -1, for all devices that are left.

    Raises:
        ValueError: if names repeat or the sizes do not fill the devices exactly.
    """
    devices = jax.device_count()
    names = [name for name, _ in axes]
    sizes = [int(size) for _, size in axes]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"mesh axes need distinct names: got {names}.")
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"mesh sizes are positive, one may be -1: got {sizes}.")
    fixed = math.prod(size for size in sizes if size != -1)
    if devices % fixed == 0:
        sizes = [devices // fixed if size == -1 else size for size in sizes]
    if math.prod(sizes) != devices:
        raise ValueError(
            f"mesh sizes must multiply to the {devices} devices: got "
            f"{dict(zip(names, sizes, strict=True))}. Use -1 for one of them."
        )
    return jax.make_mesh(tuple(sizes), tuple(names), (AxisType.Auto,) * len(sizes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples are split over every mesh axis but `tensor`."""
    return NamedSharding(mesh, PartitionSpec(_batch_axes(mesh)))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[name] for name in _batch_axes(mesh))


def check_batch(examples: int, mesh: Mesh) -> None:
    """Refuses a global batch that cannot be split evenly.

    Raises:
        ValueError: if `examples` is no multiple of `batch_shards(mesh)`.
    """
    shards = batch_shards(mesh)
    if examples % shards:
        raise ValueError(
            f"batch_examples must be a multiple of the {shards} devices that split a "
            f"batch: got {examples}."
        )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch on the mesh, from what each process read of it.

    Raises:
        ValueError: if the examples cannot be split evenly.
    """
    check_batch(len(next(iter(batch.values()))) * jax.process_count(), mesh)
    sharding = batch_sharding(mesh)
    return {
        key: jax.make_array_from_process_local_data(sharding, value)
        for key, value in batch.items()
    }


def place(
    tree: Any,
    mesh: Mesh,
    *,
    axes: Axes,
    strategy: str | Mapping[str, Any] = "replicated",
    uneven: str = "raise",
) -> Any:
    """The sharding of every array of `tree`, by its path.

    Args:
        tree: arrays or their shapes; weights, optimizer state or a whole `State`.
        mesh: the devices.
        axes: path regex (searched) -> logical names of the last dimensions; the first
            match wins, no match means replicated.
        strategy: a name of `STRATEGIES`, or logical name -> mesh axis.
        uneven: "raise", or "replicate" for arrays that do not split evenly. Factored
            optimizer statistics have the weights' paths and other shapes.

    Raises:
        ValueError: on an unknown strategy or mesh axis, or a weight that the mesh does
            not divide.
    """
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            near = nearest(strategy, STRATEGIES)
            raise ValueError(f"there is no sharding strategy {strategy!r}.{near}")
        strategy = STRATEGIES[strategy]
    mapping = {name: _mesh_axis(name, to, mesh) for name, to in strategy.items()}

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = _spec(name, leaf.shape, mesh, axes, mapping, uneven)
        return NamedSharding(mesh, spec)

    return jax.tree.map_with_path(sharding, tree)


def _batch_axes(mesh: Mesh) -> tuple[str, ...]:
    return tuple(name for name in mesh.axis_names if name != "tensor")


def _mesh_axis(name: str, to: Any, mesh: Mesh) -> str | None:
    candidates = (to,) if isinstance(to, str) else tuple(to)
    found = [axis for axis in candidates if axis in mesh.axis_names]
    if not found:
        raise ValueError(
            f"the sharding of {name!r} needs a mesh axis named "
            f"{' or '.join(map(repr, candidates))}: got {mesh.axis_names}."
        )
    return found[0]


def _spec(
    name: str,
    shape: tuple[int, ...],
    mesh: Mesh,
    axes: Axes,
    mapping: Mapping[str, str | None],
    uneven: str,
) -> PartitionSpec:
    logical = next((dims for regex, dims in axes if re.search(regex, name)), ())
    if len(logical) > len(shape):
        return PartitionSpec()
    spec: list[str | None] = [None] * (len(shape) - len(logical))
    for position, label in enumerate(logical, start=len(spec)):
        axis = mapping.get(label) if label else None
        if axis and shape[position] % mesh.shape[axis]:
            if uneven == "replicate":
                return PartitionSpec()
            raise ValueError(
                f"the mesh must divide what it splits: dimension {position} "
                f"({label!r}) of {name} has {shape[position]} entries, mesh axis "
                f"{axis!r} has {mesh.shape[axis]} devices. Change the size, the mesh, "
                f"or leave {label!r} out of the sharding."
            )
        spec.append(None if axis in spec else axis)
    return PartitionSpec(*spec)
