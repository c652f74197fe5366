"""Small networks, the baseline among them, and a study's script run in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from experiments.engine import command
from experiments.studies.registry import get_experiment
from maskgit.common.cli import parse


def with_baseline(weights: Path, folder: Path) -> Path:
    """A copy of the conftest's weights with an autoregressive baseline."""
    import torch

    from maskgit.checkpoints import save_model
    from maskgit.model.config import TransformerConfig
    from maskgit.sampling.autoregressive import Autoregressive

    shutil.copytree(weights, folder)
    torch.manual_seed(1)
    sizes = TransformerConfig(
        num_codes=512, num_classes=10, num_tokens=64, width=16, layers=1, heads=2, mlp=16,
        dropout=0.0,
    )  # fmt: skip
    save_model(folder / "autoregressive", Autoregressive(sizes), card={"name": "baseline"})
    return folder


def call(name: str, *flags: Any, out: Path, weights: Path | None = None) -> int:
    """experiments/NAME.py with these flags, --workers 0 and a shared --stages; its exit code."""
    kind = get_experiment(name).options
    words = [*map(str, flags), "--out", str(out), "--workers", "0"]
    if hasattr(kind, "stages"):
        words += ["--stages", str(out.parent)]
    words += ["--weights", str(weights)] if weights else []
    return command.run(name, parse(kind, words, name, ""))


def results(out: Path) -> list[dict[str, Any]]:
    """Every result.json of a run."""
    found = sorted((out / "cells").glob("*/result.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


def value(result: dict[str, Any], name: str) -> float:
    """A metric of a result."""
    return result["metrics"][name]["value"]
