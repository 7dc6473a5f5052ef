"""One update on any mesh is the same update; a run taken up again is the same run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_mm import sharding, train

AXES = ((r"kernel", ("embed", None)),)


def init_params(rng):
    return {"kernel": jax.random.normal(rng, (16, 4)), "bias": jnp.zeros(4)}


def objective(params, batch, context):
    noise = 0.01 * jax.random.normal(context.rng, ())
    out = batch["x"] @ params["kernel"] + params["bias"][None]
    return ((out - batch["y"]) ** 2).mean() + noise, {"out": out.mean()}


def batches(count, start=0):
    for step in range(start, count):
        rng = np.random.default_rng(step)
        yield {
            "x": rng.normal(size=(8, 16)).astype(np.float32),
            "y": rng.normal(size=(8, 4)).astype(np.float32),
        }


OPTIMIZER = optax.adamw(1e-2)
UPDATE = jax.jit(train.make_update(objective, OPTIMIZER, teacher_decay=0.9))


def start():
    return train.init(jax.random.key(0), init_params, OPTIMIZER, teacher=True)


close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["replicated", "fsdp"])
def test_eight_devices_update_as_one_does(mesh, strategy):
    state, (batch,) = start(), batches(1)
    expected, expected_metrics = UPDATE(state, batch)

    placed = sharding.place(
        state, mesh, axes=AXES, strategy=strategy, uneven="replicate"
    )
    on_mesh = jax.device_put(state, placed)
    actual, metrics = UPDATE(on_mesh, sharding.put_batch(batch, mesh))

    rows = 16 if strategy == "replicated" else 2
    for tree in (on_mesh.params, on_mesh.teacher, on_mesh.opt[0].mu):
        assert tree["kernel"].addressable_shards[0].data.shape == (rows, 4)
    close(metrics["loss"], expected_metrics["loss"])
    jax.tree.map(close, actual.params, expected.params)
    jax.tree.map(close, actual.teacher, expected.teacher)


def test_stopped_and_taken_up_again_is_the_same_run():
    whole = train.fit(start(), UPDATE, batches(4), total_steps=4)
    half = train.fit(start(), UPDATE, batches(2), total_steps=2)
    resumed = train.fit(half, UPDATE, batches(4, start=2), total_steps=4)
    assert int(resumed.step) == 4
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)


def test_random_numbers_differ_from_step_to_step():
    (batch,) = batches(1)
    state = start()
    later = state._replace(step=jnp.int32(1))
    assert UPDATE(state, batch)[1]["loss"] != UPDATE(later, batch)[1]["loss"]


def test_teacher_follows_slowly():
    state, (batch,) = start(), batches(1)
    new, _ = UPDATE(state, batch)
    follow = lambda old, to: 0.9 * old + 0.1 * to
    expected = jax.tree.map(follow, state.params, new.params)
    jax.tree.map(close, new.teacher, expected)


def test_metrics_are_those_of_the_old_weights():
    state, (batch,) = start(), batches(1)
    new, metrics = UPDATE(state, batch)
    context = train.Context(jax.random.fold_in(state.rng, 0), jnp.int32(0))
    close(metrics["loss"], objective(state.params, batch, context)[0])
    change = jax.tree.map(lambda a, b: a - b, new.params, state.params)
    np.testing.assert_allclose(metrics["norm/updates"], optax.tree.norm(change), 1e-4)


class Recorder:
    """A hook that remembers when it ran."""

    def __init__(self, steps):
        self.steps, self.ran = steps, []

    def due(self, step, total_steps):
        return step in self.steps

    def run(self, step, state, metrics, batch):
        assert int(state.step) == step
        self.ran.append(step)


def test_hooks_run_when_due_and_see_the_state_of_their_step():
    hook = Recorder({1, 3})
    train.fit(start(), UPDATE, batches(3), total_steps=3, hooks=[hook])
    assert hook.ran == [1, 3]


def test_data_that_ends_too_early_is_an_error():
    with pytest.raises(ValueError, match="ended after 2"):
        train.fit(start(), UPDATE, batches(2), total_steps=3)


def test_teacher_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match="teacher_decay"):
        train.make_update(objective, OPTIMIZER, teacher_decay=1.5)


def test_mesh_reaches_the_objective(mesh):
    seen = []

    def look(params, batch, context):
        seen.append(context.mesh)
        return objective(params, batch, context)

    update = train.make_update(look, OPTIMIZER, mesh=mesh)
    jax.eval_shape(update, start(), *batches(1))
    assert seen == [mesh]
