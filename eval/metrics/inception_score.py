"""Inception Score (Salimans et al. 2016): exp of the mean KL divergence from p(y|x) to p(y), over
splits.

Two metrics, as their numbers differ. `is` takes all images at once, as MaskGIT's official
configuration and TF-GAN do. `is-10-splits` is torch-fidelity's on the same logits: images are
shuffled with a fixed seed and cut into 10 splits; mean and deviation are over splits. A split
scores lower the fewer images it has.
"""

from __future__ import annotations

import numpy as np

from eval.features.registry import Features
from eval.metrics.metric import Entry, Metric, PreparedReference, Settings
from eval.metrics.statistics import check_features
from maskgit.common.errors import UsageError

SPLITS, SPLITS_FROM = 10, 5000  # parts; experiments report them from so many images on
BLOCK = 4096  # rows turned into probabilities at a time


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
    logits = check_features(logits, "logits")
    n = len(logits)
    if splits < 1:
        raise UsageError(f"splits {splits}: at least 1 is needed")
    if n < splits:
        raise UsageError(f"Inception Score in {splits} splits needs {splits} images, got {n}")
    order = np.arange(n)
    if seed is not None:
        order = np.random.RandomState(seed).permutation(n)  # torch-fidelity's order
    cuts = [i * n // splits for i in range(splits + 1)]
    scores = [_score(logits, order[cuts[i] : cuts[i + 1]]) for i in range(splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray, rows: np.ndarray) -> float:
    """exp(H(mean p) - mean H(p)), the same divergence, over some rows and in blocks."""
    marginal = np.zeros(logits.shape[1])
    negentropy = 0.0
    for start in range(0, len(rows), BLOCK):
        block = logits[rows[start : start + BLOCK]].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        block -= np.log(np.exp(block).sum(axis=1, keepdims=True))
        p = np.exp(block)
        marginal += p.sum(axis=0)
        negentropy += float((p * block).sum())
    marginal /= len(rows)
    seen = marginal[marginal > 0]  # a class of probability 0 everywhere adds 0, not 0 * inf
    return float(np.exp(negentropy / len(rows) - (seen * np.log(seen)).sum()))


def _single(
    samples: Features, _reference: PreparedReference | None, _settings: Settings
) -> dict[str, Entry]:
    return {"is": {"value": inception_score(_logits(samples), 1)[0]}}


def _ten(
    samples: Features, _reference: PreparedReference | None, _settings: Settings
) -> dict[str, Entry]:
    value, sd = inception_score(_logits(samples), SPLITS)
    error = {"sd": sd, "error": sd, "error_is": f"sd over {SPLITS} splits"}
    return {TEN.name: {"value": value, **error}}


def _logits(samples: Features) -> np.ndarray:
    if samples.logits.shape[1] == 0:
        raise UsageError("the feature network has no classifier, which the Inception Score needs")
    return samples.logits


METRIC, TEN = (
    Metric(name, version, label, 2, "higher", needs=frozenset({"logits"}), function=function)
    for name, version, label, function in (
        ("is", 2, "IS", _single),
        (f"is-{SPLITS}-splits", 1, f"IS in {SPLITS} splits", _ten),
    )
)
