"""First stage of a cell with the JAX backend: the same samples as `sampling`, drawn by JAX.

The noise is the same bits; logits differ in their last digits, so a token differs now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.sampler.labels import labels_of

if TYPE_CHECKING:
    from maskgit.jax import Transformer


def sample_tokens(
    transformer: Transformer,
    cell: dict[str, Any],
    batch_size: int | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Tokens of a cell's samples, uint16 (n, N); arguments as for `sampling.sample_tokens`."""
    from maskgit.jax import generate

    ids = np.arange(cell["num_samples"]) if ids is None else ids
    tokens = generate(
        transformer,
        labels_of(cell["num_samples"], transformer.config.num_classes)[ids],
        sample_ids=ids,
        steps=cell["steps"],
        schedule=cell["schedule"],
        choice_temperature=cell["choice_temperature"],
        sampling_temperature=cell["sampling_temperature"],
        seed=cell["seed"],
        batch_size=batch_size,
    )
    return np.asarray(tokens).astype(np.uint16)
