"""Eight devices on any laptop, and no silent promotion: set before any array exists."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

if not flags.FLAGS.is_parsed():  # grain reads absl flags in its workers
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def mesh():
    """Eight simulated devices along one axis."""
    return jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
