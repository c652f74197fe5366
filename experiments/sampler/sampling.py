"""MaskGIT's tokens, in torch. Numbers here are part of the tokens' key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.engine.cells import Sampling
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


def draw(transformer: Transformer, settings: Sampling, labels: Any, **more: Any) -> Any:
    """Tokens of one image for each class of `labels`, int64 (n,), as `maskgit.decoding.generate`
    returns them. more: sample_ids, tokens, start, batch_size and trace, as it takes them."""
    with torch.inference_mode():
        return generate(
            transformer,
            labels,
            steps=settings.steps,
            schedule=settings.schedule,
            choice_temperature=settings.choice_temperature,
            sampling_temperature=settings.sampling_temperature,
            seed=settings.seed,
            **more,
        )
