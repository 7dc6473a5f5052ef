"""Where arrays lie follows from their paths; what they hold does not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from big_mm import sharding

AXES = (
    (r"out/kernel", ("heads", None, "embed")),
    (r"kernel", ("embed", "mlp")),
)
WEIGHTS = {
    "up": {"kernel": jnp.zeros((16, 24)), "bias": jnp.zeros(24)},
    "out": {"kernel": jnp.zeros((8, 3, 16))},
    "blocks": {"kernel": jnp.zeros((5, 16, 24))},
}


def specs(mesh, strategy):
    placed = sharding.place(WEIGHTS, mesh, axes=AXES, strategy=strategy)
    return jax.tree.map(lambda s: s.spec, placed)


def test_replicated_splits_nothing(mesh):
    assert all(not any(s) for s in jax.tree.leaves(specs(mesh, "replicated")))


def test_fsdp_splits_the_embed_dimension_of_plain_and_stacked_weights(mesh):
    found = specs(mesh, "fsdp")
    assert found["up"]["kernel"] == PartitionSpec("data", None)
    assert found["up"]["bias"] == PartitionSpec(None)
    assert found["out"]["kernel"] == PartitionSpec(None, None, "data")
    assert found["blocks"]["kernel"] == PartitionSpec(None, "data", None)


def test_fsdp_and_tensor_split_both_ways():
    mesh = sharding.make_mesh((("data", -1), ("tensor", 2)))
    assert dict(mesh.shape) == {"data": 4, "tensor": 2}
    found = specs(mesh, "fsdp_tensor")
    assert found["up"]["kernel"] == PartitionSpec("data", "tensor")
    assert found["out"]["kernel"] == PartitionSpec("tensor", None, "data")


def test_a_strategy_of_ones_own_maps_logical_names(mesh):
    assert specs(mesh, {"mlp": "data"})["up"]["kernel"] == PartitionSpec(None, "data")


def test_a_weight_that_does_not_divide_is_named(mesh):
    weights = {"tower": {"kernel": jnp.zeros((12, 8))}}
    with pytest.raises(ValueError, match=r"dimension 0 \('embed'\) of tower/kernel"):
        sharding.place(weights, mesh, axes=AXES, strategy="fsdp")
    placed = sharding.place(
        weights, mesh, axes=AXES, strategy="fsdp", uneven="replicate"
    )
    assert placed["tower"]["kernel"].spec == PartitionSpec()


def test_unknown_strategy_and_axis_are_refused(mesh):
    with pytest.raises(ValueError, match="Did you mean 'fsdp'"):
        sharding.place(WEIGHTS, mesh, axes=AXES, strategy="fdsp")
    with pytest.raises(ValueError, match="needs a mesh axis named 'tensor'"):
        sharding.place(WEIGHTS, mesh, axes=AXES, strategy="fsdp_tensor")


@pytest.mark.parametrize(
    ("axes", "rule"),
    [
        ((("data", 3),), "multiply to the 8 devices"),
        ((("data", -1), ("data", 2)), "distinct names"),
        ((("data", -1), ("tensor", -1)), "one may be -1"),
        ((("data", 0),), "positive"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(axes, rule):
    with pytest.raises(ValueError, match=rule):
        sharding.make_mesh(axes)


def test_a_batch_is_split_over_all_axes_but_tensor():
    mesh = sharding.make_mesh((("data", 2), ("fsdp", 2), ("tensor", 2)))
    rows = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    array = sharding.put_batch({"x": rows}, mesh)["x"]
    np.testing.assert_array_equal(array, rows)
    assert array.addressable_shards[0].data.shape == (2, 3)
    with pytest.raises(ValueError, match="multiple of the 4 devices"):
        sharding.put_batch({"x": rows[:6]}, mesh)
