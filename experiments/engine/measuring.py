"""Last stage of a cell: features in, numbers out. One function per metric, one registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from eval import fid, inception_score, kid, likelihood, precision_recall
from eval.errors import UsageError
from eval.features import Features
from eval.statistics import Reference, Statistics, load_reference

K = 3  # neighbours, for precision and recall
SPLITS = 10  # of the Inception Score, shuffled; fewer samples than this are scored as one
SPLITS_FROM = 5000


def metric_ids(features: str) -> dict[str, str]:
    """Every metric's id with its version, in the order of reports."""
    sides = precision_recall.metric_ids(features)
    return {
        "fid": fid.metric_id(features),
        "is": inception_score.metric_id(features),
        "precision": sides["precision"],
        "recall": sides["recall"],
        "kid": kid.metric_id(features),
        "nll": likelihood.metric_id(),
    }


def real_subset(reference: Reference, count: int) -> np.ndarray:
    """The real features for precision/recall: as many as there are samples, or all that are kept.

    The reference keeps a shuffled, class-balanced subset; its first rows are taken.
    """
    return reference.features[:count]


@lru_cache(maxsize=1)
def _reference_factor(name: str) -> np.ndarray:
    return fid.covariance_factor(load_reference(name).cov)


@lru_cache(maxsize=2)
def _real_manifold(name: str, count: int) -> precision_recall.Manifold:
    real = real_subset(load_reference(name), count)
    return precision_recall.Manifold(real, K, "real features")


def _fid(samples: Features, reference: Reference) -> dict[str, dict[str, float]]:
    generated = Statistics.of(samples.features)
    value = fid.frechet_distance(
        reference.mean,
        reference.cov,
        generated.mean,
        generated.cov,
        factor1=_reference_factor(reference.name),
    )
    return {"fid": {"value": value}}


def _inception_score(samples: Features, reference: Reference) -> dict[str, dict[str, float]]:
    if len(samples.logits) < SPLITS_FROM:
        return {"is": {"value": inception_score.inception_score(samples.logits, splits=1)[0]}}
    value, sd = inception_score.inception_score(samples.logits, splits=SPLITS)
    return {"is": {"value": value, "sd": sd}}


def _precision_recall(samples: Features, reference: Reference) -> dict[str, dict[str, float]]:
    real = _real_manifold(reference.name, len(samples.features))
    precision, recall = precision_recall.precision_recall(real, samples.features, k=K)
    return {"precision": {"value": precision}, "recall": {"value": recall}}


def _kid(samples: Features, reference: Reference) -> dict[str, dict[str, float]]:
    value, sd = kid.kernel_distance(reference.features, samples.features)
    return {"kid": {"value": value, "sd": sd}}


_MEASURES: dict[tuple[str, ...], Callable[[Features, Reference], dict[str, dict[str, float]]]] = {
    ("fid",): _fid,
    ("is",): _inception_score,
    ("precision", "recall"): _precision_recall,
    ("kid",): _kid,
}


def measure(
    names: Sequence[str], samples: Features, reference: Reference
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """(metrics, missing): name -> {id, value, perhaps sd}, and name -> why there is none.

    A metric that these samples do not allow (too few of them, say) is missing, not an error.
    """
    ids = metric_ids(reference.extractor)
    metrics: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for group, function in _MEASURES.items():
        wanted = [name for name in group if name in names]
        if not wanted:
            continue
        try:
            numbers = function(samples, reference)
        except UsageError as error:
            missing.update(dict.fromkeys(wanted, " ".join(str(error).split())))
            continue
        for name in wanted:
            if all(math.isfinite(number) for number in numbers[name].values()):
                metrics[name] = {"id": ids[name], **numbers[name]}
            else:
                missing[name] = "is not a finite number"
    return metrics, missing
