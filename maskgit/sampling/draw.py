"""What an iteration does with the logits, for every loop: draw the tokens, choose what to mask.

Nothing here waits for a GPU but `check_finite`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskgit.common.errors import UsageError


def draw(logits: Tensor, picks: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draw from each of R distributions by the inverse of its cumulative distribution.

    logits: (R, K) float32. picks: (R, m) float32 in [0, 1), one draw each.
    Returns (R, m) int64 tokens, their log-probabilities at temperature 1, and as (R, 1) the sum of
    each distribution before its normalisation, which is finite if and only if the logits are.

    The product of a pick below 1 and the total rounds to less than the total, so the first entry
    above it exists, and it is larger than the entry before: its token has a probability above 0.
    Without finite logits there is no such entry, and the token is the last one.
    """
    shifted = logits - logits.amax(dim=1, keepdim=True)
    weights = shifted.exp()
    scaled = weights if temperature == 1.0 else (shifted / temperature).exp_()
    cumulative = scaled.cumsum(dim=1)
    total = cumulative[:, -1:] if temperature == 1.0 else weights.sum(dim=1, keepdim=True)
    tokens = torch.searchsorted(cumulative, picks * cumulative[:, -1:], right=True)
    tokens = tokens.clamp_(max=logits.shape[1] - 1)
    return tokens, shifted.gather(1, tokens) - total.log(), total


def check_finite(totals: Tensor) -> None:
    """Raise UsageError unless all these sums of distributions are finite."""
    if not bool(torch.isfinite(totals).all()):
        raise UsageError("the transformer's logits are not finite: its weights are damaged")


def mask_least_confident(confidence: Tensor, counts: Tensor) -> Tensor:
    """Which positions to mask again: (B, N) bool.

    confidence: (B, N) float, +inf where the token was known before.
    counts: (B,) int64, how many; at most the unknown tokens less one, and at least 1, are taken.

    Those strictly below the counts-th value (from 0) of the sorted confidences, so of equal values
    at the cut none is masked (the official mask_by_random_topk).
    """
    unknown = (confidence < math.inf).sum(dim=1)
    counts = torch.minimum(counts, unknown - 1).clamp(min=1, max=confidence.shape[1] - 1)
    cut_off = confidence.sort(dim=1).values.gather(1, counts[:, None])
    return confidence < cut_off
