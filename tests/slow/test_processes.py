"""Two processes with two devices each train as one, through SIGTERM and SIGKILL."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
STEPS = 20
# The flags of the command line, given by hand so that both may be tested apart.
CODE = """
import sys
from big_mm import cli, distributed
if sys.argv[1] != "alone":
    distributed.start(*sys.argv[1].split(","), timeout_s=120)
sys.exit(cli.main(sys.argv[2:]))
"""


def start(workdir, *, processes=2, devices=2):
    """Starts all processes of a run; each logs to a file beside the workdir."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["train", "--config=configs/siglip_b16.py:quick", f"--workdir={workdir}"]
    command += [f"--config.total_steps={STEPS}", "--config.log.every_steps=1"]
    command += ["--config.checkpoint.every_steps=5"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    started = []
    for number in range(processes):
        who = f"127.0.0.1:{port},{processes},{number}" if processes > 1 else "alone"
        with log(workdir, number).open("a") as out:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", CODE, who, *command],
                    cwd=ROOT,
                    env=env,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def log(workdir, number):
    return workdir.parent / f"{workdir.name}_{number}.log"


def ends(started, workdir, *, timeout_s=600):
    """Exit codes, once all have come to their end by themselves."""
    end = time.monotonic() + timeout_s
    try:
        return [p.wait(timeout=max(1, end - time.monotonic())) for p in started]
    finally:
        for number, process in enumerate(started):
            process.kill()
            print(log(workdir, number).read_text()[-3000:])


def train(workdir, **how):
    assert set(ends(start(workdir, **how), workdir)) == {0}


def losses(workdir):
    file = workdir / "metrics.jsonl"
    found = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        row = json.loads(line)
        if "loss" in row:
            assert row["step"] not in found, "a row is written once"
            found[row["step"]] = row["loss"]
    return found


def until(workdir, step, started):
    """Returns once the run has logged a step."""
    while max(losses(workdir), default=0) < step:
        assert all(process.poll() is None for process in started)
        time.sleep(0.02)


def facts(workdir):
    line = [sys.executable, "run.py", "info", f"--checkpoint={workdir}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return found["step"], found["weights_sha256"]


@pytest.mark.slow
def test_stopped_killed_and_moved(tmp_path):
    calm, harried = tmp_path / "calm", tmp_path / "harried"
    train(calm)

    started = start(harried)
    until(harried, 3, started)
    started[1].send_signal(signal.SIGTERM)  # one is asked, both stop at one step
    assert ends(started, harried) == [75, 75]
    said = [log(harried, i).read_text().split("saved at step ")[1] for i in (0, 1)]
    stopped = {text.split(":")[0] for text in said}
    assert len(stopped) == 1
    assert (harried / "checkpoints" / stopped.pop() / "files.json").exists()

    started = start(harried)
    until(harried, 12, started)
    started[1].send_signal(signal.SIGKILL)
    left, killed = ends(started, harried, timeout_s=240)  # nobody waits for ever
    assert killed == -signal.SIGKILL
    assert left != 0

    moved = {devices: tmp_path / f"moved_{devices}" for devices in (2, 8)}
    for folder in moved.values():
        shutil.copytree(harried, folder)
    train(harried)
    assert facts(harried) == facts(calm)
    assert facts(calm)[0] == STEPS
    expected = losses(calm)
    assert losses(harried) == expected

    for devices, folder in moved.items():
        train(folder, processes=1, devices=devices)
        found = losses(folder)
        assert found.keys() == expected.keys()
        for step in (11, 12):  # the first ones on the other mesh
            assert found[step] == pytest.approx(expected[step], rel=1e-5), devices


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_who_does_not_come_is_not_waited_for(number):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    line = f"distributed.start({where!r}, 2, {number}, timeout_s=3)"
    done = subprocess.run(
        [sys.executable, "-c", f"from big_mm import distributed; {line}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("big_mm: all processes must meet within 3 s")
    assert done.stderr.count("\n") == 1
