"""Which tokens are masked in training and in the likelihood (paper, section 3.1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskgit.sampling.noise import position_uniforms
from maskgit.schedules import mask_ratio


def masks_from_uniforms(
    schedule: str, ratio_uniforms: Tensor, order_uniforms: Tensor, min_ratio: float = 0.0
) -> Tensor:
    """Mask ceil(gamma(r) N) tokens of each image, uniformly chosen.

    Args:
        schedule: name of the mask schedule gamma.
        ratio_uniforms: (B,) float in [0, 1), the r of each image.
        order_uniforms: (B, N) float; the positions with the smallest values are masked.
        min_ratio: lower bound of the mask ratio (the official configuration has 0.5).

    Returns:
        bool (B, N), True where the token is masked; at least one in each row.
    """
    n = order_uniforms.shape[1]
    ratio = np.maximum(mask_ratio(schedule, ratio_uniforms.cpu().numpy(), n), min_ratio)
    counts = torch.from_numpy(np.ceil(ratio * n).astype(np.int64)).clamp_(1, n)
    ranks = order_uniforms.argsort(1).argsort(1)
    return ranks < counts.to(ranks.device)[:, None]


def held_out_masks(schedule: str, sample_ids: Tensor, num_tokens: int, seed: int = 0) -> Tensor:
    """The masks under which the likelihood of held-out images is measured.

    They depend on (seed, sample id) only. Returns bool (B, num_tokens).
    """
    uniforms = position_uniforms(seed, sample_ids, 0, num_tokens)
    return masks_from_uniforms(schedule, uniforms[:, 0, 0], uniforms[:, 1])
