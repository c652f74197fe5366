"""Inception Score (Salimans et al. 2016): exp of the mean KL divergence from p(y|x) to p(y), over
splits.

The same as torch-fidelity's on the same logits: images are shuffled with a fixed seed and cut
into 10 splits; mean and deviation (divided by the number of splits) are over splits.
"""

from __future__ import annotations

import numpy as np

from eval.errors import UsageError
from eval.statistics import check_features

METRIC = "is"
VERSION = 1


def metric_id(features: str) -> str:
    """`is.FEATURES.vN`: what may share a column."""
    return f"{METRIC}.{features}.v{VERSION}"


def inception_score(
    logits: np.ndarray, splits: int = 10, seed: int | None = 2020
) -> tuple[float, float]:
    """Inception Score and its deviation over splits; both dimensionless, the score in [1, L].

    Args:
        logits: (n, L), unnormalised log-probabilities of L classes.
        splits: parts that are scored on their own and averaged.
        seed: of the shuffle before the cut (numpy's RandomState); None keeps the order.

    Raises:
        UsageError: NaN or infinite logits, a wrong shape, splits < 1, or fewer images than splits.
    """
    logits = check_features(logits, "logits").astype(np.float64)
    n = len(logits)
    if splits < 1:
        raise UsageError(f"splits {splits}: at least 1 is needed")
    if n < splits:
        raise UsageError(f"Inception Score in {splits} splits needs {splits} images, got {n}")
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(n)]  # torch-fidelity's order
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    scores = []
    for i in range(splits):
        part = slice(i * n // splits, (i + 1) * n // splits)
        marginal = p[part].mean(axis=0)
        # A class of probability 0 everywhere adds 0, not 0 * inf.
        log_q = np.log(np.where(marginal > 0, marginal, 1))
        divergence = (p[part] * (log_p[part] - log_q)).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    return float(np.mean(scores)), float(np.std(scores))
