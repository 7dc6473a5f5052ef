"""Durations in the unit in which one thinks of them: "2 epochs", "10 %", 500."""

import math
import re

UNITS = ("steps", "examples", "epochs", "fraction", "%")


def to_steps(
    value: int | float | str,
    *,
    total_steps: int | None = None,
    batch_examples: int | None = None,
    epoch_examples: int | None = None,
) -> int:
    """The duration as a number of optimizer steps, rounded to the nearest.

    Args:
        value: a number of steps (`500`), or a number and its unit: "500 steps",
            "1e6 examples", "2 epochs", "0.1 fraction" or "10 %" (both of
            `total_steps`).
        total_steps: the length of the run, for fractions.
        batch_examples: examples of one step, for examples and epochs.
        epoch_examples: examples of the training set, for epochs.

    Returns:
        Steps; at least 1, unless 0 was asked for.

    Raises:
        ValueError: if the value cannot be read, is negative or not finite, is a part of
            a step, is more than the whole run as a fraction, or lacks one of the
            numbers that turn its unit into steps.
    """
    amount, unit = _read(value)
    if unit == "steps":
        if amount != int(amount):
            raise ValueError(f"a duration is of whole steps: got {value!r}.")
        return int(amount)
    if unit in ("fraction", "%"):
        amount = amount / 100 if unit == "%" else amount
        if amount > 1:
            raise ValueError(f"a duration is at most the whole run: got {value!r}.")
        steps = amount * _known(value, total_steps=total_steps)
    else:
        steps = amount / _known(value, batch_examples=batch_examples)
        if unit == "epochs":
            steps *= _known(value, epoch_examples=epoch_examples)
    return max(1, round(steps)) if amount else 0


def _read(value: int | float | str) -> tuple[float, str]:
    if isinstance(value, str):
        parts = re.fullmatch(r"\s*([\d._]+(?:[eE][+-]?\d+)?)\s*(.*?)\s*", value)
        number, unit = parts.groups() if parts else ("", value)
        unit = unit or "steps"
    else:
        number, unit = value, "steps"
    unit = next((u for u in UNITS if unit in (u, u.removesuffix("s"))), None)
    try:
        amount = math.nan if isinstance(value, bool) else float(number)
    except ValueError:
        amount = math.nan
    if unit is None or not 0 <= amount < math.inf:
        raise ValueError(
            "a duration is a number of steps, or a number and one of "
            f"{', '.join(UNITS)}, as in '2 epochs': got {value!r}."
        )
    return amount, unit


def _known(value: int | float | str, **number: int | None) -> int:
    ((name, known),) = number.items()
    if not known or known < 1:
        raise ValueError(
            f"{value!r} needs {name} to be turned into steps: got {known}."
        )
    return known
