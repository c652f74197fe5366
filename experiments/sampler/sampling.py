"""First stage of a cell: a transformer's tokens. Numbers here are part of the tokens' key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.sampler.labels import labels_of
from maskgit.decoding import generate

# Here, so that the fingerprint of the tokens' code covers it.
from maskgit.sampling.compiled import compile_for_sampling as compile_for_sampling

if TYPE_CHECKING:
    from maskgit.model.transformer import Transformer


def sample_tokens(
    transformer: Transformer,
    cell: dict[str, Any],
    batch_size: int | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Tokens of a cell's samples, uint16 (n, N).

    batch_size: what one forward takes (None: what suits the device); it changes no token.
    ids: numbers of the samples to draw, int64 (n,); by default all of the cell.
    """
    import torch

    ids = np.arange(cell["num_samples"]) if ids is None else ids
    labels = labels_of(cell["num_samples"], transformer.config.num_classes)[ids]
    device = transformer.word_embeddings.weight.device
    with torch.inference_mode():
        tokens = generate(
            transformer,
            torch.from_numpy(labels).to(device),
            sample_ids=torch.from_numpy(ids).to(device),
            steps=cell["steps"],
            schedule=cell["schedule"],
            choice_temperature=cell["choice_temperature"],
            sampling_temperature=cell["sampling_temperature"],
            seed=cell["seed"],
            batch_size=batch_size,
        )
    return tokens.cpu().numpy().astype(np.uint16)
