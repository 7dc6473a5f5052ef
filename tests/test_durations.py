import pytest

from big_mm.durations import to_steps

RUN = dict(total_steps=1000, batch_examples=32, epoch_examples=320)


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        (500, 500),
        (500.0, 500),
        (0, 0),
        ("500", 500),
        ("500 steps", 500),
        ("1 step", 1),
        ("20_000 steps", 20_000),
        ("6.4e3 examples", 200),
        ("1e6examples", 31_250),
        ("2 epochs", 20),
        ("1 epoch", 10),
        ("2epochs", 20),
        ("0.1 fraction", 100),
        (".5 fraction", 500),
        ("10 %", 100),
        ("10%", 100),
        ("100 %", 1000),
        ("0 %", 0),
        (" 2  epochs ", 20),
        ("49 examples", 2),  # to the nearest: 1.53
        ("1 example", 1),  # never to nothing
        ("0.0001 epochs", 1),
        ("0 epochs", 0),
    ],
)
def test_every_unit(value, steps):
    assert to_steps(value, **RUN) == steps


@pytest.mark.parametrize(
    "value",
    [
        "",
        "epochs",
        "2 weeks",
        "two epochs",
        "-1 epochs",
        "nan %",
        "1e epochs",
        "1..2 %",
    ],
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="as in '2 epochs': got"):
        to_steps(value, **RUN)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), True])
def test_numbers_that_are_no_duration_are_refused(value):
    with pytest.raises(ValueError, match="as in '2 epochs': got"):
        to_steps(value, **RUN)


def test_parts_of_steps_and_more_than_all_are_refused():
    with pytest.raises(ValueError, match=r"whole steps: got 1\.5"):
        to_steps(1.5)
    for value in ("101 %", "1.5 fraction"):
        with pytest.raises(ValueError, match="at most the whole run"):
            to_steps(value, **RUN)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("10 %", "total_steps"),
        ("0.1 fraction", "total_steps"),
        ("1e6 examples", "batch_examples"),
        ("2 epochs", "batch_examples"),
    ],
)
def test_missing_number_is_named(value, name):
    with pytest.raises(ValueError, match=f"{value!r} needs {name}"):
        to_steps(value)
    with pytest.raises(ValueError, match="needs epoch_examples"):
        to_steps("2 epochs", batch_examples=32)
