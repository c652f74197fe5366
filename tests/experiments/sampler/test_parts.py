"""Tokens in parts: the same tokens as at once, and a kill in the middle loses one part at most."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.engine.cells import Sampling
from experiments.engine.check import IN_RUN
from experiments.engine.store.stages import Stages
from experiments.sampler.samples import labels_of, sample_parts
from tests.paths import ROOT

PARTS = [np.array([0, 3, 6]), np.array([1, 4, 7]), np.array([2, 5])]


def make(ids):
    return np.stack([ids, 10 * ids]).T.astype(np.uint16)


def test_parts_are_put_together_in_the_order_of_the_samples(tmp_path):
    tokens = Stages(tmp_path).tokens_in_parts("k", PARTS, make)
    assert np.array_equal(tokens, make(np.arange(8)))
    assert [p.name for p in (tmp_path / "stages/tokens").iterdir()] == ["k.npy"]


def test_what_was_kept_is_not_made_again(tmp_path):
    made = []

    def dies(ids):
        if len(made) == 2:
            raise RuntimeError("killed")
        made.append(len(ids))
        return make(ids)

    with pytest.raises(RuntimeError):
        Stages(tmp_path).tokens_in_parts("k", PARTS, dies)
    assert len(list((tmp_path / "stages/tokens/k.parts").iterdir())) == 2
    made[:] = [None]
    tokens = Stages(tmp_path).tokens_in_parts("k", PARTS, dies)
    assert made == [None, 2]
    assert np.array_equal(tokens, make(np.arange(8)))


def test_a_damaged_part_and_parts_of_other_samples_are_not_taken(tmp_path, capsys):
    folder = tmp_path / "stages/tokens/k.parts"
    stages = Stages(tmp_path)

    def dies(ids):
        if len(ids) == 2:
            raise RuntimeError
        return make(ids)

    with pytest.raises(RuntimeError):
        stages.tokens_in_parts("k", PARTS, dies)
    first = min(folder.iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    # Another version cut the samples differently, into parts of the same lengths.
    others = [np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([6, 7])]
    assert np.array_equal(stages.tokens_in_parts("k", others, make), make(np.arange(8)))
    assert capsys.readouterr().err == ""
    folder.mkdir()
    first.write_bytes(b"")
    stages.tokens_in_parts("l", PARTS, make)
    (tmp_path / "stages/tokens/k.npy").unlink()
    assert np.array_equal(stages.tokens_in_parts("k", PARTS, make), make(np.arange(8)))
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "classes", "size"), [(50, 10, 7), (5, 10, 2), (1000, 1, 999)])
def test_every_sample_is_in_one_part_and_classes_stand_together(count, classes, size):
    parts = sample_parts(count, classes, size)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert {len(part) for part in parts[:-1]} <= {size}
    labels = labels_of(count, classes)[np.concatenate(parts)]
    assert np.array_equal(labels, np.sort(labels))


@pytest.mark.parametrize(
    "sampler", ["torch", "autoregressive", pytest.param("jax", marks=pytest.mark.jax)]
)
def test_a_sample_does_not_depend_on_the_part_it_is_in(sampler):
    import torch

    from maskgit.model.config import TransformerConfig
    from maskgit.model.transformer import Transformer

    config = TransformerConfig(
        num_codes=16, num_classes=4, num_tokens=9, width=32, layers=2, heads=2, mlp=64
    )
    torch.manual_seed(0)
    settings = Sampling("any", "cosine", 3, 5, 12, 4.5)
    if sampler == "autoregressive":
        from experiments.sampler.sampling_autoregressive import draw
        from maskgit.sampling.autoregressive import Autoregressive

        model = Autoregressive(config).eval()
    else:
        model = Transformer(config).eval()
        from experiments.sampler.sampling import draw
    if sampler == "jax":
        pytest.importorskip("jax")
        from experiments.sampler.sampling_jax import draw
        from maskgit.jax.transformer import from_torch

        model = from_torch(model)
    labels = labels_of(12, 4)
    whole = np.asarray(draw(model, settings, labels))
    assert len(np.unique(whole, axis=0)) == 12
    for ids in sample_parts(12, 4, 5):
        assert np.array_equal(draw(model, settings, labels[ids], sample_ids=ids), whole[ids])


# On one core: two processes of two threads each, on two cores, spend their time waiting.
SWEEP = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from experiments.sampler import samples, worker
samples.PART = 10
real = worker.Worker.sample
def counted(self, cell, *ids):
    print("sampled", flush=True)
    return real(self, cell, *ids)
worker.Worker.sample = counted
from experiments import ablate_schedule
ablate_schedule.main()
"""


@pytest.mark.slow
def test_a_killed_sweep_goes_on_in_the_middle_of_a_cell(tmp_path):
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)

    def start(out, *flags):
        command = [sys.executable, script, "--T", "8", "--schedules", "cosine", "--workers", "0"]
        command += ["--num-samples", "80", "--metrics", "fid", "--out", tmp_path / out, *flags]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    killed = start("killed")
    tokens = tmp_path / "killed" / "stages" / "tokens"
    deadline = time.monotonic() + 120
    while len(list(tokens.glob("*.parts/*.npy"))) < 2:
        assert time.monotonic() < deadline
        assert killed.poll() is None, "the cell ended before the kill"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    kept = len(list(tokens.glob("*.parts/*.npy")))
    counts = [
        start(out).communicate(timeout=200)[0].count("sampled") for out in ("killed", "whole")
    ]
    assert counts == [8 - kept, 8]
    assert [p.name for p in tokens.iterdir()] == [
        p.name for p in (tmp_path / "whole/stages/tokens").iterdir()
    ]
    for name in ("stages/tokens/*.npy", "cells/*/result.json", "report/report.md"):
        (one,), (other,) = ((tmp_path / out).glob(name) for out in ("killed", "whole"))
        assert one.read_bytes() == other.read_bytes()
    assert {p.name for p in (tmp_path / "whole").iterdir()} <= IN_RUN | {"report.lease"}
