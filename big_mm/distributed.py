"""Several processes that train as one: how they find each other and stay of one mind.

Each process runs the same command. On Slurm (`srun`), under Open MPI (`mpirun`) and on
TPU pods, those of GKE included, the machines say who is who; elsewhere three flags do.
"""

import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")
FLAGS = ("--coordinator_address", "--num_processes", "--process_id")
_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
_SHUTDOWN_S = 60  # that a process which ends waits for the others
_HEARTBEAT_S = 100  # of silence, after which a process is given up


def start(
    coordinator: str | None = None,
    processes: int | str | None = None,
    process: int | str | None = None,
    *,
    timeout_s: int = 300,
) -> None:
    """Joins the other processes, if there are any; must come before JAX is used.

    If they do not all come in time, the process ends with one line and exit code 2:
    JAX waits where no exception can get out.

    Args:
        coordinator: host:port at which process 0 listens.
        processes: how many there are in all.
        process: this one's number, from 0.
        timeout_s: seconds to wait until all are there.

    Raises:
        ValueError: if the settings do not fit together, or JAX refuses them.
    """
    found = settings(coordinator, processes, process, os.environ)
    if found is None or jax.distributed.is_initialized():
        return
    told = {k: v for k, v in found.items() if k != "cluster_detection_method"}
    rule = (
        f"all processes must meet within {timeout_s} s: they did not (here: "
        f"{told or 'as the cluster says'}). Start every one of them, with the same "
        f"coordinator address, which all can reach."
    )
    watch = threading.Timer(timeout_s, _give_up, [rule])
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            **found,
            initialization_timeout=timeout_s + 60,  # after it JAX aborts with a dump
            heartbeat_timeout_seconds=_HEARTBEAT_S,
            shutdown_timeout_seconds=_SHUTDOWN_S,
        )
    except RuntimeError as error:
        raise ValueError(f"{rule} {error}") from error
    finally:
        watch.cancel()


def settings(
    coordinator: str | None,
    processes: int | str | None,
    process: int | str | None,
    environment: Mapping[str, str],
) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`, or None for a process on its own.

    Raises:
        ValueError: if flags are missing, no numbers, out of range, or Open MPI is too
            new to say where its processes meet.
    """
    if coordinator is None and processes is None and process is None:
        found = _of_cluster(environment)
        if found is not None:
            return {"cluster_detection_method": found}
    coordinator = coordinator or environment.get("JAX_COORDINATOR_ADDRESS")
    ranks = _ranks(environment)
    if coordinator is not None and processes is None and process is None and ranks:
        processes, process, local = ranks
        extra = {} if "JAX_LOCAL_DEVICE_IDS" in environment else _local(local)
    else:
        extra = {}
    values = dict(zip(FLAGS, (coordinator, processes, process), strict=True))
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == len(values):
        _refuse_newer_open_mpi(environment)
        return None
    if missing:
        raise ValueError(f"{', '.join(FLAGS)} go together: {missing} is not given.")
    count, number = _whole(FLAGS[1], processes), _whole(FLAGS[2], process)
    if not 0 <= number < count:
        raise ValueError(
            f"{FLAGS[2]} counts from 0 to {FLAGS[1]} - 1: got {number} of {count}."
        )
    if not re.fullmatch(r"\S+:\d+", str(coordinator)):
        raise ValueError(f"{FLAGS[0]} is host:port: got {coordinator!r}.")
    if count == 1:
        return None
    return {
        "coordinator_address": coordinator,
        "num_processes": count,
        "process_id": number,
        "cluster_detection_method": "deactivate",
        **extra,
    }


def first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def together(function: Callable[[], T]) -> T:
    """Calls a function on every process; if one raises, all do.

    Raises:
        ValueError: if it failed on another process; says on which.
    """
    if jax.process_count() == 1:
        return function()
    value, failure = None, None
    try:
        value = function()
    except Exception as error:
        failure = error
    replies = gather(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for number, reply in enumerate(replies):
        if reply is not None:
            raise ValueError(f"process {number} refused: {reply}")
    return value  # pyright: ignore[reportReturnType]


def on_first(function: Callable[[], T]) -> T:
    """Calls a function on the first process; all get its result, or its refusal.

    Args:
        function: returns a JSON value.
    """
    if jax.process_count() == 1:
        return function()
    return gather(together(lambda: function() if first() else None))[0]


def gather(value: Any) -> list[Any]:
    """The JSON values of all processes, in their order."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    pairs = zip(np.asarray(rows), sizes.tolist(), strict=True)
    return [json.loads(row[:size].tobytes()) for row, size in pairs]


def check_same(what: str, value: Any) -> None:
    """Refuses a JSON value that is not the same on all processes.

    Raises:
        ValueError: on every process; names those that differ from the first.
    """
    text = json.dumps(value, sort_keys=True)
    digests = gather(hashlib.sha256(text.encode()).hexdigest())
    others = [i for i, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise ValueError(
            f"{what} must be the same for all processes: that of {others} differs "
            f"from that of 0. Give every process the same command and environment."
        )


def check_rows(sharding: jax.sharding.Sharding, examples: int) -> None:
    """Refuses a mesh that gives this process other rows than the data does.

    Args:
        sharding: of the batch.
        examples: rows of the global batch; each process reads its even share.

    Raises:
        ValueError: if processes hold copies of the same rows.
    """
    places = sharding.addressable_devices_indices_map((examples,))
    held = {i[0].indices(examples)[:2] for i in places.values() if i is not None}
    rows = sum(stop - begin for begin, stop in held)
    if rows * jax.process_count() != examples:
        raise ValueError(
            f"each of {jax.process_count()} processes must hold its own share of the "
            f"{examples} examples: this one holds {rows}. Let the `tensor` axis stay "
            f"within a process: a size that divides its {jax.local_device_count()} "
            f"devices, named last in the mesh."
        )


def _give_up(words: str) -> None:
    print(f"big_mm: {words}", file=sys.stderr, flush=True)
    os._exit(2)


def _of_cluster(environment: Mapping[str, str]) -> str | None:
    """JAX's name of the cluster that started several processes."""
    if all(name in environment for name in _SLURM):
        return "slurm" if int(environment["SLURM_NTASKS"]) > 1 else None
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return "ompi" if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1 else None
    on_tpu = environment.get("TPU_ML_PLATFORM") == "JAX"  # JAX sets it where it is so
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get(
        "TPU_WORKER_HOSTNAMES"
    )
    if on_tpu and hosts:
        slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
        return "gketpu" if slices > 1 or "," in hosts else None
    if on_tpu and "TPU_SKIP_MDS_QUERY" not in environment:
        return "gcetpu"  # the metadata server knows how many, one included
    return None


def _ranks(environment: Mapping[str, str]) -> tuple[str, str, str | None] | None:
    """Number of processes, this one's, and this one's on its machine."""
    for kind in (
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    ):
        if kind[0] in environment and kind[1] in environment:
            return environment[kind[0]], environment[kind[1]], environment.get(kind[2])
    return None


def _local(number: str | None) -> dict[str, Any]:
    return {} if number is None else {"local_device_ids": [int(number)]}


def _refuse_newer_open_mpi(environment: Mapping[str, str]) -> None:
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "Open MPI 5 does not say where its processes meet: give "
            f"{FLAGS[0]}=HOST:PORT of the first process; the numbers are known."
        )


def _whole(name: str, value: int | str | None) -> int:
    if not re.fullmatch(r"\d+", str(value)):
        raise ValueError(f"{name} is a whole number: got {value!r}.")
    return int(str(value))
