"""What a user can get wrong: one line on stderr that says what is accepted, and exit code 2."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import ablate_schedule
from experiments.studies.ablate_schedule.experiment import Options

SCRIPT = Path(ablate_schedule.__file__)
GRID = ("--T", "2,4", "--schedules", "cosine,linear", "--num-samples", "21")


# ---- mistakes ------------------------------------------------------------------------------------

WRONG = {
    ("--T", "0"): "at least 1",
    ("--T", "9..4"): "goes down",
    ("--T", "x"): "'x'",
    ("--T", ""): "--T",
    ("--T", "4..600"): "at most 256",
    ("--schedules", "cosin"): "did you mean cosine",
    ("--num-samples", "-1"): "at least 1",
    ("--num-samples", "0"): "at least 1",
    ("--num-samples", "many"): "whole number",
    ("--num-samples",): "needs a value",
    ("--num-samples", "--dry-run"): "needs a value",
    ("--seeds", "-1"): "--seeds",
    ("--seeds", "4294967296"): "at most",
    ("--choice-temperature", "hot"): "a number",
    ("--choice-temperature", "nan"): "finite",
    ("--choice-temperature=-1",): "0 or more",
    ("--preset", "imagine"): "embedded",
    ("--metrics", "fdi"): "did you mean fid",
    ("--workers", "-2"): "at least 0",
    ("--batch-size", "0"): "at least 1",
    ("--device", "tpu"): "expected auto",
    ("--weights", "/nowhere"): "no such folder",
    ("--dry-run=yes",): "takes no value",
    ("--num-sample", "4"): "did you mean --num-samples",
    ("--zzz",): "no such flag",
    ("4..60",): "see --help",
}  # fmt: skip


@pytest.mark.parametrize(("words", "says"), WRONG.items(), ids=" ".join)
def test_every_mistake_is_one_line_and_exit_2_before_any_work(run, tmp_path, words, says):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert words[0].split("=")[0] in err
    assert says in err
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_one_line(run):
    import torch

    device = "cuda" if not torch.cuda.is_available() else "cuda:99"
    code, _, err = run("--device", device)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert f"--device {device}" in err


def test_out_on_a_file_or_below_one_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        code, _, err = run(*GRID, out=out)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert f"--out {out}" in err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_report_folder_with_other_files_is_refused_before_the_work(run, tmp_path):
    (tmp_path / "run" / "report").mkdir(parents=True)
    (tmp_path / "run" / "report" / "thesis.tex").write_text("precious")
    code, _, err = run(*GRID)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "thesis.tex" in err
    assert not (tmp_path / "run" / "cells").exists()


def test_only_report_without_a_run_is_one_line(run):
    code, _, err = run("--only-report")
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "grid.json" in err


@pytest.mark.parametrize("name", ["tokenizer", "transformer-linear"])
def test_truncated_weights_are_one_line_before_any_work(run, tmp_path, weights, name):
    copy = tmp_path / "copy"
    shutil.copytree(weights, copy)
    file = copy / name / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    code, _, err = run(*GRID, "--weights", copy)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert str(file) in err
    assert not (tmp_path / "run").exists()


def test_a_missing_network_is_one_line(run, weights):
    code, _, err = run("--T", "2", "--schedules", "cubic")
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "has no transformer-cubic" in err


def test_a_network_of_another_benchmark_is_one_line(run, tmp_path, weights):
    from maskgit.checkpoints import save_model
    from maskgit.model.config import TransformerConfig
    from maskgit.model.transformer import Transformer

    copy = tmp_path / "copy"
    shutil.copytree(weights, copy)
    sizes = TransformerConfig(512, 10, 256, width=16, layers=1, heads=2, mlp=16)
    save_model(copy / "transformer-linear", Transformer(sizes))
    code, _, err = run(*GRID, "--weights", copy)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "256 tokens, --preset embedded has 64" in err


# ---- the script as a process ---------------------------------------------------------------------


def spawn(*words, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, **options
    )


def test_without_the_install_one_line_says_what_to_do(tmp_path):
    # -S leaves out site-packages, and with it our packages and tyro.
    done = spawn("-S", SCRIPT, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "run make demo or pip install -e ." in done.stderr


def test_help_answers_within_a_second_from_anywhere(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = spawn("-m", "experiments.ablate_schedule", "--help", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    for flag in ("--T", "--schedules", "--num-samples", "--only-report", "--dry-run"):
        assert flag in done.stdout
    # Time of the processor, not of the clock: the machine may be busy.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_the_default_folders_lie_at_the_root_of_the_repository(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    options = Options()
    assert options.folders("ablate_schedule") == (
        tmp_path / "runs" / "ablate_schedule",
        tmp_path / "reports" / "out" / "ablate_schedule",
    )
    given = Options(out=Path("x"))
    assert given.folders("ablate_schedule")[1] == tmp_path / "a" / "b" / "x" / "report"
