"""Launch files, rendered by the line in their own header and run against stubs."""

import itertools
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from big_mm import distributed

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
CONFIG = "configs/siglip_b16.py"
yaml = pytest.importorskip("yaml")


def header_line(name):
    """The one line of a launch file's header that uses it."""
    found = re.findall(r"^#   (.*)$", (LAUNCH / name).read_text(), re.MULTILINE)
    lines = [line for line in found if f"launch/{name}" in line]
    assert len(lines) == 1
    return lines[0]


def environment(tmp_path, **stubs):
    """A PATH whose first folder has stubs that log how they were called."""
    for name, body in stubs.items():
        stub = tmp_path / name
        log = f'echo {name} "$@" >> {tmp_path}/calls\n'
        stub.write_text(f"#!/bin/bash\n{log}{body}\n")
        stub.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def flags_of(text):
    """Flags of the training command in a text, by name."""
    words = shlex.split(text.replace("\\\n", " "))
    rest = words[words.index("run.py") + 1 :]
    assert rest[0] == "train"
    return dict(word.removeprefix("--").split("=", 1) for word in rest[1:])


@pytest.mark.parametrize("name", ["slurm.sh", "tpu_pod.sh"])
def test_scripts_parse(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    assert os.access(LAUNCH / name, os.X_OK)


@pytest.mark.parametrize(("code", "again"), [(0, False), (2, False), (75, True)])
def test_slurm_trains_and_queues_again_when_preempted(tmp_path, code, again):
    stubs = environment(tmp_path, srun=f"exit {code}", scontrol="")
    words = shlex.split(header_line("slurm.sh"))
    assert words[0] == "sbatch"
    command = ["bash", *words[words.index("launch/slurm.sh") :]]
    done = subprocess.run(command, cwd=ROOT, env={**stubs, "SLURM_JOB_ID": "7"})
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert flags_of(calls[0]) == {"config": CONFIG, "workdir": "/shared/b16"}
    assert ("scontrol requeue 7" in calls[1:]) == again


@pytest.mark.parametrize("exists", [False, True])
def test_tpu_pod_makes_copies_installs_and_trains_on_all(tmp_path, exists):
    describe = f'[ "$4" != describe ] || exit {int(not exists)}'
    stubs = environment(tmp_path, gcloud=describe, git="")
    line = header_line("tpu_pod.sh")
    subprocess.run(["bash", "-c", line], cwd=ROOT, env=stubs, check=True)
    calls = (tmp_path / "calls").read_text()
    assert ("tpu-vm create pod --zone=us-east5-b" in calls) == (not exists)
    assert "--accelerator-type=v5litepod-64" in calls or exists
    assert calls.count("--worker=all") == 4
    assert "mount 10.0.0.2:/runs /runs" in calls
    last = calls[calls.rindex("run.py") :]
    assert flags_of(last) == {"config": CONFIG, "workdir": "/runs/b16"}


def test_tpu_pod_names_what_is_missing():
    done = subprocess.run(
        ["bash", LAUNCH / "tpu_pod.sh"], capture_output=True, text=True, env={}
    )
    assert done.returncode != 0
    assert "NAME" in done.stderr


def rendered_jobset():
    """The JobSet after the header's `envsubst`, done here as it does it."""
    line = header_line("gke_jobset.yaml")
    words = shlex.split(line)
    values = dict(w.split("=", 1) for w in words[: words.index("envsubst")])
    wanted = re.findall(r"\$(\w+)", words[words.index("envsubst") + 1])
    assert sorted(wanted) == sorted(values)
    text = (LAUNCH / "gke_jobset.yaml").read_text()
    for name, value in values.items():
        text = re.sub(rf"\${name}\b", value, text)
    return yaml.safe_load(text), values


def test_gke_jobset_renders():
    jobset, values = rendered_jobset()
    assert (jobset["apiVersion"], jobset["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    job = jobset["spec"]["replicatedJobs"][0]
    spec = job["template"]["spec"]
    nodes = int(values["NODES"])
    assert spec["parallelism"] == spec["completions"] == nodes
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    assert pod["restartPolicy"] == "Never"
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [75]
    flags = flags_of(container["args"][0])
    assert flags["config"] == CONFIG
    # JobSet names its pods so.
    name = jobset["metadata"]["name"]
    assert flags["coordinator_address"] == f"{name}-{job['name']}-0-0.{name}:8476"
    assert "$JOB_COMPLETION_INDEX" in flags["process_id"]
    check_flags(flags, process_id="0")


def test_skypilot_renders():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    words = shlex.split(header_line("skypilot.yaml"))
    given = [b for a, b in itertools.pairwise(words) if a == "--env"]
    values = dict(pair.split("=", 1) for pair in given)
    assert set(values) == set(task["envs"])
    nodes = int(words[words.index("--num-nodes") + 1])
    env = {
        **values,
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": str(nodes),
        "SKYPILOT_NODE_RANK": "1",
    }
    script = task["run"].replace("mkdir", "true").replace("exec ", "echo ")
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    flags = flags_of(done.stdout)
    assert flags["config"] == CONFIG
    assert flags["coordinator_address"] == "10.0.0.1:8476"
    check_flags(flags)


def check_flags(flags, **instead):
    """The flags of a launch file are those that start several processes."""
    flags = {**flags, **instead}
    values = [flags[name.removeprefix("--")] for name in distributed.FLAGS]
    assert distributed.settings(*values, environment={}) is not None
