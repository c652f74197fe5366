"""A cell's samples in blocks: growing draws what is new, a kill loses a block, numbers stay."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from experiments.engine.cells import Sampling
from experiments.engine.check import IN_RUN
from experiments.sampler.samples import labels_of
from experiments.sampler.worker import Worker
from maskgit.presets import NAMES, load_preset
from tests.paths import ROOT

FLAGS = ("--T", "2", "--schedules", "cosine", "--metrics", "fid,is,precision,kid")


@pytest.fixture
def drawn(monkeypatch):
    """Numbers of the samples that were drawn, in order."""
    ids, real = [], Worker.sample

    def sample(self, settings, numbers=None):
        ids.extend(range(settings.num_samples) if numbers is None else numbers.tolist())
        return real(self, settings, numbers)

    monkeypatch.setattr(Worker, "sample", sample)
    return ids


def metrics(folder):
    found = [json.loads(path.read_text()) for path in folder.glob("cells/*/result.json")]
    return {result["cell"]["num_samples"]: result["metrics"] for result in found}


def test_more_samples_draw_those_that_are_new_and_fewer_draw_none(run, tmp_path, drawn):
    for count, new in ((130, range(130)), (250, range(130, 250)), (70, ())):
        drawn.clear()
        code, _, err = run(*FLAGS, "--num-samples", count)
        assert code == 0, err
        assert drawn == list(new)
    drawn.clear()
    code, out, _ = run(*FLAGS, "--num-samples", 330, "--dry-run")
    assert code == 0
    assert f"\n{30 * 2} transformer forwards" in out  # of the block that has no file yet
    grown = metrics(tmp_path / "run")
    for count in (130, 250, 70):
        out = tmp_path / str(count)
        assert run(*FLAGS, "--num-samples", count, out=out)[0] == 0
        assert metrics(out)[count] == grown[count]


def test_a_damaged_block_is_made_again_alone(run, tmp_path, drawn, capsys):
    assert run(*FLAGS, "--num-samples", 300)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.np?")}
    (tokens,) = (tmp_path / "run/stages/tokens").glob("*/00001.npy")
    (features,) = (tmp_path / "run/stages/features").glob("*/00001.npz")
    for path in (tokens, features):
        held = bytearray(path.read_bytes())
        held[len(held) // 2] ^= 1
        path.write_bytes(held)
    drawn.clear()
    code, _, err = run(*FLAGS[:-1], "fid", "--num-samples", 300)
    assert code == 0, err
    assert drawn == list(range(100, 200))
    assert err.count("is damaged; it is made again") == 2
    assert {path: path.read_bytes() for path in before} == before


def test_a_block_of_every_preset_holds_each_class_equally_often():
    for name in NAMES:
        preset = load_preset(name)
        counts = Counter(labels_of(preset.block, preset.num_classes).tolist())
        assert len(counts) == preset.num_classes
        assert len(set(counts.values())) == 1
    assert load_preset("embedded").block == 100


@pytest.mark.parametrize(
    "sampler", ["torch", "autoregressive", pytest.param("jax", marks=pytest.mark.jax)]
)
def test_a_sample_does_not_depend_on_the_block_it_is_drawn_in(sampler):
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
    for ids in np.split(np.arange(12), (5, 10)):
        assert np.array_equal(draw(model, settings, labels[ids], sample_ids=ids), whole[ids])


# On one core: two processes of two threads each, on two cores, spend their time waiting.
SWEEP = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from experiments.sampler import worker
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
    script, preset = tmp_path / "sweep.py", tmp_path / "ten.toml"
    script.write_text(SWEEP)
    preset.write_text('base = "embedded"\n[evaluation]\nblock = 10\n')

    def start(out, *flags):
        command = [
            sys.executable,
            script,
            "--preset",
            preset,
            "--T",
            "8",
            "--schedules",
            "cosine",
            "--workers",
            "0",
        ]
        command += ["--num-samples", "80", "--metrics", "fid", "--out", tmp_path / out, *flags]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    killed = start("killed")
    stages = tmp_path / "killed" / "stages"
    deadline = time.monotonic() + 120
    while len(list(stages.glob("features/*/*.npz"))) < 2:
        assert time.monotonic() < deadline
        assert killed.poll() is None, "the cell ended before the kill"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    kept = len(list(stages.glob("tokens/*/*.npy")))
    counts = [
        start(out).communicate(timeout=200)[0].count("sampled") for out in ("killed", "whole")
    ]
    assert counts == [8 - kept, 8]
    for name in ("stages/*/*/*.np?", "cells/*/result.json", "report/report.md"):
        one, other = (
            {p.relative_to(tmp_path / out): p.read_bytes() for p in (tmp_path / out).glob(name)}
            for out in ("killed", "whole")
        )
        assert one == other
    assert {p.name for p in (tmp_path / "whole").iterdir()} <= IN_RUN | {"report.lease"}
