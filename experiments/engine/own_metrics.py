"""Metrics that only one experiment knows, declared as eval's own are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eval.metrics.metric import Metric


def own_metric(
    experiment: str, name: str, label: str, digits: int, direction: str = "", unit: str = ""
) -> Metric:
    """The declaration of a metric with the id NAME.EXPERIMENT.v1; arguments as for `Metric`."""
    form = f"{name.replace('_', '-')}.{experiment}.v{{version}}"
    return Metric(name, 1, label, digits, direction, unit, needs=frozenset(), id_form=form)


def entries(metrics: Iterable[Metric], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values by name as the metrics of an `Outcome`; metrics without a value are left out."""
    return {
        metric.name: {"id": metric.id(), "value": values[metric.name]}
        for metric in metrics
        if metric.name in values
    }
