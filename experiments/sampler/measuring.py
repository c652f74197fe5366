"""Last stage of a cell: features in, numbers out. One function per metric, one registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from eval.features.registry import Features
from eval.metrics import fid, inception_score, kid, likelihood, precision_recall
from eval.metrics.statistics import Reference, Statistics
from experiments.engine.reasons import plain_reason
from maskgit.common.errors import UsageError

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


class Real:
    """The real images' side of a measurement, and what is computed from it once per process."""

    def __init__(self, reference: Reference):
        self.reference = reference
        self._manifold: tuple[int, precision_recall.Manifold] | None = None

    @cached_property
    def factor(self) -> np.ndarray:
        """Factor of the covariance, as `eval.metrics.fid.frechet_distance` takes it."""
        return fid.covariance_factor(self.reference.cov)

    def subset(self, count: int) -> np.ndarray:
        """The real features for precision/recall: as many as there are samples, or all there are.

        The reference keeps a shuffled, class-balanced subset; its first rows are taken.

        Raises:
            Unavailable: the reference is a mean and a covariance only.
        """
        return self.reference.kept_features("precision and recall")[:count]

    def manifold(self, count: int) -> precision_recall.Manifold:
        """The manifold of `subset(count)`; the last one is kept."""
        if self._manifold is None or self._manifold[0] != count:
            points = self.subset(count)
            self._manifold = count, precision_recall.Manifold(points, K, "real features")
        return self._manifold[1]


def _fid(samples: Features, real: Real) -> dict[str, dict[str, float]]:
    generated = Statistics.of(samples.features)
    reference = real.reference
    value = fid.frechet_distance(
        reference.mean,
        reference.cov,
        generated.mean,
        generated.cov,
        factor1=real.factor,
    )
    return {"fid": {"value": value}}


def _inception_score(samples: Features, real: Real | None) -> dict[str, dict[str, float]]:
    if not samples.logits.shape[1]:
        raise UsageError("the feature network has no classifier, which the Inception Score needs")
    if len(samples.logits) < SPLITS_FROM:
        return {"is": {"value": inception_score.inception_score(samples.logits, splits=1)[0]}}
    value, sd = inception_score.inception_score(samples.logits, splits=SPLITS)
    return {"is": {"value": value, "sd": sd}}


def _precision_recall(samples: Features, real: Real) -> dict[str, dict[str, float]]:
    manifold = real.manifold(len(samples.features))
    precision, recall = precision_recall.precision_recall(manifold, samples.features, k=K)
    return {"precision": {"value": precision}, "recall": {"value": recall}}


def _kid(samples: Features, real: Real) -> dict[str, dict[str, float]]:
    value, sd = kid.kernel_distance(real.reference.kept_features("KID"), samples.features)
    return {"kid": {"value": value, "sd": sd}}


_MEASURES: dict[tuple[str, ...], Callable[[Features, Any], dict[str, dict[str, float]]]] = {
    ("fid",): _fid,
    ("is",): _inception_score,
    ("precision", "recall"): _precision_recall,
    ("kid",): _kid,
}
NEED_NO_REFERENCE = ("is",)


def measure(
    names: Sequence[str],
    extractor: str,
    samples: Features | None,
    real: Real | None,
    no_features: str = "",
    no_reference: str = "",
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """(metrics, missing): name -> {id, value, perhaps sd}, and name -> why there is none.

    A metric that these samples do not allow (too few of them, say) is missing, not an error; so is
    one that needs what is not here: `samples` None for the reason `no_features`, or `real` None for
    the reason `no_reference`.
    """
    ids = metric_ids(extractor)
    metrics: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for group, function in _MEASURES.items():
        wanted = [name for name in group if name in names]
        if not wanted:
            continue
        if samples is None:
            missing.update(dict.fromkeys(wanted, no_features))
            continue
        if real is None and not set(group) <= set(NEED_NO_REFERENCE):
            missing.update(dict.fromkeys(wanted, no_reference))
            continue
        try:
            numbers = function(samples, real)
        except UsageError as error:
            missing.update(dict.fromkeys(wanted, plain_reason(error)))
            continue
        for name in wanted:
            if all(math.isfinite(number) for number in numbers[name].values()):
                metrics[name] = {"id": ids[name], **numbers[name]}
            else:
                missing[name] = "is not a finite number"
    return metrics, missing
