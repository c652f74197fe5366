"""The phases of a run on a GPU: they end in time, keep what they found, and are typed right."""

import importlib
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks import gpu_run, sampling, training
from benchmarks.gpu_phases import GROUPS, PHASES, SCHEDULES, Phase, Plan
from maskgit.common.cli import parse
from maskgit.common.errors import UsageError
from maskgit.training.__main__ import Command
from tests.paths import ROOT

# Where training and sampling must go without these: evaluation beside other libraries needs them.
EVALUATION_ONLY = ("lpips", "torch_fidelity", "cleanfid", "submitit")


@pytest.fixture
def plan(tmp_path):
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    return Plan(tmp_path / "out", tmp_path / "work", tmp_path / "data", dry=False)


def test_phases_have_limits_and_groups():
    assert gpu_run.parse_phases("tests,check:7") == {"tests": PHASES["tests"].limit, "check": 7.0}
    assert list(gpu_run.parse_phases("all")) == list(PHASES)
    assert {*GROUPS["measure"], *GROUPS["train"]} == set(PHASES)
    for wrong in ("", "check,", "checks", "check:", "check:soon", "check:-1"):
        with pytest.raises(UsageError, match=r"^PHASES .*: expected NAME or NAME:SECONDS of check"):
            gpu_run.parse_phases(wrong)


def test_a_command_at_its_limit_ends_with_all_that_it_started(tmp_path):
    """The process of the second level ignores SIGTERM, as a hung one would."""
    beats = tmp_path / "beats"
    inner = "import signal, time; signal.signal(15, signal.SIG_IGN)\n"
    inner += f"while True: open({str(beats)!r}, 'a').write('.'); time.sleep(0.05)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with (tmp_path / "log").open("wb") as log:
        assert gpu_run.run_command(["-c", "import sys; sys.exit(3)"], 60, log) == 3
        assert gpu_run.run_command(["-c", outer], 5, log) is None
    seen = beats.stat().st_size
    assert seen > 0
    time.sleep(0.3)
    assert beats.stat().st_size == seen


def test_a_phase_goes_on_after_a_command_that_failed(plan, monkeypatch, capsys):
    commands = [["-c", f"import sys; print('said {i}'); sys.exit({i})"] for i in (0, 4, 0)]
    monkeypatch.setitem(PHASES, "check", Phase(60, lambda plan: commands))
    row = gpu_run.run_phase("check", 60, plan)
    assert (row["state"], row["last_line"]) == ("exit code 4", "said 0")
    assert capsys.readouterr().out.count("said") == 3
    row = gpu_run.run_phase("check", 0, plan)
    assert (row["state"], row["last_line"]) == ("stopped at the limit", "")


def test_no_gpu_is_one_line(monkeypatch, tmp_path):
    words = ["gpu_run.py", "check", "--deadline", "9", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match=r"^--device cuda: not available here"):
        gpu_run.main()


def test_every_command_line_is_one_that_there_is(plan, capsys):
    """What would be typed on a GPU, read by the programs' own parsers."""
    for name, phase in PHASES.items():
        for words in phase.commands(plan):
            if words[0] == "benchmarks/sampling.py":
                assert sampling.cases_of(sampling.parser().parse_args(words[1:]))
            elif words[0] == "benchmarks/training.py":
                assert training.cases_of(training.parser().parse_args(words[1:]))
            elif words[:2] == ["-m", "maskgit.training"]:
                parse(Command, words[2:], "", None)
            elif words[0].startswith("experiments/"):
                study = f"experiments.studies.{Path(words[0]).stem}.experiment"
                parse(importlib.import_module(study).Options, words[1:], "", None)
            else:
                assert name in ("check", "tests")


def make_weights(plan, name, size):
    folder = plan.weights / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(size))
    (folder / "card.json").write_text(json.dumps({"results": {"nll": size}}))


def test_weights_go_into_two_files_below_the_limit(plan):
    for i in range(7):
        make_weights(plan, f"transformer-{i}", 4 * 2**20)
    found = gpu_run.pack(plan)
    assert found["weights_left_out"] == ["transformer-6"]
    assert found["cards"]["transformer-6"] == {"nll": 4 * 2**20}
    names = set()
    for number in (1, 2):
        path = plan.out / f"weights-{number}.tar"
        assert path.stat().st_size < gpu_run.TAR_BYTES
        with tarfile.open(path) as archive:
            names |= set(archive.getnames())
    assert len([name for name in names if name.endswith("model.safetensors")]) == 6


def test_a_study_takes_the_trained_weights_when_all_are_there(plan, capsys):
    study = PHASES["ablation"].commands
    assert "--weights" not in study(plan)[0]
    assert "not trained: autoregressive, tokenizer, transformer-cosine" in capsys.readouterr().out
    for name in ("tokenizer", "autoregressive", *(f"transformer-{name}" for name in SCHEDULES)):
        make_weights(plan, name, 1)
    assert str(plan.weights) in study(plan)[0]


def test_training_and_sampling_go_without_the_packages_of_evaluation():
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EVALUATION_ONLY!r}))
import benchmarks.sampling, benchmarks.training, benchmarks.gpu_run
import eval.evaluate, experiments.sampler.worker, maskgit.training.commands, slurm.submit
import experiments.studies.ablate_schedule.compute, experiments.studies.class_conditional.compute
import experiments.studies.reconstruction.compute
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_dry_run_goes_through_all_phases(tmp_path):
    words = ["all", "--deadline", "1200", "--dry-run-cpu", "--out", tmp_path / "out"]
    command = [sys.executable, "benchmarks/gpu_run.py", *words, "--work", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out/gpu_run.json").read_text())
    assert {row["name"]: row["state"] for row in found["rows"]} == dict.fromkeys(PHASES, "done")
    assert found["cells"] > 0
    assert {"tokenizer", "autoregressive", "transformer-cubic"} <= set(found["cards"])
    for name in ("sampling.json", "training.json", "weights-1.tar", "grids.tar.gz", "gpu_run.log"):
        assert (tmp_path / "out" / name).stat().st_size > 0
