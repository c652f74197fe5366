"""SLURM without SLURM: hostile and damaged submissions, what status tells, what a profile takes.

`squeue`, `scancel` and `sbatch` are small programs on the PATH here.
"""

import contextlib
import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest

from maskgit.common.errors import UsageError
from slurm import status
from slurm.profile import load_profile
from slurm.resubmit import missing_cells
from slurm.submission import Submission, keys_left, load_submission
from slurm.submit import submit
from slurm.watch import Queue, collect
from tests.experiments.engine.engine_doubles import task
from tests.faults.abuse import damaged, fault, report, strange_json
from tests.faults.test_store import compute
from tests.slurm.slurm_doubles import ENTRY, request


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """SLURM's commands as programs that write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "scancel", "sacct", "sbatch"):
        said = "echo 'Submitted batch job 7'" if name == "sbatch" else ":"
        text = f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{said}\n'
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "calls").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "calls"


def submitted(run, name="20260101-000000-aaaa", cells=2, **changes):
    """A submission of a trivial grid, as submit writes it; one cell a shard."""
    asked, work = request(run, cells)
    folder = run / "slurm" / name
    (folder / "state").mkdir(parents=True)
    profile = load_profile("local")
    values = {
        "folder": folder,
        "name": f"maskgit-{name}",
        "run": run,
        "request": asked,
        "profile": {**dataclasses.asdict(profile), "setup": list(profile.setup)},
        "shards": tuple((item.key,) for item in work),
        "costs": {item.key: item.cost for item in work},
        "fingerprint": "f",
        "job": "12",
    }
    submission = Submission(**{**values, **changes})
    submission.write()
    return submission


# 5: a run folder is data.


def test_a_run_folder_names_no_code_that_is_executed(tmp_path, programs, monkeypatch):
    run, evil = tmp_path / "run", tmp_path / "evil"
    evil.mkdir()
    marker = evil / "executed"
    (evil / "hostile_entry.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.syspath_prepend(evil)
    named = ("module", "experiment", "entry", "report", "computer", "preset")
    submission = submitted(run, request=dict.fromkeys(named, "hostile_entry"))
    fault(lambda: status.main([str(run), "resubmit"]), (UsageError, SystemExit))
    # And with the names that submission.json had for this in former versions.
    path = submission.folder / "submission.json"
    content = json.loads(path.read_text())
    content["payload"] = {"entry": "hostile_entry:x", "arguments": {}, "report": "hostile_entry:x"}
    path.write_text(json.dumps(content))
    fault(lambda: status.main([str(run), "resubmit"]), (UsageError, SystemExit))
    assert not marker.exists()


def test_a_profile_of_somebody_else_is_not_run(tmp_path, programs, capsys):
    """Its shell lines would run in the jobs."""
    run = tmp_path / "run"
    path = submitted(run).folder / "submission.json"
    content = json.loads(path.read_text())
    content["profile"]["setup"] = ["touch executed"]
    path.write_text(json.dumps(content))
    assert status.main([str(run), "resubmit"]) == 2
    assert "not submitted by you" in capsys.readouterr().err
    assert "sbatch" not in programs.read_text()


# 12: what counts as done, what is seen, what is said.


def test_a_truncated_result_is_submitted_again(tmp_path, programs):
    run = tmp_path / "run"
    submission = submitted(run, cells=3)
    compute(run)
    path = run / "cells" / task(1).key / "result.json"
    path.write_bytes(path.read_bytes()[:40])
    assert keys_left(submission.keys, run) == [task(1).key]
    assert [item.key for item in missing_cells(run, failed_too=False)[1]] == [task(1).key]
    assert [shard.state for shard in collect(submission)].count("done") == 2


def test_status_and_cancel_see_every_submission(tmp_path, programs, capsys):
    run = tmp_path / "run"
    names = [submitted(run, f"20260101-00000{i}-aaaa").name for i in range(2)]
    assert status.main([str(run)]) == 0
    said = capsys.readouterr()
    assert all(name in said.out + said.err for name in names)
    assert status.main([str(run), "cancel"]) == 0
    calls = programs.read_text()
    assert all(f"scancel --name={name}" in calls for name in names)


def test_cancelled_pending_shards_are_cancelled_not_lost(tmp_path, programs):
    run = tmp_path / "run"
    submission = submitted(run)
    assert status.main([str(run), "cancel"]) == 0
    assert {shard.state for shard in collect(submission)} == {"cancelled"}


def test_two_resubmits_at_once_submit_the_cells_once(tmp_path, programs, monkeypatch):
    from slurm import resubmit as module

    run, sent, inside = tmp_path / "run", [], threading.Barrier(2, timeout=3)
    submitted(run)

    def send(payload, work, *_, **__):
        sent.append([item.key for item in work])
        with contextlib.suppress(threading.BrokenBarrierError):
            inside.wait()

    monkeypatch.setattr(module, "submit", send)

    def resubmit():
        with contextlib.suppress(UsageError):  # one of them is refused
            module.resubmit(run, False, ENTRY)

    threads = [threading.Thread(target=resubmit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for keys in sent for key in keys) == sorted(task(i).key for i in range(2))


@pytest.mark.parametrize("text", ["50%jobs", "a%%b", "back\\slash", "colon:on"])
def test_letters_that_sbatch_or_the_path_would_misread_are_refused(tmp_path, programs, text):
    """`%` and a backslash are sbatch's in names of logs, `:` ends a folder of PYTHONPATH, so that
    the installed code would run and not the snapshot."""
    run = tmp_path / text
    asked, work = request(run, 2)
    with pytest.raises(UsageError, match="--out"):
        submit(asked, work, run, load_profile("local"), snapshot=True)
    assert "sbatch" not in programs.read_text()


# 15: a state file that is no object.


STATES = {"list": "[]", "number": "1", "null": "null", "text": '"x"', "deep": '{"a":' * 100_000}


@pytest.mark.parametrize("name", [*STATES, "empty object", "no JSON"])
def test_a_strange_state_file_ends_no_status(tmp_path, programs, capsys, name):
    text = {**STATES, "empty object": "{}", "no JSON": "{"}[name]
    run = tmp_path / "run"
    submission = submitted(run)
    (submission.folder / "state" / "0.json").write_text(text)
    assert fault(lambda: status.main([str(run)])) == ""


@pytest.mark.slow
def test_strange_submissions_are_refused_or_shown(tmp_path, programs, capsys):
    run = tmp_path / "run"
    submission = submitted(run)
    path = submission.folder / "submission.json"
    whole, wrong = json.loads(path.read_text()), {}
    cases = [*strange_json(whole, 200), *damaged(path.read_bytes(), 60)]
    for case, content in cases:
        path.write_bytes(content)

        def look():
            kept = load_submission(submission.folder)
            collect(kept, Queue({}, {}))

        if what := fault(look):
            wrong[case] = what
    report(wrong, len(cases))


# Profiles: times as sbatch reads them, texts that look like numbers, encodings.


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30:00", 30), ("1-12", 36 * 60), ("90", 90), ("2:00:00", 120), ("1-0:30", 24 * 60 + 30)],
)
def test_times_mean_what_they_mean_to_sbatch(text, minutes):
    assert load_profile("local", [f"time={text}"]).minutes == minutes


def test_an_unlimited_time_is_taken():
    assert load_profile("local", ["time=UNLIMITED"]).time == "UNLIMITED"


@pytest.mark.parametrize("key", ["account", "qos", "partition", "constraint"])
def test_a_number_is_a_text_where_a_text_belongs(key):
    profile = load_profile("local", [f"{key}=12345"])
    assert getattr(profile, key) == "12345"


@pytest.mark.parametrize("value", ["nan", "-1", "0", "inf", "1e400"])
def test_seconds_of_a_forward_are_finite(value):
    def load():
        load_profile("local", [f"seconds_per_forward={value}"])

    with pytest.raises(UsageError):
        load()


STRANGE = {
    "UTF-16": b"\xff\xfe" + 'mem = "8G"\n'.encode("utf-16-le"),
    "not UTF-8": b'mem = "\xff"\n',
    "deep": b"a = " + b"[" * 5000 + b"]" * 5000,
    "digits": b"gpus = " + b"1" * 5000,
}
REFUSED = {"BOM": b'\xef\xbb\xbfmem = "8G"\n', "twice": b'mem = "8G"\n' * 2}


@pytest.mark.parametrize("name", [*STRANGE, *REFUSED])
def test_a_strange_profile_is_read_or_refused(tmp_path, name):
    path = tmp_path / "mine.toml"
    path.write_bytes({**STRANGE, **REFUSED}[name])
    assert fault(lambda: load_profile(str(path))) == ""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Logs and pickles of submitit stay in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    assert Path.cwd() == tmp_path
