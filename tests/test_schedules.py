from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm import schedules

GOLDEN = Path(__file__).parent / "golden" / "bv_optim.npz"

# What stood behind each curve: big_vision's arguments, read off the numbers.
CASES = {
    "cosine": dict(name="cosine", warmup=4),
    "rsqrt": dict(name="rsqrt", warmup=4, timescale=5, cooldown=6),
    "rsqrt_shift": dict(name="rsqrt", warmup=4, timescale=5, shift=3),
    "linear": dict(name="linear", warmup=2, end=0.1),
    "poly2": dict(name="polynomial", warmup=2, power=2.0),
    "stair": dict(name="stair", warmup=4, steps=[5, 10], mults=[0.5, 0.1]),
}


def curve(**config):
    return jax.vmap(schedules.make(total_steps=20, **config))(jnp.arange(21))


@pytest.mark.parametrize("case", CASES)
def test_big_vision(case):
    expected = np.load(GOLDEN)[f"sched/{case}"]
    np.testing.assert_allclose(curve(**CASES[case]), expected, rtol=1e-6, atol=1e-7)


def test_rates_scaled_with_the_batch_as_big_vision():
    # Half of the reference batch of 256: that factor belongs to the learning rate.
    expected = np.load(GOLDEN)["sched/cosine_bs"]
    value = 128 / 256 * curve(name="cosine", warmup=4)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)


def test_constant_with_ramps_by_hand():
    value = curve(name="constant", warmup=4, cooldown=5)
    ramp_up, ramp_down = np.arange(4) / 4, np.arange(5, -1, -1) / 5
    np.testing.assert_allclose(value, [*ramp_up, *np.ones(11), *ramp_down], atol=1e-7)


def test_cosine_comes_to_its_end():
    value = curve(name="cosine", end=0.1)
    np.testing.assert_allclose(value[::10], [1, 0.55, 0.1], rtol=1e-6)


def test_durations_may_be_in_any_unit():
    expected = curve(name="rsqrt", warmup=4, cooldown=6, timescale=5, shift=3)
    value = curve(
        name="rsqrt",
        warmup="20 %",
        cooldown="192 examples",
        timescale="0.5 epochs",
        shift="96 examples",
        batch_examples=32,
        epoch_examples=320,
    )
    np.testing.assert_array_equal(value, expected)
    stair = curve(name="stair", steps=["25 %", "50 %"], mults=[0.5, 0.1])
    np.testing.assert_array_equal(
        stair, curve(name="stair", steps=[5, 10], mults=[0.5, 0.1])
    )


@pytest.mark.parametrize("case", CASES)
def test_beyond_the_end_nothing_goes_wrong(case):
    schedule = schedules.make(total_steps=20, **CASES[case])
    late = schedule(25)
    assert late.dtype == jnp.float32
    assert 0 <= late <= schedule(20)


def test_run_of_one_step_may_be_all_warmup():
    assert schedules.make(total_steps=1, warmup=1)(0) == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(name="cosin"), "cosine"),
        (
            dict(name="cosine", power=2),
            "knows end besides warmup and cooldown: got power",
        ),
        (dict(name="constant", end=1), "no argument"),
        (dict(warmup=20), "got 20 of 20 steps"),
        (dict(warmup="3 days"), "got '3 days'"),
        (dict(warmup="2 epochs"), "needs batch_examples"),
        (dict(name="rsqrt", timescale=0), "timescale must be 1 step"),
        (dict(name="stair", steps=[5, 3], mults=[1, 1]), "ascending"),
        (dict(name="stair", steps=[5], mults=[1, 1]), "one of mults for each"),
    ],
)
def test_bad_input_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        schedules.make(total_steps=20, **config)


def test_total_steps_are_positive():
    with pytest.raises(ValueError, match="1 or more"):
        schedules.make(total_steps=0)
