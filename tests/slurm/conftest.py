"""One real cluster for the tests marked slurm; skipped, with the reason, where none can run."""

import tempfile
from pathlib import Path

import pytest

from slurm.local_cluster.cluster import why_not
from slurm.profile import load_profile
from slurm.submission import take_snapshot
from tests.slurm.faulty_cluster import FaultyCluster
from tests.slurm.slurm_doubles import PATHS, resubmit


@pytest.fixture(autouse=True)
def trivial_cells(monkeypatch):
    """`python -m slurm.status RUN resubmit` of trivial cells, which no registry knows."""
    monkeypatch.setattr("slurm.status.resubmit", resubmit)


@pytest.fixture(scope="session")
def cluster():
    """Two nodes of two CPUs each, stopped at the end of the session."""
    reason = why_not()
    if reason:
        pytest.skip(f"no local SLURM: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # short, for munge's socket
        running = FaultyCluster(Path(folder), node_timeout=8, forget_after=60)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def on_cluster(cluster, monkeypatch):
    """The cluster, with the variables that SLURM's programs need set in this process."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return cluster


@pytest.fixture(scope="session")
def code(tmp_path_factory):
    """A copy of the sources, which nobody edits while the tests run."""
    root = tmp_path_factory.mktemp("code")
    take_snapshot(Path(__file__).parents[2], root)
    return root


@pytest.fixture
def profile():
    """profile("key=value", ...) is the local profile with these; its jobs find the doubles."""

    def make(*overrides):
        paths = f'environment={{PYTHONPATH="{PATHS}",OMP_NUM_THREADS="1"}}'
        return load_profile("local", [paths, "mem=256M", *overrides])

    return make
