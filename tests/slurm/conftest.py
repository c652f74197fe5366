"""One real cluster for the tests marked slurm; skipped, with the reason, where none can run."""

import tempfile
from pathlib import Path

import pytest

from slurm.local_cluster.cluster import LocalCluster, why_not


@pytest.fixture(scope="session")
def cluster():
    """Two nodes of two CPUs each, stopped at the end of the session."""
    reason = why_not()
    if reason:
        pytest.skip(f"no local SLURM: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # short, for munge's socket
        running = LocalCluster(Path(folder), node_timeout=8, forget_after=60)
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
