"""A run killed at any moment, and started again, ends in the same bits.

    python tests/slow/test_kill.py --kills=10 --steps=0

does it to the quickstart as it is (`--steps=0` keeps its length); the test does it to a
shorter one with many checkpoints, so that kills fall into saves too.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TIMES = ("examples_per_s", "step_s", "data_wait_fraction", "evaluation_s")


def command(workdir, steps):
    line = [sys.executable, "run.py", "train", "--config=configs/quickstart.py"]
    line.append(f"--workdir={workdir}")
    if steps:
        line += [f"--config.total_steps={steps}", "--config.checkpoint.every_steps=5"]
    return line


def start(workdir, steps):
    log = (workdir.parent / f"{workdir.name}.log").open("a")
    with log:
        return subprocess.Popen(
            command(workdir, steps), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )


def weights(workdir):
    line = [sys.executable, "run.py", "info", f"--checkpoint={workdir}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    return facts["step"], facts["weights_sha256"]


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    for line in lines:
        row = json.loads(line)
        yield {k: v for k, v in row.items() if k.rsplit("/", 1)[-1] not in TIMES}


def compare(folder, *, kills, steps, seed=0):
    """Runs undisturbed and killed; returns both folders and the kills' moments.

    A life lasts from half a second to its start-up and twice its share of the steps, so
    that kills fall everywhere: while it starts, compiles, trains, saves and evaluates.
    """
    calm, harried = folder / "calm", folder / "harried"
    began = time.monotonic()
    process = start(calm, steps)
    while process.poll() is None and not (calm / "metrics.jsonl").exists():
        time.sleep(0.1)
    started = time.monotonic() - began
    assert process.wait() == 0, last_words(calm)
    share = (time.monotonic() - began - started) / kills
    draw, moments = random.Random(seed), []
    while len(moments) < kills:
        process = start(harried, steps)
        moment = draw.uniform(0.5, started + 2 * share)
        try:
            assert process.wait(timeout=moment) == 0, last_words(harried)
            break  # it came to its end between two kills
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(round(moment, 1))
    assert start(harried, steps).wait() == 0, last_words(harried)
    return calm, harried, moments


def last_words(workdir):
    return (workdir.parent / f"{workdir.name}.log").read_text()[-2000:]


@pytest.mark.slow
def test_killed_ten_times_and_the_same_bits(tmp_path):
    calm, harried, moments = compare(tmp_path, kills=10, steps=60)
    assert len(moments) > 3, "hardly a kill fell into the run"
    assert weights(calm) == weights(harried)
    logged = lambda run: {r["step"]: r["loss"] for r in rows(run) if "loss" in r}
    expected, found = logged(calm), logged(harried)
    assert {step: found[step] for step in expected} == expected


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, harried, moments = compare(
            Path(folder), kills=given.kills, steps=given.steps, seed=given.seed
        )
        print("killed after seconds:", moments)
        print("undisturbed:", *weights(calm))
        print("killed     :", *weights(harried))
        return int(weights(calm) != weights(harried))


if __name__ == "__main__":
    sys.exit(main())
