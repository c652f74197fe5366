"""What happens to jobs, on a real SLURM: killed, cancelled, requeued, out of time, twice at once.

After each fault, and after what the user is told to do about it: no cell lost, none published
twice, none torn, and the report of an undisturbed run. Meanwhile the status says what is so.
"""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from experiments.engine.check import check
from slurm import status
from slurm.resubmit import missing_cells
from slurm.submission import keys_left
from slurm.watch import collect
from tests.slurm.slurm_doubles import (
    assert_sound,
    ended,
    published,
    request,
    resubmit,
    started,
    starts_log,
    states,
    submit,
    wait_for,
)

pytestmark = pytest.mark.slurm


def held(run):
    """The pids of those who hold leases now."""
    found = []
    for lease in run.glob("cells/*/lease"):
        try:
            found.append(int(json.loads(lease.read_text())["pid"]))
        except (OSError, ValueError):
            continue
    return found


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def hurry(cluster):
    """SLURM holds a requeued job for two minutes; here three seconds, for less than one would not
    do: a node refuses a job that starts in the second in which it was revoked."""
    jobs = cluster.run("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %S %r").stdout
    for job, start, reason in (line.split(maxsplit=2) for line in jobs.splitlines()):
        if reason != "BeginTime" or start == "N/A":
            continue
        left = time.mktime(time.strptime(start, "%Y-%m-%dT%H:%M:%S")) - time.time()
        if left > 10:
            cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now+3", check=False)


def done_cells(run, at_least=1):
    return len(list(run.glob("cells/*/result.json"))) >= at_least


def wait_until_done(cluster, submission, seconds=90.0):
    def look():
        hurry(cluster)
        return set(states(submission)) == {"done"}

    wait_for(look, seconds, cluster)


def test_a_killed_worker_is_replaced(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 6, 1.5)
    submission = submit(payload, work, run, profile("max_array=1"), root=code)
    wait_for(starts_log(run).exists)  # a lease alone would be earlier than the work
    os.kill(held(run)[0], signal.SIGKILL)
    wait_until_done(on_cluster, submission)
    assert submission.state(0)["attempt"] == 1
    assert sum(started(run).values()) == 7  # the killed one once more
    assert "SIGKILL" in submission.log(0).read_text()
    assert_sound(run, 6, tmp_path)


def test_a_killed_job_is_lost_and_resubmit_makes_what_is_missing(
    on_cluster, code, profile, tmp_path, capsys
):
    run = tmp_path / "run"
    payload, work = request(run, 6, 0.6)
    submission = submit(payload, work, run, profile("max_array=2"), root=code)
    wait_for(lambda: done_cells(run) and len(held(run)) == 2)
    for pid in held(run):
        os.kill(parent(pid), signal.SIGKILL)
    wait_for(lambda: ended(submission))
    assert set(states(submission)) == {"lost"}
    assert status.main([str(run)]) == 0
    assert "did not say that it ended" in capsys.readouterr().out
    assert status.main([str(run), "--follow"]) == 1
    left = keys_left(submission.keys, run)
    again = resubmit(run)
    assert sorted(again.keys) == sorted(left)
    wait_until_done(on_cluster, again)
    assert set(states(submission)) == {"done"}
    assert_sound(run, 6, tmp_path)


def test_scancel(on_cluster, code, profile, tmp_path, capsys):
    run = tmp_path / "run"
    payload, work = request(run, 8, 1.0)
    submission = submit(payload, work, run, profile("max_array=2"), root=code)
    wait_for(lambda: done_cells(run))
    assert status.main([str(run), "cancel"]) == 0
    wait_for(lambda: ended(submission))
    assert set(states(submission)) <= {"stopped", "done"}
    assert "SIGTERM" in next(s.reason for s in collect(submission) if s.state == "stopped")
    assert held(run) == []  # it left its leases behind as one leaves a room
    assert keys_left(submission.keys, run)
    capsys.readouterr()
    assert status.main([str(run), "resubmit"]) == 0
    assert "watch it" in capsys.readouterr().err
    wait_until_done(on_cluster, status.find(run))
    assert_sound(run, 8, tmp_path)


def test_requeue(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 6, 0.8)
    submission = submit(payload, work, run, profile("max_array=2"), root=code)
    wait_for(lambda: done_cells(run) and len(held(run)) == 2)
    on_cluster.run("scontrol", "requeue", submission.job)
    wait_for(lambda: "requeued" in states(submission))
    assert missing_cells(run, failed_too=True)[1] == []  # its own job will make them
    wait_until_done(on_cluster, submission)
    assert max(submission.state(i)["attempt"] for i in (0, 1)) == 2
    assert_sound(run, 6, tmp_path)


def test_preemption(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 16, 0.8)
    submission = submit(payload, work, run, profile("max_array=4"), root=code)
    wait_for(lambda: done_cells(run) and len(held(run)) == 4)
    # All nodes, for a moment: every shard has to go.
    words = ["--partition=urgent", "--nodes=2", "--exclusive", "-o", "/dev/null"]
    on_cluster.run("sbatch", *words, "--wrap", "sleep 2")
    wait_for(lambda: set(states(submission)) <= {"requeued", "done"}, 60, on_cluster)
    assert "requeued" in states(submission)
    wait_until_done(on_cluster, submission)
    assert max(submission.state(i)["attempt"] for i in range(4)) == 2
    assert_sound(run, 16, tmp_path)


def test_too_many_time_limits(on_cluster, code, profile, tmp_path):
    # SLURM sends this signal before a time limit; below ten minutes submitit takes any for one.
    run = tmp_path / "run"
    payload, work = request(run, 6, 0.8)
    profile = profile("max_array=1", "max_timeouts=1", "time=5")
    submission = submit(payload, work, run, profile, root=code)
    for expected in ("requeued", "broken"):
        wait_for(lambda: hurry(on_cluster) or held(run))
        on_cluster.run("scancel", "--signal=USR2", submission.job)
        wait_for(lambda expected=expected: states(submission) == [expected])
    assert "timed-out too many times" in collect(submission)[0].reason
    assert keys_left(submission.keys, run)
    wait_until_done(on_cluster, resubmit(run))
    assert_sound(run, 6, tmp_path)


@pytest.mark.slow
def test_the_time_limit(on_cluster, code, profile, tmp_path):
    # A minute is SLURM's shortest. Seconds before its end the shard asks for its own requeue.
    run = tmp_path / "run"
    payload, work = request(run, 12, 6.0)
    submission = submit(payload, work, run, profile("max_array=1", "time=1"), root=code)
    wait_for(lambda: states(submission) == ["requeued"], 100)
    assert done_cells(run, 2)
    wait_until_done(on_cluster, submission, 150)
    assert submission.state(0)["attempt"] >= 2
    assert sum(started(run).values()) <= 12 + submission.state(0)["attempt"] - 1
    assert_sound(run, 12, tmp_path)


def test_two_submissions_of_one_grid(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 12, 0.4)
    both = [submit(payload, work, run, profile(f"max_array={n}"), root=code) for n in (2, 1)]
    wait_for(lambda: all(ended(s) for s in both))
    assert {state for s in both for state in states(s)} == {"done"}
    assert started(run) == dict.fromkeys(range(12), 1)
    assert_sound(run, 12, tmp_path)


def test_a_cell_that_exhausts_the_memory_fails_alone(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 8, hog=2, die=5)
    limited = profile("max_array=2", 'setup=["ulimit -v 16000000"]')
    submission = submit(payload, work, run, limited, root=code)
    wait_for(lambda: ended(submission))
    assert sum(s.failed for s in collect(submission)) == 2
    assert sum(s.done for s in collect(submission)) == 6
    errors = [json.loads(p.read_text())["error"] for p in run.glob("cells/*/failure.json")]
    assert sorted(e.split(":")[0].split(" by ")[-1] for e in errors) == [
        "MemoryError",
        "SIGKILL (out of memory?), twice",
    ]
    assert missing_cells(run, failed_too=False)[1] == []


def test_one_cell_is_shared_by_several_shards(on_cluster, code, profile, tmp_path, capsys):
    run = tmp_path / "run"
    payload, work = request(run, 1, 1.5, blocks=10)
    submission = submit(payload, work, run, profile("max_array=3"), root=code)
    assert submission.shards == ((work[0].key,),) * 3
    wait_until_done(on_cluster, submission, 120)
    assert set(states(submission)) == {"done"}
    assert status.main([str(run)]) == 0
    assert ": 1/1 cells done, 0 failed; shards: 3 done" in capsys.readouterr().out
    begun = [line.split() for line in starts_log(run).read_text().splitlines()]
    blocks = [word for word, _ in begun if word.startswith("block-")]
    assert sorted(blocks) == sorted(f"block-{i}" for i in range(10))
    assert len({pid for word, pid in begun if word.startswith("block-")}) >= 2
    assert [word for word, _ in begun if not word.startswith("block-")] == ["0"]
    assert set(published(run).values()) == {1}
    assert check(run).findings == ()
