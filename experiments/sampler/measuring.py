"""Last stage of a cell: features in, numbers out, by the registry of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.features.registry import Features
from eval.metrics import registry
from eval.metrics.inception_score import SPLITS, SPLITS_FROM
from eval.metrics.metric import PreparedReference as Real
from eval.metrics.metric import Settings
from experiments.engine.reasons import plain_reason

__all__ = ["SPLITS", "SPLITS_FROM", "K", "Real", "measure", "metric_ids"]

NAMES = ("fid", "is", "precision", "recall", "kid", "nll")
# The Inception Score in one part below 5,000 samples, as many real images as samples.
SETTINGS = Settings(splits=None, equal_sizes=True)
K = SETTINGS.k


def metric_ids(features: str) -> dict[str, str]:
    """Every metric's id with its version, in the order of reports."""
    return {name: registry.METRICS[name].id(features) for name in NAMES}


def measure(
    names: Sequence[str],
    extractor: str,
    samples: Features | None,
    real: Real | None,
    no_features: str = "",
    no_reference: str = "",
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """`eval.metrics.registry.measure` with the settings of experiments."""
    metrics, missing = registry.measure(
        names,
        extractor,
        samples,
        real,
        SETTINGS,
        no_features=no_features,
        no_reference=no_reference,
    )
    return metrics, {name: plain_reason(why) for name, why in missing.items()}
