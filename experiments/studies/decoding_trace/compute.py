"""Figure 2: what is known after every iteration, MaskGIT beside the autoregressive baseline.

A cell is one sampler. Its arrays hold, for a few classes, the masks and the images decoded from the
sample of every iteration (MaskGIT predicts all tokens in each), or from the tokens so far (the
baseline has no more); its metrics count the tokens still unknown.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from experiments.engine.cells import Outcome
from experiments.engine.own_metrics import entries, own_metric
from experiments.sampler.worker import Worker

METRICS = (
    own_metric("trace", "iterations", "Iterations", 0, "lower"),
    own_metric("trace", "half", "Iterations until half is known", 0, "lower"),
)
# Most frames kept of the baseline, evenly spread, the last among them; fewer of large images.
FRAMES, FEWEST = 64, 16
FRAME_PIXELS = 2**22  # of all frames


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """One sampler's trace: cell has sampler, steps, seed and classes."""
    labels, preset = np.array(cell["classes"], np.int64), worker.preset
    trace = worker.draw(worker.settings(cell, cell["sampler"]), labels, trace=True)
    unknown = trace.masked.sum(dim=2)[:, 0].cpu().numpy()
    unknown[-1] = 0  # the image is the last sample, with nothing masked
    iterations = len(unknown)
    most = FRAME_PIXELS // (len(labels) * math.prod(preset.size))
    frames = min(iterations, max(FEWEST, min(FRAMES, most)))
    kept = np.unique(np.linspace(0, iterations - 1, frames).round().astype(int))
    tokens = trace.tokens[kept].cpu().numpy()
    masked = trace.masked[kept].cpu().numpy()
    masked[-1] = False
    # A token that the baseline has not drawn yet is shown grey; any code stands in for it here.
    flat = np.where(tokens >= preset.num_codes, 0, tokens).reshape(-1, tokens.shape[2])
    images = worker.images(flat)
    half = float(1 + np.argmax(unknown <= preset.num_tokens / 2))
    return Outcome(
        metrics=entries(METRICS, {"iterations": float(iterations), "half": half}),
        protocol={"seed": cell["seed"]},
        arrays={
            "images": images.reshape(*tokens.shape[:2], *images.shape[1:]),
            "masked": masked.reshape(*tokens.shape[:2], *preset.grid),
            "iterations": (kept + 1).astype(np.int64),
            "unknown": unknown.astype(np.int64),
        },
    )
