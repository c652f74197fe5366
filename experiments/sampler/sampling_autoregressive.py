"""First stage of an autoregressive cell: one token after the other, in raster order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.sampler.labels import labels_of
from maskgit.sampling.autoregressive import generate_autoregressive

if TYPE_CHECKING:
    from maskgit.sampling.autoregressive import Autoregressive


def sample_tokens(
    model: Autoregressive,
    cell: dict[str, Any],
    batch_size: int | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Tokens of a cell's samples, uint16 (n, N); arguments as for `sampling.sample_tokens`."""
    import torch

    ids = np.arange(cell["num_samples"]) if ids is None else ids
    labels = labels_of(cell["num_samples"], model.config.num_classes)[ids]
    device = next(model.parameters()).device
    with torch.inference_mode():
        tokens = generate_autoregressive(
            model,
            torch.from_numpy(labels).to(device),
            sample_ids=torch.from_numpy(ids).to(device),
            sampling_temperature=cell["sampling_temperature"],
            seed=cell["seed"],
            batch_size=batch_size,
        )
    return tokens.cpu().numpy().astype(np.uint16)
