"""Which tokens are masked in training and in the likelihood (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

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
    ranks, counts = ranks_and_counts([schedule], ratio_uniforms, order_uniforms, min_ratio)
    return ranks < counts


def ranks_and_counts(
    schedules: Sequence[str], ratio_uniforms: Tensor, order_uniforms: Tensor, min_ratio: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The masks of several schedules: each masks the ranks below its count.

    Arguments as in `masks_from_uniforms`. Returns int64 ranks (B, N), and counts (B, S) in [1, N].
    """
    n, uniforms = order_uniforms.shape[1], ratio_uniforms.cpu().numpy()
    ratios = [np.maximum(mask_ratio(name, uniforms, n), min_ratio) for name in schedules]
    counts = torch.from_numpy(np.ceil(np.stack(ratios, 1) * n).astype(np.int64)).clamp_(1, n)
    ranks = order_uniforms.argsort(1).argsort(1)
    return ranks, counts.to(ranks.device)


def held_out_masks(schedule: str, sample_ids: Tensor, num_tokens: int, seed: int = 0) -> Tensor:
    """The masks under which the likelihood of held-out images is measured.

    They depend on (seed, sample id) only. Returns bool (B, num_tokens).
    """
    return masks_from_uniforms(schedule, *held_out_uniforms(sample_ids, num_tokens, seed))


def held_out_uniforms(sample_ids: Tensor, num_tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The uniforms of `held_out_masks`: of the ratio (B,), and of the order (B, num_tokens)."""
    uniforms = position_uniforms(seed, sample_ids, 0, num_tokens)
    return uniforms[:, 0, 0], uniforms[:, 1]
