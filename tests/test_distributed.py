"""How processes find each other, by flags or by what clusters tell them."""

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from big_mm import distributed

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
OPEN_MPI_4 = {**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:4"}
TPU = {"TPU_ML_PLATFORM": "JAX"}


def settings(*flags, **environment):
    return distributed.settings(*(flags or (None,) * 3), environment=environment)


@pytest.mark.parametrize(
    ("environment", "method"),
    [
        (SLURM, "slurm"),
        (OPEN_MPI_4, "ompi"),
        ({**TPU, "TPU_WORKER_HOSTNAMES": "a,b"}, "gketpu"),
        ({**TPU, "TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "gketpu"),
        ({**TPU, "TPU_PROCESS_ADDRESSES": "a:1,b:1"}, "gketpu"),
        (TPU, "gcetpu"),
    ],
)
def test_clusters_are_known_by_their_environment(environment, method):
    assert settings(**environment) == {"cluster_detection_method": method}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**SLURM, "SLURM_NTASKS": "1"},
        {k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"},  # no srun
        {**OPEN_MPI_4, "OMPI_COMM_WORLD_SIZE": "1"},
        {**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"},
        {**TPU, "TPU_WORKER_HOSTNAMES": "localhost"},
        {**TPU, "TPU_SKIP_MDS_QUERY": "1"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},  # but no TPU is here
    ],
)
def test_a_process_on_its_own_is_left_alone(environment):
    assert settings(**environment) is None


def test_methods_are_those_that_jax_knows():
    from jax._src.clusters import ClusterEnv

    known = {kind.name for kind in ClusterEnv._cluster_types}
    assert {"slurm", "ompi", "gketpu", "gcetpu"} <= known


def test_flags_say_it_all():
    found = settings("host:80", "4", "3")
    assert found == {
        "coordinator_address": "host:80",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }
    assert settings("host:80", 4, 3, **SLURM) == found
    assert settings("host:80", "1", "0") is None


def test_the_environment_fills_in_the_numbers():
    found = settings("host:80", None, None, **OPEN_MPI)
    assert found is not None
    assert (found["num_processes"], found["process_id"]) == (2, 1)
    assert found["local_device_ids"] == [1]  # as JAX does: a process, a device
    found = settings("h:80", None, None, **OPEN_MPI, JAX_LOCAL_DEVICE_IDS="0,1")
    assert found is not None
    assert "local_device_ids" not in found


def test_jax_s_own_variable_is_a_coordinator():
    found = settings(None, 2, 0, JAX_COORDINATOR_ADDRESS="host:80")
    assert found is not None
    assert found["coordinator_address"] == "host:80"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("host:80", None, None), "go together"),
        (("host:80", "2", None), "--process_id"),
        ((None, "2", "0"), "--coordinator_address"),
        (("host:80", "two", "0"), "--num_processes is a whole number: got 'two'"),
        (("host:80", "2", "-1"), "--process_id is a whole number"),
        (("host:80", "2", "2"), "counts from 0"),
        (("host", "2", "1"), "host:port"),
    ],
)
def test_settings_that_do_not_fit_are_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        settings(*flags)


def test_open_mpi_5_needs_the_coordinator():
    with pytest.raises(ValueError, match="does not say where"):
        settings(**OPEN_MPI)


def test_jax_is_asked_once_with_time_limits(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **k: asked.append(k))
    distributed.start()
    assert asked == []
    distributed.start("host:80", "2", "1", timeout_s=7)
    assert 7 < asked[0]["initialization_timeout"] < 120
    assert asked[0]["heartbeat_timeout_seconds"] <= 120
    assert asked[0]["shutdown_timeout_seconds"] <= 120


def test_those_who_do_not_come_are_bad_input(monkeypatch):
    def fail(**_):
        raise RuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ValueError, match=r"must meet within 300 s.*host:80"):
        distributed.start("host:80", "2", "1")


def test_alone_it_agrees_with_itself():
    assert distributed.first()
    assert distributed.on_first(lambda: 3) == distributed.together(lambda: 3) == 3
    assert distributed.gather([1]) == [[1]]
    distributed.check_same("the config", {"seed": 0})


@pytest.fixture
def two(monkeypatch):
    """As if another process, whose words are given, were there."""
    words = []

    def gather(value):
        return [value, words.pop(0)]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "gather", gather)
    return words


def test_if_one_refuses_all_do(two):
    two[:] = [None]
    assert distributed.together(lambda: 3) == 3
    two[:] = ["the disk is full"]
    with pytest.raises(ValueError, match="process 1 refused: the disk is full"):
        distributed.together(lambda: 3)
    two[:] = [None]
    with pytest.raises(KeyError, match="here"):  # its own error stays what it is
        distributed.together(lambda: {}["here"])
    assert two == []  # and the others were told


def test_another_config_is_refused(two):
    two[:] = ["0" * 64]
    with pytest.raises(ValueError, match=r"the config must be the same.*\[1\]"):
        distributed.check_same("the config", {"seed": 0})


def test_processes_hold_rows_of_their_own(mesh, monkeypatch):
    split = NamedSharding(mesh, PartitionSpec("data"))
    distributed.check_rows(split, 16)
    distributed.check_rows(NamedSharding(mesh, PartitionSpec()), 16)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="its own share of the 16 examples"):
        distributed.check_rows(NamedSharding(mesh, PartitionSpec()), 16)
