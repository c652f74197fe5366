"""What happens to the cluster: a node dies, the controller restarts, or forgets everything."""

import pytest

from slurm import status
from slurm.watch import collect
from tests.slurm.slurm_doubles import (
    assert_sound,
    ended,
    request,
    resubmit,
    started,
    states,
    submit,
    wait_for,
)
from tests.slurm.test_faults_jobs import done_cells, held, wait_until_done

pytestmark = pytest.mark.slurm


@pytest.mark.slow
def test_a_dead_node(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 12, 1.0)
    submission = submit(payload, work, run, profile("max_array=4"), root=code)
    wait_for(lambda: done_cells(run) and len(held(run)) == 4)
    on_cluster.kill_node(2)
    try:
        # SLURM notices by the node's silence; until then its jobs count as running.
        wait_for(lambda: on_cluster.node_states().get("n2", "").startswith("down"), 60)
        assert set(states(submission)) <= {"requeued", "done", "running"}
        wait_until_done(on_cluster, submission)
        assert {submission.state(i)["node"] for i in range(4)} == {"n1"}
        assert max(submission.state(i)["attempt"] for i in range(4)) == 2
        assert_sound(run, 12, tmp_path)
    finally:
        on_cluster.start_node(2)
        on_cluster.wait_for_nodes("idle")


@pytest.mark.slow
def test_the_controller_restarts(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 8, 12.0)  # squeue takes ten seconds to give up
    submission = submit(payload, work, run, profile("max_array=4"), root=code)
    wait_for(lambda: len(held(run)) == 4)
    wait_for_saved_state(on_cluster, submission.job)
    on_cluster.kill_controller()
    found = collect(submission)
    assert {s.state for s in found} == {"unknown"}
    assert "controller" in found[0].reason
    on_cluster.start_controller()
    on_cluster.wait_for_nodes("")
    wait_until_done(on_cluster, submission)
    assert started(run) == dict.fromkeys(range(8), 1)  # nobody was disturbed
    assert_sound(run, 8, tmp_path)


def test_a_controller_that_forgot_everything(on_cluster, code, profile, tmp_path):
    # Power and the controller's disk are gone. Job numbers then start at 1 again.
    power_cut(on_cluster)
    run, other = tmp_path / "run", tmp_path / "other"
    payload, work = request(run, 8, 1.0)
    submission = submit(payload, work, run, profile("max_array=2"), root=code)
    assert submission.job == "1"
    wait_for(lambda: done_cells(run))
    power_cut(on_cluster)
    # Another sweep gets the same number. Its jobs and pickles are no news of the first.
    payload, work = request(other, 4, 1.0)
    namesake = submit(payload, work, other, profile("max_array=2"), root=code)
    assert namesake.job == "1"
    wait_for(lambda: "running" in states(namesake), 60, on_cluster)
    assert set(states(submission)) == {"lost"}
    assert status.main([str(run), "cancel"]) == 0  # which must not touch the other's
    wait_for(lambda: ended(namesake), 60, on_cluster)
    assert set(states(namesake)) == {"done"}
    again = resubmit(run)
    assert again.name != submission.name
    wait_until_done(on_cluster, again)
    assert_sound(run, 8, tmp_path)
    assert_sound(other, 4, tmp_path / "2")


def wait_for_saved_state(cluster, job):
    """The controller writes its jobs down some seconds late. Killed before that, it comes back with
    an older state and ends them as orphans, as in the test after this one."""
    state = cluster.folder / "state" / "job_state"
    before = state.stat().st_mtime_ns if state.exists() else 0
    cluster.run("scontrol", "update", f"JobId={job}", "Comment=save")  # has the jobs saved
    wait_for(lambda: state.exists() and state.stat().st_mtime_ns > before, 30, cluster)


def power_cut(cluster):
    for node in (1, 2):
        cluster.kill_node(node)
    cluster.kill_controller()
    cluster.wipe_controller()
    for node in (1, 2):
        cluster.start_node(node)
    cluster.wait_for_nodes("idle")
