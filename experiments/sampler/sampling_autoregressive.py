"""The autoregressive baseline's tokens: one after the other, in raster order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.engine.cells import Sampling
from maskgit import checkpoints
from maskgit.sampling.autoregressive import compile_positions, generate_autoregressive

if TYPE_CHECKING:
    from maskgit.sampling.autoregressive import Autoregressive


def load(path: Path, num_codes: int, device: str, settings: Sampling) -> Autoregressive:
    """The baseline's network of a folder, ready to sample with these settings."""
    model = checkpoints.load_autoregressive(path)
    model = model.to(device=device, dtype=getattr(torch, settings.precision)).eval()
    return compile_positions(model, settings.mode)


def draw(
    model: Autoregressive, settings: Sampling, labels: Any, start: int = 0, **more: Any
) -> Any:
    """As `sampling.draw`. start: of MaskGIT's iterations; means nothing here."""
    with torch.inference_mode():
        return generate_autoregressive(
            model,
            labels,
            sampling_temperature=settings.sampling_temperature,
            seed=settings.seed,
            **more,
        )
