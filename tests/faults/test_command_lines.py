"""Wrong command lines of every command: one line of error, exit code 2, before any work."""

import contextlib
import importlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.faults.abuse import damaged, fault, report, run_command
from tests.faults.test_store import compute
from tests.paths import ROOT

SWEEP = ["--dry-run", "--workers", "0", "--device", "cpu"]
# Module -> words of a right and cheap request; what is tried comes after them.
EXPERIMENTS = {
    f"experiments.{name}": SWEEP
    for name in (
        "ablate_schedule", "class_conditional", "decoding_trace", "diversity", "editing",
        "failure_cases", "panorama", "reconstruction", "rejection_sampling", "reproduce", "runtime",
    )
}  # fmt: skip
PLAIN = {
    "maskgit.__main__": ["sample", "--output", "x.png", "--steps", "1", "--device", "cpu"],
    "maskgit.training.__main__": ["tokenizer", "--data", "nowhere", "--steps", "1"],
    "maskgit.checkpoints.__main__": ["inspect", "nowhere"],
    "eval.__main__": ["nowhere"],
    "eval.reference.__main__": ["list"],
    "eval.weights.__main__": ["list"],
    "eval.cas.__main__": ["nowhere"],
    "experiments.engine.check": ["nowhere"],
    "slurm.status": ["nowhere"],
    "reports.build": ["nowhere"],
    "reports.index": ["nowhere", "--out", "x"],
}
COMMANDS = EXPERIMENTS | PLAIN


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every command starts in a folder of its own; a mistake costs nothing there."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def refusal(module, words, monkeypatch, capsys, seconds=20.0):
    """What is wrong with how a command refuses these words, in this process; "" for nothing."""
    monkeypatch.setattr(sys, "argv", [module, *words])
    sys.stderr.reconfigure(errors="backslashreplace")  # as the real one has it
    ended = []

    def call():
        try:
            ended.append(importlib.import_module(module).main())
        except SystemExit as left:
            ended.append(left.code)

    what = fault(call, (), seconds=seconds, memory=64 << 30)
    said = capsys.readouterr()
    if what:
        return what
    if ended[0] != 2:
        return f"exit code {ended[0]}: {said.err.strip()[-100:]!r}"
    if (lines := said.err.count("\n")) != 1:
        return f"{lines} lines of error: {said.err.strip()[:100]!r}"
    return "" if said.out == "" else "something on stdout"


def refused_everywhere(cases, monkeypatch, capsys):
    """Check (module, words) of every case."""
    wrong = {}
    for module, words in cases:
        shown = f"{module} {' '.join(word[:30] for word in words[-2:])}"
        if what := refusal(module, words, monkeypatch, capsys):
            wrong[shown] = what
    report(wrong, len(cases))


@pytest.mark.parametrize("commands", ["experiments", "plain"])
@pytest.mark.parametrize("words", [["--nonsense"], ["--nonsense", "1"], ["--nonsense=1"]])
def test_a_flag_that_there_is_not(commands, words, monkeypatch, capsys):
    chosen = EXPERIMENTS if commands == "experiments" else PLAIN
    refused_everywhere([(m, [*base, *words]) for m, base in chosen.items()], monkeypatch, capsys)


@pytest.mark.parametrize("commands", ["experiments", "plain"])
def test_a_flag_without_its_value(commands, monkeypatch, capsys):
    flags = {
        "maskgit.__main__": "--seed", "maskgit.training.__main__": "--seed",
        "maskgit.checkpoints.__main__": "--num-codes", "eval.__main__": "--features",
        "eval.cas.__main__": "--out", "slurm.status": "--every",
        "reports.build": "--out", "reports.index": "--out",
    }  # fmt: skip
    if commands == "experiments":
        flags = dict.fromkeys(EXPERIMENTS, "--out")
    cases = [(module, [*COMMANDS[module], flag]) for module, flag in flags.items()]
    refused_everywhere(cases, monkeypatch, capsys)


NUMBERS = [
    ("experiments.ablate_schedule", "--num-samples"), ("experiments.runtime", "--num-samples"),
    ("experiments.ablate_schedule", "--batch-size"), ("experiments.ablate_schedule", "--seeds"),
    ("experiments.ablate_schedule", "--T"), ("experiments.class_conditional", "--seeds"),
    ("maskgit.__main__", "--num"), ("maskgit.__main__", "--seed"), ("maskgit.__main__", "--steps"),
    ("maskgit.training.__main__", "--steps"), ("maskgit.training.__main__", "--threads"),
    ("maskgit.training.__main__", "--batch-size"), ("maskgit.training.__main__", "--workers"),
    ("eval.__main__", "--num-images"), ("eval.__main__", "--k"),
]  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    """A folder of twenty pictures that eval measures in a moment."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        Image.fromarray(np.full((32, 32), 10 * number, np.uint8)).save(folder / f"{number}.png")
    words = ["--metrics", "is", "--features", "fashion-resnet", "--device", "cpu"]
    return [str(folder), *words]


@pytest.mark.slow
@pytest.mark.parametrize("value", ["1" * 5000, "-1", "10" + "0" * 17, "x", "1e400", "nan", ""])
def test_a_number_that_is_none_or_too_large(value, monkeypatch, capsys, pictures):
    words = {**COMMANDS, "eval.__main__": pictures}
    cases = [(module, [*words[module], flag, value]) for module, flag in NUMBERS]
    if value == "10" + "0" * 17:  # a right seed, and a right upper bound of splits
        cases = [case for case in cases if case[1][-2] in ("--num-samples", "--num-images", "--T")]
    refused_everywhere(cases, monkeypatch, capsys)


FRACTIONS = [
    ("experiments.ablate_schedule", "--choice-temperature"),
    ("experiments.class_conditional", "--choice-temperature"),
    ("maskgit.__main__", "--choice-temperature"),
    ("maskgit.training.__main__", "--learning-rate"),
    ("maskgit.training.__main__", "--epochs"),
]


@pytest.mark.parametrize("value", ["-inf", "-1", "nan", "inf"])
def test_a_fraction_that_is_not_finite(value, monkeypatch, capsys):
    cases = [(module, [*COMMANDS[module], f"{flag}={value}"]) for module, flag in FRACTIONS]
    dropped = ("--steps", "1", "--data", "nowhere")  # so that it comes to the training's numbers
    cases = [(m, [word for word in words if word not in dropped]) for m, words in cases]
    refused_everywhere(cases, monkeypatch, capsys)


PATHS = [
    *((module, "--out") for module in EXPERIMENTS),
    ("experiments.ablate_schedule", "--weights"), ("experiments.ablate_schedule", "--data"),
    ("experiments.ablate_schedule", "--stages"), ("experiments.ablate_schedule", "--slurm"),
    ("maskgit.__main__", "--output"), ("maskgit.__main__", "--weights"),
    ("maskgit.training.__main__", "--data"), ("maskgit.training.__main__", "--runs"),
    ("maskgit.training.__main__", "--out"), ("eval.__main__", "--reference"),
    ("eval.__main__", "--feature-weights"), ("eval.cas.__main__", "--out"),
    ("reports.build", "--out"), ("reports.index", "--out"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("value", ["", "x" * 5000], ids=["empty", "long"])
def test_a_path_that_cannot_be(value, monkeypatch, capsys, pictures):
    words = {**COMMANDS, "eval.__main__": [*pictures, "--metrics", "fid"]}
    words["experiments.ablate_schedule"] = [*SWEEP, "--T", "4", "--schedules", "cosine"]
    cases = [(module, [*words[module], f"{flag}={value}"]) for module, flag in PATHS]
    refused_everywhere(cases, monkeypatch, capsys)


POSITIONAL = ["experiments.engine.check", "slurm.status", "reports.build", "eval.__main__"]


def test_a_folder_that_cannot_be(monkeypatch, capsys, tmp_path):
    compute(tmp_path / "here")  # the current folder is a run, so that an empty path would do
    values = ["", "x" * 5000, os.fsdecode(b"\xff\xfe")]
    cases = [(module, [value]) for module in POSITIONAL for value in values]
    refused_everywhere(cases, monkeypatch, capsys)


@pytest.mark.parametrize("flag", ["--preset", "--device"])
def test_a_name_that_is_none(flag, monkeypatch, capsys):
    values = ["", "x" * 5000, os.fsdecode(b"\xff\xfe"), "../../x", "\x1b[31m", "a\nb"]
    chosen = ["experiments.ablate_schedule", "experiments.diversity", "maskgit.__main__"]
    cases = [(m, [*COMMANDS[m], f"{flag}={value}"]) for m in chosen for value in values]
    refused_everywhere(cases, monkeypatch, capsys)


# With real processes: no HOME, closed pipes, threads, a few drawn at random.


def nobody():
    """Words that make a command run as a user without a passwd entry, who may read everything."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become a user that does not exist, with setpriv")
    user = ["--reuid=12345", "--regid=12345", "--clear-groups"]
    return ["setpriv", *user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.mark.slow
def test_commands_run_without_a_home(tmp_path):
    compute(tmp_path / "run")
    commands = {
        "check": ["-m", "experiments.engine.check", tmp_path / "run"],
        "weights": ["-m", "eval.weights", "list"],
        "references": ["-m", "eval.reference", "list"],
        "eval": ["-m", "eval", "nowhere"],
        "sweep": ["experiments/ablate_schedule.py", "--T", "4", "--schedules", "cosine", *SWEEP],
        "training": ["-m", "maskgit.training", "tokenizer", "--data", "nowhere"],
    }
    wrong = {}
    for name, words in commands.items():
        ended = run_command(*words, prefix=nobody(), HOME=None, TORCHINDUCTOR_CACHE_DIR="/tmp/x")
        lines = 3 if name == "sweep" else 1
        if what := ended.fault(lines=lines):
            wrong[name] = what
    report(wrong, len(commands))


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_not_fatal(tmp_path, pictures):
    (tmp_path / "file").write_text("no folder")
    words = ["-m", "eval", *pictures, "--reference", pictures[0], "--metrics", "fid"]
    ended = run_command(*words, MASKGIT_BENCH_CACHE=str(tmp_path / "file" / "cache"))
    assert ended.fault(codes=(0,)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["experiments.engine.check", "eval.weights", "eval.reference"])
def test_a_closed_pipe_ends_quietly(tmp_path, module):
    compute(tmp_path / "run", 6)
    shutil.rmtree(tmp_path / "run" / "cells")
    words = [str(tmp_path / "run")] if module.endswith("check") else ["list"]
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", module, *words],
        stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(writing)
    assert "Traceback" not in process.stderr
    assert "Exception ignored" not in process.stderr


def test_workers_obey_omp_num_threads(monkeypatch, tmp_path):
    import torch

    from experiments.sampler.worker import Worker

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    torch.set_num_threads(2)
    Worker(None, tmp_path, asked_device="cpu").start(0, 1)
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_damaged_command_lines_are_refused_in_one_line(monkeypatch, capsys):
    """Right words with a letter changed, a word dropped, doubled or swapped."""
    cases = []
    for module, base in PLAIN.items():
        text = "\0".join([*base, "--seed", "1"]).encode()
        for _, changed in damaged(text, 24):
            words = [os.fsdecode(word) for word in changed.split(b"\0")]
            cases.append((module, words))
    wrong = {}
    for module, words in cases:
        what = refusal(module, words, monkeypatch, capsys)
        if what and not what.startswith("exit code 0") and "exit code None" not in what:
            wrong[f"{module} {words}"[:200]] = what
    with contextlib.suppress(FileNotFoundError):
        os.unlink("x.png")
    report(wrong, len(cases))
