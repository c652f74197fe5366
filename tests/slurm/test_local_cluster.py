"""The local cluster is a real SLURM: jobs run on its nodes, nodes die and come back."""

import subprocess
import sys

import pytest

from slurm.local_cluster import cluster as local
from slurm.local_cluster.__main__ import main
from slurm.local_cluster.cluster import LocalCluster
from tests.paths import ROOT
from tests.slurm.slurm_doubles import wait_for


@pytest.mark.slurm
def test_an_array_runs_on_both_nodes(cluster, tmp_path):
    command = f"echo $SLURMD_NODENAME > {tmp_path}/$SLURM_ARRAY_TASK_ID; sleep 1"
    cluster.run("sbatch", "--array=0-3", "-o", "/dev/null", "--wrap", command)
    wait_for(lambda: len(list(tmp_path.iterdir())) == 4)
    wait_for(lambda: all(p.read_text() for p in tmp_path.iterdir()))
    assert {p.read_text().strip() for p in tmp_path.iterdir()} == {"n1", "n2"}
    wait_for(lambda: not cluster.run("squeue", "-h").stdout)


@pytest.mark.slurm
@pytest.mark.slow
def test_a_killed_node_goes_down_and_comes_back(cluster):
    cluster.kill_node(2)
    wait_for(lambda: cluster.node_states().get("n2", "").startswith("down"), 60)
    assert cluster.node_states()["n1"] == "idle"
    cluster.start_node(2)
    cluster.wait_for_nodes("idle")


@pytest.mark.slurm
def test_a_wiped_controller_numbers_jobs_from_1_again(cluster):
    first = cluster.run("sbatch", "-o", "/dev/null", "--wrap", "true").stdout.split()[-1]
    cluster.kill_controller()
    assert not cluster.alive("slurmctld")
    cluster.wipe_controller()
    cluster.wait_for_nodes("idle")
    again = cluster.run("sbatch", "-o", "/dev/null", "--wrap", "true").stdout.split()[-1]
    assert again == "1"
    assert int(first) >= 1


@pytest.mark.slurm
def test_the_command_line_starts_and_stops_one(cluster, tmp_path_factory):
    # Beside the other cluster: ports, sockets and state are each one's own.
    folder = tmp_path_factory.mktemp("c")
    command = [sys.executable, "-m", "slurm.local_cluster"]
    done = subprocess.run(
        [*command, "start", folder, "--nodes", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
    other = LocalCluster(folder, nodes=1)
    try:
        assert other.node_states() == {"n1": "idle"}
        assert main(["start", str(folder)]) == 2  # there is one
    finally:
        subprocess.run([*command, "stop", folder], cwd=ROOT, check=True)
    assert other.node_states() == {}
    assert cluster.node_states() == {"n1": "idle", "n2": "idle"}


def test_without_the_packages_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local, "_which", lambda name: None)
    assert main(["start", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert "apt-get install slurmctld" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_user_who_is_not_root_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local, "_which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(local.os, "geteuid", lambda: 1000)
    assert main(["start", str(tmp_path / "x")]) == 2
    assert "root" in capsys.readouterr().err
