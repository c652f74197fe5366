"""First stage of a cell: a transformer's tokens. Numbers here are part of the tokens' key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from experiments.engine.cells import Sampling
from experiments.sampler.samples import labels_of
from maskgit import checkpoints
from maskgit.decoding import generate
from maskgit.sampling.compiled import compile_for_sampling

if TYPE_CHECKING:
    from maskgit.model.transformer import Transformer


def load(path: Path, num_codes: int, device: str, settings: Sampling) -> Transformer:
    """The transformer of a folder or an official file, ready to sample with these settings."""
    transformer = checkpoints.load_transformer(path, num_codes=num_codes)
    transformer = transformer.to(device=device, dtype=getattr(torch, settings.precision)).eval()
    return compile_for_sampling(transformer, settings.mode)


def sample_tokens(
    transformer: Transformer,
    settings: Sampling,
    batch_size: int | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Tokens of a cell's samples, uint16 (n, N).

    batch_size: what one forward takes (None: what suits the device); it changes no token.
    ids: numbers of the samples to draw, int64 (n,); by default all of the cell.
    """
    ids = np.arange(settings.num_samples) if ids is None else ids
    labels = labels_of(settings.num_samples, transformer.config.num_classes)[ids]
    device = transformer.word_embeddings.weight.device
    with torch.inference_mode():
        tokens = generate(
            transformer,
            torch.from_numpy(labels).to(device),
            sample_ids=torch.from_numpy(ids).to(device),
            steps=settings.steps,
            schedule=settings.schedule,
            choice_temperature=settings.choice_temperature,
            sampling_temperature=settings.sampling_temperature,
            seed=settings.seed,
            batch_size=batch_size,
        )
    return tokens.cpu().numpy().astype(np.uint16)
