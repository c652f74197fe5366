"""Classifier-based rejection sampling: draw more samples than are wanted, keep those that a
classifier is surest of.

The paper's Table 4 (appendix B) scores samples by a pretrained ResNet's probability of the class
they were drawn for and keeps 1 in 20, acceptance rate 0.05, as VQGAN does. Here each class keeps
that share of its own samples, so the classes stay as balanced as they were drawn. To have n samples
at rate r, n / r must be drawn (`num_drawn`), and that is part of what they cost.

A classifier that rejects should not be the one that measures: samples chosen for its confidence
raise its own Inception Score.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from eval.features.registry import EXTRACTORS, Extractor, extractor_class, get_extractor
from maskgit.common.errors import UsageError

PAPER_RATE = 0.05  # Table 4


def check_rate(rate: float) -> Fraction:
    """The acceptance rate as the decimal fraction that is written, so that 1 / 0.05 is 20.

    Raises:
        UsageError: not in (0, 1].
    """
    if not (isinstance(rate, (int, float)) and math.isfinite(rate) and 0 < rate <= 1):
        raise UsageError(f"acceptance rate {rate}: expected a number above 0, up to 1")
    return Fraction(repr(float(rate)))


def num_drawn(num_kept: int, rate: float) -> int:
    """Samples of a class to draw so that `num_kept` are kept: kept / rate, rounded up."""
    return math.ceil(num_kept / check_rate(rate))


def num_kept(num_drawn: int, rate: float) -> int:
    """Samples of a class kept of `num_drawn`: drawn * rate, rounded down."""
    return math.floor(num_drawn * check_rate(rate))


def class_scores(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log odds of each sample's own class by the classifier: log p / (1 - p).

    They grow with the probability p, and differ even where p rounds to 1.

    Args:
        logits: (n, L), unnormalised log-probabilities.
        labels: int (n,) in [0, L).

    Returns:
        float64 (n,), nats; infinity if there is but one class.

    Raises:
        UsageError: shapes that do not fit, NaN or infinite logits, or classes beyond L.
    """
    logits, labels = np.asarray(logits), _check_labels(labels)
    if logits.ndim != 2 or logits.shape[1] < 1 or len(logits) != len(labels):
        raise UsageError(
            f"logits {logits.shape} for {len(labels)} labels: expected ({len(labels)}, classes)"
        )
    if len(labels) and labels.max() >= logits.shape[1]:
        raise UsageError(
            f"label {labels.max()}: the classifier has classes 0 to {logits.shape[1] - 1}"
        )
    if logits.dtype.kind not in "fiu" or not np.isfinite(logits).all():
        raise UsageError(f"logits {logits.dtype}: expected finite numbers")
    values = logits.astype(np.float64)
    rows = np.arange(len(labels))
    own = values[rows, labels]
    values[rows, labels] = -np.inf
    return own - np.logaddexp.reduce(values, axis=1, initial=-np.inf)


def accept(logits: np.ndarray, labels: np.ndarray, rate: float) -> np.ndarray:
    """Choose the samples to keep: the share `rate` of each class with the highest probability.

    Args:
        logits: (n, L), the classifier's, of all samples drawn.
        labels: int (n,), the classes they were drawn for.
        rate: acceptance rate in (0, 1]; rate * n_c samples of a class are kept, rounded down. Of
            equal scores the earlier sample is kept.

    Returns:
        int64 indices, ascending.

    Raises:
        UsageError: as `class_scores`, or a rate out of range.
    """
    check_rate(rate)
    scores, labels = class_scores(logits, labels), _check_labels(labels)
    order = np.lexsort((np.arange(len(labels)), -scores, labels))
    by_class = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return np.sort(np.concatenate([best[: num_kept(len(best), rate)] for best in by_class]))


def classifier_names() -> list[str]:
    """Names that `get_classifier` accepts: feature networks with logits."""
    return [name for name in EXTRACTORS if extractor_class(name).num_logits > 0]


def get_classifier(
    name: str, feature_weights: str | Path | None = None, device: str = "cpu"
) -> Extractor:
    """A classifier: `extract(images).logits` are what `accept` takes.

    Args:
        name: resnet50 (the paper's kind), fashion-resnet, efficientnet-lite0, ...
        feature_weights, device: as for `eval.features.registry.get_extractor`.

    Raises:
        Unavailable: the weights are not on this machine.
        UsageError: unknown name, or a network without logits.
    """
    if name not in EXTRACTORS or extractor_class(name).num_logits == 0:
        raise UsageError(f"classifier {name!r}: expected one of {', '.join(classifier_names())}")
    return get_extractor(name, feature_weights, device)


def _check_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise UsageError(
            f"labels {labels.dtype} {labels.shape}: expected classes from 0, integers (n,)"
        )
    return labels.astype(np.int64)
