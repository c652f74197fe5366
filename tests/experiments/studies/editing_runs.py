"""What the tests of the editing studies share: small networks, scripts run in this process."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest


def with_baseline(weights, folder):
    """The fixture `weights` and an autoregressive baseline as small, as --weights takes them."""
    import shutil

    import torch

    from maskgit.checkpoints import save_model
    from maskgit.model.config import TransformerConfig
    from maskgit.sampling.autoregressive import Autoregressive

    shutil.copytree(weights, folder, dirs_exist_ok=True)
    torch.manual_seed(1)
    sizes = TransformerConfig(
        num_codes=512, num_classes=10, num_tokens=64, width=16, layers=1, heads=2, mlp=16,
        dropout=0.0,
    )  # fmt: skip
    save_model(folder / "autoregressive", Autoregressive(sizes))
    return folder


def run_script(monkeypatch, capsys, module, *flags):
    """(exit code, stdout, stderr) of an experiment's script."""
    # Test processes share the cores: two threads each would wait for one another.
    monkeypatch.setattr("experiments.sampler.worker.worker_threads", lambda workers: 1)
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        module.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def cells_of(folder):
    """[(cell, result, arrays)] of a run, in the grid's order."""
    found = []
    for item in json.loads((folder / "grid.json").read_text())["cells"]:
        place = folder / "cells" / item["key"]
        result = json.loads((place / "result.json").read_text())
        arrays = {}
        if (place / "samples.npz").exists():
            with np.load(place / "samples.npz") as stored:
                arrays = dict(stored)
        found.append((item["cell"], result, arrays))
    return found


def report_of(folder):
    """File -> bytes of a run's report."""
    return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}


def embedded_context():
    """What `fill` and the like ask of a worker, with the shipped networks."""
    from maskgit.checkpoints import (
        load_autoregressive,
        load_tokenizer,
        load_transformer,
        zoo_path,
    )
    from maskgit.presets import get_preset

    return SimpleNamespace(
        preset=get_preset("embedded"),
        device="cpu",
        transformer=load_transformer(zoo_path("transformer-cosine"), num_codes=512).eval(),
        tokenizer=load_tokenizer(zoo_path("tokenizer")).eval(),
        autoregressive=load_autoregressive(zoo_path("autoregressive")).eval(),
    )
