"""First stage of an autoregressive cell: one token after the other, in raster order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from experiments.engine.cells import Sampling
from experiments.sampler.samples import labels_of
from maskgit import checkpoints
from maskgit.sampling.autoregressive import compile_positions, generate_autoregressive

if TYPE_CHECKING:
    from maskgit.sampling.autoregressive import Autoregressive


def load(path: Path, num_codes: int, device: str, settings: Sampling) -> Autoregressive:
    """The baseline's network of a folder, ready to sample with these settings."""
    model = checkpoints.load_autoregressive(path)
    model = model.to(device=device, dtype=getattr(torch, settings.precision)).eval()
    return compile_positions(model, settings.mode)


def sample_tokens(
    model: Autoregressive,
    settings: Sampling,
    batch_size: int | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Tokens of a cell's samples, uint16 (n, N); arguments as for `sampling.sample_tokens`."""
    ids = np.arange(settings.num_samples) if ids is None else ids
    labels = labels_of(settings.num_samples, model.config.num_classes)[ids]
    device = next(model.parameters()).device
    with torch.inference_mode():
        tokens = generate_autoregressive(
            model,
            torch.from_numpy(labels).to(device),
            sample_ids=torch.from_numpy(ids).to(device),
            sampling_temperature=settings.sampling_temperature,
            seed=settings.seed,
            batch_size=batch_size,
        )
    return tokens.cpu().numpy().astype(np.uint16)
