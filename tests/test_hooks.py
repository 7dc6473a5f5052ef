"""Hooks save in time, stop in time, and never keep a state that is no number."""

import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from big_mm import hooks, train, writers
from big_mm.checkpoints.store import Store, abstract

GOOD = {key: jnp.float32(1) for key in ("loss", "norm/grads", "norm/params")}
BAD = {**GOOD, "norm/grads": jnp.float32(np.nan)}
BATCH = {"image": jnp.ones((2, 3))}


def state(step):
    return train.State(jnp.int32(step), {"w": jnp.ones(3)}, (), None, jnp.ones(2))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "checkpoints")
    yield made
    made.close()


def checkpoint(store, **keys):
    defaults = {"every_steps": 10, "every_minutes": None}
    data = lambda step: {"next_step": step}
    return hooks.Checkpoint(store, **{**defaults, **keys}, data=data)


def drive(hook, steps, total_steps, metrics=lambda step: GOOD):
    for step in steps:
        if hook.due(step, total_steps):
            hook.run(step, state(step), metrics(step), BATCH)


def test_checkpoints_by_steps_and_at_the_end(store):
    drive(checkpoint(store), range(1, 24), 23)
    store.wait()
    assert store.steps() == [20, 23]


def test_checkpoints_by_the_clock(store, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(hooks.time, "monotonic", lambda: now[0])
    hook = checkpoint(store, every_steps=None, every_minutes=1)
    assert not hook.due(5, 100)
    now[0] = 61
    assert hook.due(6, 100)
    drive(hook, [6], 100)
    assert not hook.due(7, 100)
    store.wait()


def test_a_state_that_is_no_number_is_not_saved(store):
    drive(checkpoint(store), [10], 100, lambda step: BAD)
    store.wait()
    assert store.steps() == []


def test_non_finite_stops_one_step_later_and_keeps_its_batch(tmp_path):
    hook = hooks.StopOnNonFinite(tmp_path)
    metrics = lambda step: BAD if step == 3 else GOOD
    drive(hook, [1, 2, 3], 9, metrics)
    with pytest.raises(hooks.NonFinite, match="step 3 is not finite") as error:
        drive(hook, [4], 9, metrics)
    assert error.value.code == 3
    with np.load(tmp_path / "nonfinite_batch_3.npz") as saved:
        np.testing.assert_array_equal(saved["image"], BATCH["image"])


def test_non_finite_at_the_last_step_stops_too(tmp_path):
    hook = hooks.StopOnNonFinite(tmp_path)
    with pytest.raises(hooks.NonFinite, match="step 9"):
        drive(hook, [9], 9, lambda step: BAD)


def test_non_finite_stops_before_the_state_is_used(tmp_path, store):
    hook = hooks.StopOnNonFinite(tmp_path, before=[checkpoint(store, every_steps=5)])
    lost = {**GOOD, "norm/params": jnp.float32(np.inf)}
    drive(hook, [4], 9)
    with pytest.raises(hooks.NonFinite, match="step 5"):
        drive(hook, [5], 9, lambda step: lost)


def test_sigterm_saves_and_stops(store):
    saving = checkpoint(store)
    before = signal.getsignal(signal.SIGTERM)
    hook = hooks.Preempt(saving, store)
    try:
        assert not hook.due(3, 9)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(hooks.Preempted, match="saved at step 4") as error:
            drive(hook, [4], 9)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert error.value.code == 75
    found, data = store.restore_latest(abstract(state(0)))
    assert int(found.step) == 4
    assert data == {"next_step": 4}


def test_log_rows(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(hooks.time, "monotonic", lambda: now[0])
    writer = writers.Writer(tmp_path)
    hook = hooks.Log(
        writer,
        every_steps=2,
        batch_examples=8,
        schedules={"learning_rate": lambda step: step / 10},
        wait_s=lambda: now[0] / 4,
    )
    for step in range(1, 5):
        now[0] += 1.0
        drive(hook, [step], 4)
    writer.close()
    first, second, third = writers.read_rows(tmp_path / writers.NAME)
    assert [first["step"], second["step"], third["step"]] == [1, 2, 4]
    assert "examples_per_s" not in first
    # Two steps of eight examples in two seconds; a quarter of them was waiting.
    assert third["examples_per_s"] == 8
    assert third["data_wait_fraction"] == 0.25
    assert third["learning_rate"] == pytest.approx(0.3)  # that of update number 4


class Halves:
    def run(self, params):
        yield "half", params["w"].sum() / 2


def test_evaluations_are_reported_under_their_name(tmp_path):
    writer = writers.Writer(tmp_path)
    drive(hooks.Evaluate("small", Halves(), writer, every_steps=2), range(1, 4), 3)
    writer.close()
    found = writers.read_rows(tmp_path / writers.NAME)
    assert [row["step"] for row in found] == [2, 3]
    assert found[0]["small/half"] == 1.5
    with pytest.raises(ValueError, match="'params' or 'teacher'"):
        hooks.Evaluate("x", Halves(), writer, every_steps=1, weights="ema")
