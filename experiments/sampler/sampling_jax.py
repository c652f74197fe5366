"""First stage of a cell with the JAX backend: the same samples as `sampling`, drawn by JAX.

The noise is the same bits; logits differ in their last digits, so a token differs now and then.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from experiments.engine.cells import Sampling
from experiments.sampler.samples import labels_of
from maskgit.jax import Transformer, generate, load_transformer


def load(path: Path, num_codes: int, device: str, settings: Sampling) -> Transformer:
    """The transformer of a folder or an official file. device: "cpu" keeps JAX off accelerators."""
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    return load_transformer(path, num_codes=num_codes)


def sample_tokens(
    transformer: Transformer,
    settings: Sampling,
    batch_size: int | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Tokens of a cell's samples, uint16 (n, N); arguments as for `sampling.sample_tokens`."""
    ids = np.arange(settings.num_samples) if ids is None else ids
    tokens = generate(
        transformer,
        labels_of(settings.num_samples, transformer.config.num_classes)[ids],
        sample_ids=ids,
        steps=settings.steps,
        schedule=settings.schedule,
        choice_temperature=settings.choice_temperature,
        sampling_temperature=settings.sampling_temperature,
        seed=settings.seed,
        batch_size=batch_size,
    )
    return np.asarray(tokens).astype(np.uint16)
