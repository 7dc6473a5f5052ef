"""Rows are whole, in order, and written once however often a run is killed."""

import json

import pytest

from big_mm import writers


def rows(path):
    return [json.loads(line) for line in (path / writers.NAME).read_text().splitlines()]


def write(path, start_step, *steps):
    writer = writers.Writer(path, start_step=start_step)
    for step in steps:
        writer.write(step, {"loss": step / 10})
    writer.close()


def test_rows_after_the_checkpoint_are_made_again_once(tmp_path):
    write(tmp_path, 0, 1, 2, 3, 4)
    write(tmp_path, 2, 3, 4, 5)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]
    assert rows(tmp_path)[-1] == {"step": 5, "loss": 0.5}


def test_a_line_cut_short_is_dropped(tmp_path):
    write(tmp_path, 0, 1, 2)
    with (tmp_path / writers.NAME).open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in writers.read_rows(tmp_path / writers.NAME)] == [1, 2]
    write(tmp_path, 2, 3)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]


def test_what_is_no_number_is_null(tmp_path):
    writer = writers.Writer(tmp_path)
    writer.write(1, {"loss": float("nan"), "norm": 2})
    writer.close()
    assert rows(tmp_path) == [{"step": 1, "loss": None, "norm": 2.0}]


def test_tensorboard_gets_the_numbers_too(tmp_path):
    write(tmp_path, 0, 1)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_wandb_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"big_mm\[wandb\]"):
        writers.Writer(tmp_path, wandb={"project": "x"})
