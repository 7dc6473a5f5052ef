"""Commands from end to end: what they leave behind, and what they say to bad input."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from big_mm import cli
from big_mm.text import tokenizers

QUICK = "--config=configs/quickstart.py:quick"
SIGLIP = "--config=configs/siglip_b16.py:quick"


@pytest.fixture(autouse=True)
def as_a_command():
    """Commands run as users run them: their mesh and JAX settings, and no more."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def info(capsys, *arguments):
    capsys.readouterr()  # what was printed before is not its answer
    assert cli.main(["info", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A quick run that came to its end."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    every = "--config.checkpoint.every_steps=2"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert cli.main(["train", QUICK, f"--workdir={folder}", every]) == 0
    return folder


def test_a_run_leaves_what_the_readme_says(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "metrics.jsonl", "tensorboard", "checkpoints"} <= names
    assert {"report.html", "log.txt", "environment.json"} <= names
    losses = [row["loss"] for row in rows(finished) if "loss" in row]
    assert len(losses) >= 2
    assert all(np.isfinite(losses))
    assert any("groups/mean/accuracy" in row for row in rows(finished))


def test_a_finished_run_is_not_run_again(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "copy")
    before = info(capsys, f"--checkpoint={folder}")["weights_sha256"]
    every = "--config.checkpoint.every_steps=2"
    assert cli.main(["train", QUICK, f"--workdir={folder}", every]) == 0
    assert info(capsys, f"--checkpoint={folder}")["weights_sha256"] == before
    assert rows(folder) == rows(finished)


def test_a_run_taken_up_from_the_middle_ends_in_the_same_bits(
    finished, tmp_path, capsys
):
    folder = shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints" / "4")
    assert info(capsys, f"--checkpoint={folder}")["step"] == 2
    every = "--config.checkpoint.every_steps=2"
    assert cli.main(["train", QUICK, f"--workdir={folder}", every]) == 0
    ends = [info(capsys, f"--checkpoint={f}") for f in (folder, finished)]
    assert ends[0]["step"] == 4
    assert ends[0]["weights_sha256"] == ends[1]["weights_sha256"]
    assert (
        rows(folder)[-1]["groups/mean/accuracy"]
        == (rows(finished)[-1]["groups/mean/accuracy"])
    )


def test_evaluate_measures_a_checkpoint_as_the_run_did(finished, tmp_path):
    line = ["evaluate", f"--checkpoint={finished}", f"--workdir={tmp_path / 'eval'}"]
    assert cli.main([*line, "--evals=groups"]) == 0
    figures = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert figures["step"] == 4
    last = rows(finished)[-1]
    assert figures["groups/de/accuracy"] == last["groups/de/accuracy"]
    assert (tmp_path / "eval" / "report.html").exists()


def test_evaluate_overwrites_no_figures_of_another_checkpoint(
    finished, tmp_path, capsys
):
    (tmp_path / "metrics.json").write_text('{"checkpoint": "other", "step": 4, "a": 1}')
    line = ["evaluate", f"--checkpoint={finished}", f"--workdir={tmp_path}"]
    assert cli.main(line) == 2
    assert "another checkpoint" in capsys.readouterr().err
    own = {"checkpoint": str(finished.resolve()), "step": 4, "earlier/figure": 1.0}
    (tmp_path / "metrics.json").write_text(json.dumps(own))
    assert cli.main(line) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["earlier/figure"] == 1.0
    assert "groups/mean/accuracy" in figures


def test_the_other_quick_config_runs(tmp_path, capsys):
    assert cli.main(["train", SIGLIP, f"--workdir={tmp_path / 'run'}"]) == 0
    found = info(capsys, f"--checkpoint={tmp_path / 'run'}")
    assert found["step"] == 2
    assert found["parameters"] == info(capsys, SIGLIP)["parameters"]


def test_info_counts_the_full_model_without_its_files(capsys):
    # SigLIP B/16 at 256 px with 32,000 pieces, as published: 203M.
    found = info(capsys, "--config=configs/siglip_b16.py")
    assert found["parameters"] == 203_202_050
    assert found["parameters_by_part"]["image"] == 92_930_304


def test_a_loss_that_is_no_number_ends_with_3_and_keeps_the_batch(tmp_path, capsys):
    line = ["train", SIGLIP, f"--workdir={tmp_path / 'run'}"]
    hot = "--config.optimizer.learning_rate=1e38"
    flat = "--config.optimizer.schedule.name=constant"
    long = "--config.total_steps=9 steps"
    assert cli.main([*line, hot, flat, long]) == 3
    assert "not finite" in capsys.readouterr().err
    saved = list((tmp_path / "run").glob("nonfinite_batch_*.npz"))
    with np.load(saved[0]) as arrays:
        assert arrays["image"].shape == (8, 32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", QUICK], "needs --workdir"),
        (["train", "--config=configs/quickstat.py"], "Did you mean 'configs/quick"),
        (["train", "--config=configs/quickstart.py:quik"], "got 'quik'"),
        (["train", QUICK, "--config.total_stps=3"], 'Did you mean "total_steps"'),
        (["train", QUICK, "--config.total_steps=many"], "many"),
        (["train", QUICK, "--config.data.source.name=data.emjoi:load"], "data.emoji"),
        (["train", QUICK, "--config.data.source.split=trian"], "'train'"),
        (["train", QUICK, "--config.sharding=fdsp"], "'fsdp'"),
        (["train", QUICK, "--config.data.batch_examples=12"], "multiple of the 8"),
        (["train", SIGLIP, "--config.preprocess.text.tokenizer=no.model"], "no.model"),
        (["train", SIGLIP, "--config.model.text.vocab_size=100"], "vocab_size"),
        (["train", "stray", QUICK], "--name=value"),
        (["evaluate", "--checkpoint=nowhere", "--workdir={new}"], "there is none"),
        (["info"], "one of --checkpoint and --config"),
        (["report", "--workdir=nowhere"], "nowhere"),
    ],
)
def test_bad_input_gets_one_line_and_2(arguments, said, tmp_path, capsys):
    new = tmp_path / "new"
    arguments = [a.replace("{new}", str(new)) for a in arguments]
    if arguments[0] == "train" and len(arguments) > 2:
        arguments.append(f"--workdir={new}")
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert not new.exists(), "a refused config claims no folder"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device"),
    ],
)
def test_a_full_disk_is_named(error, monkeypatch, capsys):
    def fails(arguments):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "report", fails)
    assert cli.main(["report"]) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    def fails(arguments):
        raise IndexError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "report", fails)
    with pytest.raises(IndexError):
        cli.main(["report"])


def test_a_folder_of_another_run_is_refused_and_left_as_it_is(finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.name != ".lock"}
    line = ["train", QUICK, f"--workdir={finished}", "--config.seed=5"]
    assert cli.main(line) == 2
    assert "seed: 0 -> 5" in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.name != ".lock"}
    assert after == before


def test_evaluators_are_offered_by_name(finished, tmp_path, capsys):
    line = ["evaluate", f"--checkpoint={finished}", f"--workdir={tmp_path}"]
    assert cli.main([*line, "--evals=gruops"]) == 2
    assert "Did you mean 'groups'" in capsys.readouterr().err


def test_a_tokenizer_is_trained_from_a_corpus(tmp_path, capsys):
    (tmp_path / "corpus.txt").write_text("Grüße an alle\nकुत्ता\n" * 50, "utf-8")
    out = tmp_path / "own.model"
    line = ["tokenizer", f"--corpus={tmp_path / 'corpus.txt'}", f"--out={out}"]
    assert cli.main([*line, "--vocab_size=320"]) == 0
    tokenizer = tokenizers.load(out)
    rows = tokenizer.encode(["Grüße कुत्ता 你好"], length_tokens=64)
    assert tokenizer.decode(rows) == ["grüße कुत्ता 你好"]  # folded, and bytes for Han
    assert cli.main([*line, "--vocab_size=320"]) == 2
    assert "exists" in capsys.readouterr().err


def test_sigterm_saves_and_exits_with_75(tmp_path):
    folder = tmp_path / "run"
    line = [sys.executable, "run.py", "train", SIGLIP, f"--workdir={folder}"]
    more = ["--config.total_steps=100000 steps", "--config.log.every_steps=1"]
    process = subprocess.Popen(
        [*line, *more],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert "goes on from there" in error
    (saved,) = (p.name for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
    assert int(saved) >= rows(folder)[-1]["step"]
