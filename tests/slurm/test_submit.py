"""Submission to a real SLURM: arrays, the report after them, what is refused, what is told."""

import dataclasses
import json
from itertools import product
from pathlib import Path

import pytest

from maskgit.common.errors import UsageError
from slurm import status
from slurm.job import Refused, run_shard
from slurm.profile import load_profile
from slurm.resubmit import missing_cells
from slurm.shards import Work
from slurm.submission import (
    Submission,
    code_fingerprint,
    keys_left,
    load_submission,
    take_snapshot,
)
from slurm.submit import plan, plan_words
from slurm.watch import Queue, collect
from tests.paths import ROOT
from tests.slurm.slurm_doubles import (
    ENTRY,
    assert_sound,
    ended,
    request,
    resubmit,
    started,
    states,
    submit,
    wait_for,
)


@pytest.mark.slurm
def test_an_array_gives_the_report_of_an_inline_run(on_cluster, code, profile, tmp_path, capsys):
    run = tmp_path / "run"
    payload, work = request(run, 21)
    submission = submit(payload, work, run, profile("max_array=4"), chain_report=True, root=code)
    assert len(submission.shards) == 4
    text = run / "report" / "report.txt"
    wait_for(text.exists)
    from_the_job = text.read_bytes()
    assert states(submission) == ["done"] * 4
    assert_sound(run, 21, tmp_path)
    assert text.read_bytes() == from_the_job
    # Every cell was started once, by one of two nodes.
    assert started(run) == dict.fromkeys(range(21), 1)
    assert {submission.state(i)["node"] for i in range(4)} <= {"n1", "n2"}
    assert (submission.folder / "submission.json").exists()
    assert list(submission.folder.glob("*.sh"))
    assert load_submission(submission.folder) == submission

    assert status.main([str(run)]) == 0
    shown = capsys.readouterr().out
    assert "21/21 cells done, 0 failed; shards: 4 done" in shown
    assert status.main([str(run), "--json", "--follow"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"][0]["done"] > 0
    assert status.main([str(run), "logs", "1"]) == 0
    assert "cells:" in capsys.readouterr().out
    assert status.main([str(run), "resubmit"]) == 0
    assert "nothing to resubmit" in capsys.readouterr().out
    assert status.main([str(run), "logs", "4"]) == 2
    assert "expected a shard of 0..3" in capsys.readouterr().err


@pytest.mark.slurm
def test_a_single_shard_is_no_array(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 3)
    submission = submit(payload, work, run, profile("max_array=1"), root=code)
    wait_for(lambda: states(submission) == ["done"])
    assert submission.log(0) is not None


@pytest.mark.slurm
def test_the_papers_grid_is_one_array(on_cluster, code, profile, tmp_path):
    # 7 schedules x 57 values of T x 3 seeds, below MaxArraySize, with cells that cost nothing.
    run = tmp_path / "run"
    payload, work = request(run, 1197, 0.0)
    assert len(list(product(range(7), range(4, 61), range(3)))) == len(work)
    config = on_cluster.run("scontrol", "show", "config").stdout
    limit = int(config.split("MaxArraySize")[1].split()[1])
    dry = plan(work, profile("array_parallelism=1000"))
    assert len(dry) <= limit - 1
    assert sum(len(shard.keys) for shard in dry) == 1197
    submission = submit(payload, work, run, profile("max_array=8"), root=code)
    wait_for(lambda: not keys_left(submission.keys, run), 120)
    assert len(submission.keys) == 1197


@pytest.mark.slurm
def test_a_cell_that_raises_fails_alone(on_cluster, code, profile, tmp_path):
    run = tmp_path / "run"
    payload, work = request(run, 8, **{"raise": 5})
    submission = submit(payload, work, run, profile("max_array=2"), chain_report=True, root=code)
    wait_for(lambda: ended(submission))
    assert len(keys_left(submission.keys, run)) == 1
    assert sorted(states(submission)) == ["done", "failed"]
    assert sum(s.failed for s in collect(submission)) == 1
    # Left alone unless asked for.
    assert missing_cells(run, failed_too=False)[1] == []
    assert len(missing_cells(run, failed_too=True)[1]) == 1
    text = run / "report" / "report.txt"
    wait_for(text.exists)
    assert "5 None" in text.read_text()


@pytest.mark.slurm
def test_changed_code_is_refused_and_a_snapshot_is_not_touched(on_cluster, profile, tmp_path):
    root = tmp_path / "code"
    take_snapshot(Path(__file__).parents[2], root)
    first, second = tmp_path / "a", tmp_path / "b"
    hold = on_cluster.run("scontrol", "update", "PartitionName=local", "State=DOWN")
    assert hold.returncode == 0
    try:
        payload, work = request(first, 4)
        loose = submit(payload, work, first, profile("max_array=2"), root=root)
        payload, work = request(second, 4)
        kept = submit(payload, work, second, profile("max_array=2"), snapshot=True, root=root)
        with open(root / "maskgit" / "decoding.py", "a") as file:
            file.write("# changed\n")
    finally:
        on_cluster.run("scontrol", "update", "PartitionName=local", "State=UP")
    wait_for(lambda: states(kept) == ["done"] * 2)
    wait_for(lambda: states(loose) == ["refused"] * 2)
    assert "changed since the submission" in collect(loose)[0].reason
    assert len(keys_left(loose.keys, first)) == 4
    # As it says: submit again.
    again = resubmit(first)
    wait_for(lambda: states(again) == ["done"] * len(again.shards))


@pytest.mark.slurm
def test_other_keys_are_refused(code, on_cluster, profile, tmp_path):
    payload, work = request(tmp_path, 2)
    submission = submit(payload, work, tmp_path, profile("max_array=1"), root=code)
    wait_for(lambda: states(submission) == ["done"])
    changed = dataclasses.replace(submission, request={**payload, "cells": 1})
    with pytest.raises(Refused, match="1 of 2 cells have other keys"):
        run_shard(changed, 0, ENTRY)
    assert submission.state(0)["state"] == "refused"


@pytest.mark.slurm
def test_what_sbatch_refuses_is_one_line(on_cluster, code, profile, tmp_path, capfd):
    payload, work = request(tmp_path, 2)
    with pytest.raises(UsageError, match="sbatch refused the job: invalid partition") as error:
        submit(payload, work, tmp_path, profile("partition=none"), root=code)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    assert list((tmp_path / "slurm").iterdir()) == []


# ---- without a cluster --------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """A submission that never reached SLURM, of two shards."""
    payload, work = request(tmp_path, 4)
    folder = tmp_path / "slurm" / "x"
    (folder / "state").mkdir(parents=True)
    keys = tuple(item.key for item in work)
    submission = Submission(
        folder, "t-x", tmp_path, payload, {"gpus": 0, "workers_per_gpu": 1},
        (keys[:2], keys[2:]), "f", job="7",
        costs={item.key: item.cost for item in work},
    )  # fmt: skip
    submission.write()
    return submission


class TestStatus:
    def test_a_job_that_vanished_is_lost(self, written):
        assert [s.state for s in collect(written, Queue({}, {}))] == ["lost", "lost"]

    def test_a_silent_controller_is_not_taken_for_an_end(self, written):
        found = collect(written, Queue({}, {}, "squeue does not answer"))
        assert {s.state for s in found} == {"unknown"}
        assert found[0].reason == "squeue does not answer"

    def test_accounting_says_why_it_ended(self, written):
        queue = Queue({1: ("RUNNING", "n2", "None")}, {0: "TIMEOUT"})
        assert [s.state for s in collect(written, queue)] == ["out of time", "running"]

    def test_results_count_whatever_slurm_says(self, written):
        for key in written.shards[0]:
            (written.run / "cells" / key).mkdir(parents=True)
            (written.run / "cells" / key / "result.json").write_text("{}")
        assert [s.state for s in collect(written, Queue({}, {0: "FAILED"}))] == ["done", "lost"]


def test_the_plan_in_words():
    work = [Work(str(i), 3600.0) for i in range(10)]
    profile = load_profile("a100", ["seconds_per_forward=0.1", "shard_hours=0.2"])
    words = "\n".join(plan_words(plan(work, profile), profile))
    assert "10 cells in 5 shards of 2 to 2 cells" in words
    assert "about 1.0 hours of work, 0.20 hours in the longest shard" in words
    assert "about 1.0 GPU-hours" in words


def test_a_received_folder_chooses_no_code(written):
    """Only experiments of the registry are run, whatever submission.json names."""
    for experiment in ("os:system", "tests.slurm.slurm_doubles", "ablate_schedul"):
        asked = {"experiment": experiment, "options": {}, "run": "x", "report": "x"}
        received = dataclasses.replace(written, request=asked, fingerprint=code_fingerprint(ROOT))
        with pytest.raises(Refused, match=f"experiment {experiment}: unknown") as error:
            run_shard(received, 0)
        assert "\n" not in str(error.value)
        assert written.state(0)["state"] == "refused"


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 9}', "[1]"])
def test_a_broken_submission_is_named(tmp_path, content, capsys):
    folder = tmp_path / "slurm" / "x"
    folder.mkdir(parents=True)
    (folder / "submission.json").write_text(content)
    with pytest.raises(UsageError, match=r"submission\.json: not readable"):
        load_submission(folder)
    assert status.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "nothing was submitted" in said
    assert said.count("\n") == 1


def test_the_fingerprint_sees_every_source_and_no_cache(tmp_path):
    for name in ("maskgit/a.py", "eval/b.py", "maskgit/zoo/card.json", "tests/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    before = code_fingerprint(tmp_path)
    for name, same in [("tests/c.py", True), ("maskgit/zoo/card.json", True), ("eval/b.py", False)]:
        (tmp_path / name).write_text("2")
        assert (code_fingerprint(tmp_path) == before) is same, name
