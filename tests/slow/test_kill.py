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
    """Runs undisturbed and killed; returns both (step, hash) and the kill moments."""
    calm, harried = folder / "calm", folder / "harried"
    began = time.monotonic()
    assert start(calm, steps).wait() == 0, (folder / "calm.log").read_text()[-2000:]
    seconds = time.monotonic() - began
    draw, moments = random.Random(seed), []
    while len(moments) < kills:
        process = start(harried, steps)
        moment = draw.uniform(0.5, seconds)
        try:
            code = process.wait(timeout=moment)
            assert code == 0, (folder / "harried.log").read_text()[-2000:]
            break  # it came to its end between two kills
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(round(moment, 1))
    assert start(harried, steps).wait() == 0, (folder / "harried.log").read_text()[-2000:]
    return calm, harried, moments


@pytest.mark.slow
def test_killed_ten_times_and_the_same_bits(tmp_path):
    calm, harried, moments = compare(tmp_path, kills=10, steps=60)
    assert moments, "no kill fell into the run"
    assert weights(calm) == weights(harried)
    # First rows have no speed, so that the log of a resumed run may say less of it.
    steps = {row["step"] for row in rows(calm)}
    losses = lambda run: {r["step"]: r["loss"] for r in rows(run) if "loss" in r}
    assert {k: v for k, v in losses(harried).items() if k in steps} == losses(calm)


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
