"""Training as a job of several processes: requeued, it has the losses of one that was not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskgit.common.errors import UsageError
from maskgit.training.__main__ import refuse_slurm
from slurm import train
from slurm.profile import load_profile
from tests.slurm.slurm_doubles import wait_for
from tests.slurm.test_faults_jobs import hurry

ZOO = Path(__file__).parents[2] / "maskgit" / "zoo"
STEPS = 24


@pytest.fixture
def tokens(tmp_path):
    """Tokens of forty images that nobody drew."""
    from maskgit.checkpoints import weights_sha256
    from maskgit.training.tokens import save_tokens

    draw = np.random.default_rng(0)
    for name, images in (("train", 40), ("val", 8)):
        tokens = draw.integers(0, 256, (images, 64)).astype(np.uint16)
        sha256 = weights_sha256(ZOO / "tokenizer")
        save_tokens(tmp_path / f"{name}.npz", tokens, np.arange(images) % 10, sha256)
    return tmp_path


def start(code, folder, name):
    """A training of two processes on one node, whose log and checkpoint are in folder/name."""
    flags = "transformer --preset embedded --tokens train.npz --val-tokens val.npz --batch-size 8"
    words = [*flags.split(), "--steps", STEPS, "--checkpoint-every", 4, "--log-every", 1]
    words += ["--tokenizer", ZOO / "tokenizer", "--runs", name, "--out", f"{name}/out"]
    settings = ["tasks_per_node=2", "mem=3G", "time=10", "cpus=1"]
    command = [sys.executable, "-m", "slurm.train", "--slurm", "local", "--runs", name]
    command += [word for setting in settings for word in ("--slurm-set", setting)]
    command = [*command, "--", *words]
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (submission,) = (folder / name / "slurm").iterdir()
    return train.load_submission(submission)


def losses(folder):
    """Loss of every step, the last that was written of each."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    (folder,) = folder.glob("embedded/*/tensorboard")
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(file)).Reload()
        if "loss" in events.Tags()["scalars"]:  # else killed before its first checkpoint
            found |= {event.step: event.value for event in events.Scalars("loss")}
    return found


@pytest.mark.slurm
@pytest.mark.slow
def test_a_requeued_training_has_the_losses_of_one_that_was_not(on_cluster, code, tokens):
    import torch

    whole = start(code, tokens, "whole")
    wait_for(lambda: train.status_line(whole)[0] == "ended", 240, on_cluster)
    torn = start(code, tokens, "torn")
    wait_for(lambda: list(tokens.glob("torn/embedded/*/checkpoint.pt")), 240, on_cluster)
    on_cluster.run("scontrol", "requeue", torn.job)
    wait_for(lambda: train.status_line(torn)[0] == "requeued", 60, on_cluster)
    wait_for(lambda: hurry(on_cluster) or train.status_line(torn)[0] == "ended", 240, on_cluster)
    assert train.wait(torn) == 0
    assert torn.state(0)["attempt"] == 2
    assert "try 2" in train.status_line(torn)[1]
    expected, found = losses(tokens / "whole"), losses(tokens / "torn")
    assert sorted(found) == list(range(1, STEPS + 1))
    assert found == expected
    assert len(set(found.values())) == STEPS
    one, two = (
        torch.load(next(tokens.glob(f"{name}/embedded/*/checkpoint.pt")), weights_only=True)
        for name in ("whole", "torn")
    )
    assert all(torch.equal(value, two["average"][name]) for name, value in one["average"].items())
    assert (tokens / "torn" / "out" / "card.json").is_file()
    # Two processes shared each batch: the log of the second is there too.
    assert list(torn.folder.glob("*_1_log.err"))


@pytest.mark.slurm
@pytest.mark.slow
def test_a_training_that_cannot_begin_says_why(on_cluster, code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["transformer", "--preset", "embedded", "--tokens", "none.npz", "--runs", "runs"]
    submission = train.submit_training(words, load_profile("local"), tmp_path / "runs")
    assert train.wait(submission, every=0.5) == 1
    assert "broken" in capsys.readouterr().err
    assert "runs/weights/tokenizer: no such file" in submission.log(0).read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--profile", "a100x8"], "no command: expected -- and one of tokenizer"),
        (["--profile", "a100x8", "--", "transforme"], "transforme: expected"),
        (["--profile", "a100x9", "--", "transformer"], "--slurm a100x9: expected one of"),
        (["--profile", "cpu", "--set", "tasks_per_node=0", "--", "transformer"], "at least 1"),
    ],
)
def test_mistakes_are_one_line(arguments, says, capsys):
    assert train.main(arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_dry_run_says_what_would_be_asked_for(capsys):
    words = ["--profile", "a100x8", "--set", "nodes=4", "--dry-run", "--", "transformer"]
    assert train.main(words) == 0
    said = "32 processes on 4 nodes, 1 GPUs and 8 CPUs each, 480G a node, time limit 24:00:00\n"
    assert capsys.readouterr().out == said


def test_the_processes_know_each_other(monkeypatch):
    for name, value in (
        ("SUBMITIT_EXECUTOR", "slurm"),
        ("SLURM_JOB_ID", "7"),
        ("SLURM_JOB_NODELIST", "gpu[3-4]"),
        ("SLURM_JOB_NUM_NODES", "2"),
        ("SLURM_NTASKS", "16"),
        ("SLURM_NODEID", "1"),
        ("SLURM_PROCID", "9"),
        ("SLURM_LOCALID", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(train, "address_of", lambda node: f"{node}.cluster")
    found = train.distributed_environment()
    port = int(found.pop("MASTER_PORT"))
    assert 20000 <= port <= 60000
    assert found == {
        "RANK": "9",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "gpu3.cluster",
    }
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    assert train.distributed_environment()["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("transformer --slurm", "--slurm PROFILE -- transformer`"),
        ("transformer --slurm --steps 3", "--slurm PROFILE -- transformer --steps 3`"),
        ("transformer --slurm-set nodes=2", "--slurm PROFILE --slurm-set nodes=2 -- transformer`"),
        ("tokenizer --slurm=local", "`python -m slurm.train --slurm local -- tokenizer`"),
    ],
)
def test_slurm_is_one_line_in_maskgit_training(arguments, says, tmp_path):
    command = [sys.executable, "-m", "maskgit.training", *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_training_names_the_command_that_submits_it():
    words = "transformer --slurm a100x8 --runs r --steps=3 --slurm-set=nodes=4 --slurm-set mem=9G"
    with pytest.raises(UsageError) as caught:
        refuse_slurm(words.split())
    assert (
        "`python -m slurm.train --slurm a100x8 --slurm-set nodes=4 --slurm-set mem=9G --runs r "
        "-- transformer --runs r --steps=3`"
    ) in str(caught.value)
    refuse_slurm(["transformer", "--runs", "r", "--steps=3"])
