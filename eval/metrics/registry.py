"""The one registry of metrics, and their computation on features.

    metrics, missing = measure(["fid", "precision"], "fashion-resnet", samples, reference)

To add a metric: write its file with its function and its declaration, a `Metric`; add its line to
METRICS; write its test. Command lines, results and reports read names, headings, digits,
directions and ids from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eval.cas import recipe
from eval.features.registry import Features
from eval.metrics import (
    density_coverage,
    fid,
    fid_infinity,
    inception_score,
    kid,
    likelihood,
    lpips_distance,
    precision_recall,
    reconstruction,
)
from eval.metrics.metric import Entry, Measure, Metric, PreparedReference, Settings
from maskgit.common.cli import suggestion
from maskgit.common.errors import UsageError

__all__ = [
    "METRICS",
    "Entry",
    "Metric",
    "PreparedReference",
    "Settings",
    "combine",
    "describe",
    "expand_groups",
    "measure",
    "parse_metrics",
    "subset_errors",
]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        fid.METRIC,
        fid_infinity.METRIC,
        inception_score.METRIC,
        inception_score.TEN,
        precision_recall.PRECISION,
        precision_recall.RECALL,
        kid.METRIC,
        density_coverage.DENSITY,
        density_coverage.COVERAGE,
        fid.FD_DINOV2,
        likelihood.METRIC,
        reconstruction.PSNR,
        reconstruction.SSIM,
        reconstruction.TOKEN_AGREEMENT,
        lpips_distance.METRIC,
        recipe.METRIC,
    )
}
# Names on a command line that stand for several metrics.
GROUPS = {
    "precision-recall": ("precision", "recall"),
    "density-coverage": ("density", "coverage"),
}
ON_FEATURES = tuple(name for name, metric in METRICS.items() if metric.function is not None)
SUBSET_SEED = 0
NO_REFERENCE = "needs a reference"
NO_FEATURES = "needs a feature network"


def parse_metrics(text: str, known: Sequence[str] = ON_FEATURES) -> list[str]:
    """Names of metrics from `fid,precision-recall`; `all` stands for all that are known.

    Raises:
        UsageError: an unknown name, or none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return list(known)
    accepted = [*known, *(name for name, group in GROUPS.items() if set(group) <= set(known))]
    wrong = [name for name in names if name not in accepted]
    if wrong or not names:
        what = f"{wrong[0]}{suggestion(wrong[0], accepted)}" if wrong else "nothing"
        raise UsageError(f"--metrics {text!r}: {what} is not one of {', '.join(accepted)}, or all")
    return expand_groups(names)


def expand_groups(names: Sequence[str]) -> list[str]:
    """Each metric once, with those that a name like `precision-recall` stands for in its place."""
    return list(dict.fromkeys(x for name in names for x in GROUPS.get(name, (name,))))


def measure(
    names: Sequence[str],
    features: str,
    samples: Features | None,
    reference: PreparedReference | None,
    settings: Settings | None = None,
    *,
    no_features: str = NO_FEATURES,
    no_reference: str = NO_REFERENCE,
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Compute metrics of generated features against a reference.

    A metric is missing, and no error, if these samples do not allow it (too few of them, say), or
    if there is no reference or feature network for it. Names of metrics that are not computed on
    features are ignored.

    Args:
        names: of METRICS.
        features: the feature network's name, for the ids.
        samples: features and logits; None if there are none, for the reason `no_features`.
        reference: prepared once for any number of sets; None if there is none, for the reason
            `no_reference`.
        settings: None for the defaults.

    Returns:
        (metrics, missing): name -> {"id", "value", "sd"?, "error"?, "error_is"?, "real_n"?, ...},
        where the id ends with `.real-N` if N real images and not as many as samples count, and
        `error` with `error_is` is the uncertainty to show and `sd` the deviation over splits or
        subsets that other libraries report; and name -> why there is no number.
    """
    settings = settings or Settings()
    metrics: dict[str, Entry] = {}
    missing: dict[str, str] = {}
    for function, group in _computations(names).items():
        if samples is None:
            missing |= dict.fromkeys(group, no_features)
            continue
        if reference is None and "reference" in METRICS[group[0]].needs:
            missing |= dict.fromkeys(group, no_reference)
            continue
        try:
            entries = function(samples, reference, settings)  # type: ignore[arg-type]
        except UsageError as error:
            missing |= dict.fromkeys(group, str(error))
            continue
        for name, entry in entries.items():
            if name in METRICS and name not in group:
                continue  # computed along with what was asked for
            if not all(math.isfinite(x) for x in entry.values() if isinstance(x, float)):
                missing[name] = f"{name} is not a finite number"
                continue
            # An entry beside those of the registry takes the id of the metric it comes with.
            metric = METRICS.get(name) or replace(METRICS[group[0]], name=name)
            # Balls of another number of real images are other ones.
            unequal = entry.get("real_n", len(samples.features)) != len(samples.features)
            more = f".real-{entry['real_n']}" if unequal else ""
            metrics[name] = {"id": metric.id(features) + more, **entry}
    return metrics, missing


def _computations(names: Sequence[str]) -> dict[Measure, list[str]]:
    """The metrics on features among some names, by the function that computes them together."""
    groups: dict[Measure, list[str]] = {}
    for name in dict.fromkeys(names):
        function = METRICS[name].function
        if function is not None:
            groups.setdefault(function, []).append(name)
    return groups


def subset_errors(
    metrics: dict[str, Entry],
    features: str,
    samples: Features,
    reference: PreparedReference | None,
    settings: Settings,
    subsets: int,
) -> dict[str, str]:
    """Put the standard error that disjoint subsets give (seeded shuffle) into `metrics`.

    The values stay those of all samples. The error is the subsets' standard deviation divided by
    sqrt(subsets): for what is a mean over images, the error of the whole. Metrics that state a
    standard error of their own keep it.

    Args:
        metrics: what `measure` returned for all samples with the same arguments.
        subsets: how many.

    Returns:
        name -> why a metric has no such error, for subsets that are too small for it.
    """
    n = len(samples.features)
    wanted = [name for name, entry in metrics.items() if "standard_error" not in entry]
    if not 2 <= subsets <= n:
        why = f"--error-bars {subsets}: expected 2 to {n}, the number of images"
        return dict.fromkeys(wanted, why)
    order = np.random.default_rng(SUBSET_SEED).permutation(n)
    values: dict[str, list[float]] = {name: [] for name in wanted}
    missing: dict[str, str] = {}
    for rows in np.array_split(order, subsets):
        part = Features(samples.features[rows], samples.logits[rows])
        names = [name for name in wanted if name in METRICS and name not in missing]
        found, absent = measure(names, features, part, reference, settings)
        for name, entry in found.items():
            if name in values:
                values[name].append(entry["value"])
        for name, why in absent.items():
            missing[name] = f"--error-bars {subsets}: subsets of {len(rows)} images: {why}"
    for name, parts in values.items():
        if len(parts) == subsets:
            error = float(np.std(parts, ddof=1) / math.sqrt(subsets))
            metrics[name] |= {
                "subset_values": parts,
                "standard_error": error,
                "error": error,
                "error_is": f"standard error, from {subsets} disjoint subsets of {n // subsets} "
                "images",
            }
    return missing


def describe(
    names: Sequence[str], reference: PreparedReference | None, settings: Settings
) -> dict[str, Any]:
    """Settings that the metrics' numbers depend on, for a protocol."""
    result: dict[str, Any] = {}
    for name in names:
        about = METRICS[name].describe
        if about is not None and (reference is not None or "reference" not in METRICS[name].needs):
            result |= about(settings, reference)  # type: ignore[arg-type]
    return result


def combine(sets: Sequence[dict[str, Entry]]) -> dict[str, Entry]:
    """One entry per metric from several sets of images (seeds): the mean, and the deviation over
    the sets as its error."""
    if len(sets) == 1:
        return sets[0]
    result: dict[str, Entry] = {}
    for name, first in sets[0].items():
        values = [entries[name]["value"] for entries in sets if name in entries]
        if len(values) < len(sets):
            continue
        sd = float(np.std(values, ddof=1))
        result[name] = {
            "id": first["id"],
            "value": float(np.mean(values)),
            "values": values,
            "error": sd,
            "error_is": f"sd over {len(sets)} sets of images",
        }
    return result
