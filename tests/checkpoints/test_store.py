"""A checkpoint holds everything, counts only when whole, and survives damage."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from big_mm.checkpoints import store
from big_mm.train import State


def state(step):
    key = jax.random.key(step)
    params = {"kernel": jax.random.normal(key, (8, 4)), "bias": jnp.zeros(4)}
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    return State(jnp.int32(step), params, {"mu": half}, None, key)


def equal(actual, expected):
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    as_data = lambda x: jax.random.key_data(x) if is_key(x) else x
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(as_data(a), as_data(b)),
        actual,
        expected,
    )


@pytest.fixture
def checkpoints(tmp_path):
    made = store.Store(tmp_path / "checkpoints", keep_last=2, keep_every_steps=10)
    yield made
    made.close()


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, state(step), {"next_step": step})
    checkpoints.wait()


def test_everything_comes_back_bit_for_bit(checkpoints):
    save(checkpoints, 3)
    found, data = checkpoints.restore_latest(store.abstract(state(0)))
    equal(found, state(3))
    assert data == {"next_step": 3}


def test_a_folder_may_be_named_from_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = store.Store("run/checkpoints")
    save(made, 3)
    made.close()
    found, _ = store.restore("run/checkpoints/3", store.abstract(state(0)))
    equal(found, state(3))


def test_nothing_to_restore(checkpoints):
    assert checkpoints.restore_latest(store.abstract(state(0))) is None


def test_old_checkpoints_go_and_milestones_stay(checkpoints):
    save(checkpoints, 5, 10, 15, 20, 25, 30, 35)
    assert checkpoints.steps() == [10, 20, 30, 35]


def test_restoring_on_another_mesh_gives_the_same_bits(checkpoints, mesh):
    save(checkpoints, 1)
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    shardings = jax.tree.map(lambda _: whole, state(0))
    shardings.params["kernel"] = split
    found, _ = checkpoints.restore_latest(store.abstract(state(0), shardings))
    assert found.params["kernel"].addressable_shards[0].data.shape == (1, 4)
    equal(found, state(1))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def largest(folder):
    files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("harm", [truncate, flip, lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    checkpoints, harm, caplog
):
    save(checkpoints, 1, 2)
    folder = checkpoints.directory / "2"
    harm(largest(folder))
    found, data = checkpoints.restore_latest(store.abstract(state(0)))
    equal(found, state(1))
    assert data == {"next_step": 1}
    assert "checkpoint 2 is not whole" in caplog.text
    assert (checkpoints.directory / "damaged_2").exists()
    save(checkpoints, 2)  # the place is free again
    assert checkpoints.steps() == [1, 2]


def test_a_checkpoint_cut_short_is_not_used(checkpoints, caplog):
    save(checkpoints, 1, 2)
    (checkpoints.directory / "2" / store.FILES).unlink()
    assert store.latest(checkpoints.directory).name == "1"
    found, _ = checkpoints.restore_latest(store.abstract(state(0)))
    equal(found, state(1))
    assert "checkpoint 2 was not finished" in caplog.text


def test_arrays_may_be_given_away_while_they_are_saved(checkpoints):
    # The trainer donates its state to the next update as soon as `save` returns.
    @functools.partial(jax.jit, donate_argnums=0)
    def next_state(tree):
        return jax.tree.map(lambda x: x + jnp.ones_like(x), tree)

    tree = {"x": jnp.zeros((512, 512))}
    checkpoints.save(7, tree, {"next_step": 7})
    for _ in range(3):
        tree = next_state(tree)
    checkpoints.wait()
    found, _ = checkpoints.restore_latest(store.abstract(tree))
    np.testing.assert_array_equal(found["x"], 0)


def test_a_failed_save_is_reported(checkpoints, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_list", full)
    checkpoints.save(1, state(1), {"next_step": 1})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.wait()
    assert checkpoints.steps() == []


def test_one_checkpoint_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        store.Store(tmp_path, keep_last=1)


def test_latest_needs_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="no whole checkpoint"):
        store.latest(tmp_path)
