"""A folder belongs to one run with one config, and to one process at a time."""

import pytest

from big_mm import workdir

CONFIG = {"seed": 0, "optimizer": {"learning_rate": 1e-3}, "mesh": [["data", -1]]}


def test_a_folder_is_taken_up_again_with_the_same_config(tmp_path):
    with workdir.open_run(tmp_path / "run", CONFIG):
        assert workdir.read_config(tmp_path / "run") == CONFIG
    with workdir.open_run(tmp_path / "run", CONFIG):
        pass


def test_tuples_are_the_lists_they_become(tmp_path):
    with workdir.open_run(tmp_path, {"a": (1, 2)}):
        pass
    with workdir.open_run(tmp_path, {"a": (1, 2)}):
        pass


def test_another_config_is_refused_with_the_differences(tmp_path):
    with workdir.open_run(tmp_path, CONFIG):
        pass
    other = {**CONFIG, "optimizer": {"learning_rate": 0.1}, "extra": True}
    with pytest.raises(ValueError, match="another config") as error:
        workdir.open_run(tmp_path, other)
    assert "optimizer.learning_rate: 0.001 -> 0.1" in str(error.value)
    assert "extra: (not set) -> True" in str(error.value)
    assert workdir.read_config(tmp_path) == CONFIG


def test_where_arrays_lie_may_change(tmp_path):
    with workdir.open_run(tmp_path, CONFIG):
        pass
    with workdir.open_run(tmp_path, {**CONFIG, "mesh": [["data", 2]]}):
        pass


def test_two_processes_do_not_share_a_folder(tmp_path):
    with (
        workdir.open_run(tmp_path, CONFIG),
        pytest.raises(ValueError, match="another has"),
    ):
        workdir.open_run(tmp_path, CONFIG)


def test_files_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        workdir.open_run(tmp_path, CONFIG)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    with pytest.raises(ValueError, match="is a file"):
        workdir.open_run(tmp_path / "thesis.tex", CONFIG)


def test_no_run_and_a_damaged_config_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        workdir.read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match="damaged"):
        workdir.read_config(tmp_path)
