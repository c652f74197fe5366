"""MaskGIT's tokens, in JAX: the same samples as `sampling`.

The noise is the same bits; logits differ in their last digits, so a token differs now and then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from experiments.engine.cells import Sampling
from maskgit.jax import Transformer, generate, load_transformer


def load(path: Path, num_codes: int, device: str, settings: Sampling) -> Transformer:
    """The transformer of a folder or an official file. device: "cpu" keeps JAX off accelerators."""
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    return load_transformer(path, num_codes=num_codes)


def draw(transformer: Transformer, settings: Sampling, labels: Any, **more: Any) -> Any:
    """As `sampling.draw`, an array of JAX."""
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
