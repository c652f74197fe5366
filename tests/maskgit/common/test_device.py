"""How many cores a process takes."""

import os

import pytest

from maskgit.common import device
from maskgit.common.device import (
    available_cores,
    check_device,
    resolve_device,
    worker_threads,
)
from maskgit.common.errors import UsageError


@pytest.fixture
def cores(monkeypatch, tmp_path):
    """An eight-core machine without limits."""
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(device, "_CGROUPS", tmp_path)
    assert available_cores() == 8
    return monkeypatch


GIVEN = (("3", 3), ("0", 1), ("99", 8), ("", 8), ("x", 8), ("²", 8), ("2,1", 2))


def test_a_job_only_ever_lowers_the_number(cores):
    for given, expected in GIVEN:
        cores.setenv("SLURM_CPUS_PER_TASK", given)
        assert available_cores() == expected


def test_omp_num_threads_limits_the_threads_of_a_process_not_the_processes(cores):
    for given, expected in GIVEN:
        cores.setenv("OMP_NUM_THREADS", given)
        assert (available_cores(), worker_threads(1)) == (8, expected)
    cores.setenv("OMP_NUM_THREADS", "3")
    assert [worker_threads(workers) for workers in (1, 2, 4, 16)] == [3, 3, 2, 1]


def test_the_affinity_mask_counts(cores):
    cores.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert available_cores() == 2


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("150000 100000", 1), ("400000 100000", 4), ("10000 100000", 1), ("max 100000", 8), ("", 8)],
)
def test_the_quota_of_a_container_counts(cores, tmp_path, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cores() == expected


def test_a_device_that_is_not_there_is_one_line():
    assert resolve_device("cpu") == "cpu"
    assert check_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match=r"^--device tpu: not available here"):
        check_device("tpu")
