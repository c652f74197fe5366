"""`--slurm` of the experiments: the real benchmark on a real SLURM, and what needs no cluster."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.engine import command, job, remote
from experiments.engine.check import check
from experiments.studies.ablate_schedule.experiment import Options
from experiments.studies.registry import EXPERIMENTS
from maskgit.common.cli import parse
from maskgit.common.device import available_cores
from maskgit.common.errors import UsageError
from slurm.submission import load_submission
from tests.slurm.slurm_doubles import wait_for

GRID = ("--T", "4,8,12", "--num-samples", "10", "--metrics", "fid,is,nll")


@pytest.fixture
def start(code):
    """Runs the script from the copy of the sources."""

    def start(*words, **environment):
        return subprocess.run(
            [sys.executable, str(code / "experiments/ablate_schedule.py"), *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(code), **environment},
        )

    return start


def content(folder, files):
    found = {p.relative_to(folder): p.read_bytes() for p in folder.glob(files) if p.is_file()}
    assert found or files == "report/*/*", files
    return found


@pytest.mark.slurm
@pytest.mark.slow
def test_the_benchmark_as_an_array_gives_the_bytes_of_an_inline_run(on_cluster, start, tmp_path):
    # Seven schedules at three T.
    inline, jobs = tmp_path / "inline", tmp_path / "jobs"
    submit = ("--slurm", "local", "--slurm-set", "max_array=5 mem=2G", "--snapshot", "--wait")
    done = start(*GRID, *submit, "--chain-report", "--out", jobs)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{jobs}/report/report.md\n"
    assert "21 cells in 5 shards" in done.stderr
    # The job of the report may be at work when this command comes to build it, and is waited for.
    assert any("21/21 cells done, 0 failed" in line for line in done.stderr.splitlines())
    (submission,) = (jobs / "slurm").iterdir()
    shards = json.loads((submission / "submission.json").read_text())["shards"]
    assert len(shards) == 5
    found = check(jobs)
    assert (found.sound, found.findings) == (21, ())
    # One thread: on a busy machine several wait for each other.
    done = start(*GRID, "--workers", 0, "--out", inline, SLURM_CPUS_PER_TASK="1")
    assert done.returncode == 0, done.stderr
    # The report was built here and is now built by the job that comes after the array.
    wait_for(lambda: not on_cluster.run("squeue", "-h").stdout, 120, on_cluster)
    log = (submission / f"{load_submission(submission).report_job}_0_log.out").read_text()
    assert "completed successfully" in log
    for files in ("report/*", "report/*/*", "grid.json", "cells/*/result.json"):
        assert content(inline, files) == content(jobs, files), files
    # Nothing is left to submit; the time of a forward is now known from these cells.
    again = start(*GRID, "--slurm", "local", "--out", jobs)
    assert again.returncode == 0
    assert "nothing to submit" in again.stderr
    plan = start("--T", "4,8,12,16", *GRID[2:], "--slurm", "local", "--dry-run", "--out", jobs)
    assert "28 cells: 21 cached, 7 to do" in plan.stdout
    assert "s a forward, as 21 cells of this run took on cpu" in plan.stdout


# ---- without a cluster --------------------------------------------------------------------------


def options(*words):
    return parse(Options, [*GRID, *words], "x", "")


def test_a_job_builds_the_tasks_that_were_submitted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = options("--slurm", "cpu", "--out", "here", "--seeds", "0,1", "--schedules", "cosine")
    request = json.loads(json.dumps(remote.request_of("ablate_schedule", asked)))
    assert request["run"] == str(tmp_path / "here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    built = job.build(request)
    assert built.computer.run == tmp_path / "here"
    assert [(t.cell["steps"], t.cell["seed"]) for t in built.tasks] == [
        (steps, seed) for steps in (4, 8, 12) for seed in (0, 1)
    ]
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(command, "run_on_slurm", lambda *given: seen.append(given) or 0)
    assert command.run("ablate_schedule", asked) == 0
    assert [task.key for task in seen[0][2].tasks] == [task.key for task in built.tasks]
    assert not (tmp_path / "here").exists()  # nothing was written by any of it


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_job_finds_every_experiment_by_its_name_and_its_options(name, tmp_path):
    kind = EXPERIMENTS[name].options
    asked = kind(out=tmp_path, weights=Path("x"), slurm="cpu")
    request = json.loads(json.dumps(remote.request_of(name, asked)))
    assert (request["experiment"], request["options"]["weights"]) == (name, os.path.abspath("x"))
    with pytest.raises(UsageError, match="x"):  # it gets as far as looking for the weights
        job.build(request)


@pytest.mark.parametrize("change", [{"options": {"zzz": 1}}, {"options": 3}, {"run": 3}])
def test_a_request_that_is_not_ours_is_one_line(tmp_path, change):
    request = remote.request_of("ablate_schedule", options("--out", str(tmp_path)))
    with pytest.raises(UsageError, match="not one of ours"):
        job.build({**request, **change})


def test_a_dry_run_prints_shards_hours_and_gpu_hours(start, tmp_path):
    done = start(
        *("--T", "4..60", "--seeds", "0,1,2", "--slurm", "a100", "--dry-run", "--out", tmp_path),
        *("--slurm-set", "seconds_per_forward=0.01 shard_hours=0.5"),
    )
    assert done.returncode == 0, done.stderr
    assert "1197 cells: 0 cached, 1197 to do" in done.stdout
    assert "1197 cells in 24 shards" in done.stdout
    assert "about 12.0 hours of work, 0.50 hours in the longest shard" in done.stdout
    assert "about 12.0 GPU-hours" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--wait",), "--wait: only with --slurm PROFILE"),
        (("--slurm-set", "time=3"), "--slurm-set: only with --slurm PROFILE"),
        (("--slurm", "a101"), "--slurm a101: expected one of a100"),
        (("--slurm", "cpu", "--slurm-set", "tim=3"), "did you mean time?"),
        (("--slurm", "cpu", "--slurm-set", "time='3"), "expected key=value"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(words, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        options(*words).check()


def test_without_slurm_it_is_one_line(start, tmp_path):
    done = start(*GRID, "--slurm", "cpu", "--out", tmp_path / "x", PATH="/nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "error: --slurm: sbatch is not on this machine's PATH; log in to a submit host"
    )


def test_a_job_takes_no_more_cores_than_it_asked_for(monkeypatch):
    # Where SLURM binds no process to cores, a job sees all of the node.
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    cores = available_cores()
    for given, expected in (("1", 1), (str(cores + 1), cores), ("", cores), ("x", cores)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
        assert available_cores() == expected
