"""The metrics of `python -m eval`, on features: one registry, one entry of numbers per metric."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval.features.registry import Features
from eval.metrics import density_coverage, fid, fid_infinity, inception_score, kid, precision_recall
from eval.reference.files import Reference
from maskgit.common.errors import UsageError

DINOV2 = "dinov2-vit-l-14"
DENSITY_COVERAGE_K = 5  # as its authors and everybody else take it
SUBSET_SEED = 0
Entry = dict[str, Any]


def features_of(metric: str, features: str) -> str:
    """The extractor a metric is computed on: its own, or the one that was chosen."""
    return DINOV2 if metric == "fd-dinov2" else features


class Measures:
    """Metrics of generated features against one reference. What they need of the reference is
    prepared once, for any number of sets.

    Args:
        features: extractor's name, for the ids.
        reference: None if only `is` is wanted.
        splits: of the Inception Score.
        k: neighbour of precision and recall.
    """

    def __init__(
        self, features: str, reference: Reference | None, *, splits: int = 10, k: int = 3
    ) -> None:
        self.features, self.splits, self.k = features, splits, k
        self._reference = reference

    @property
    def has_reference(self) -> bool:
        """Whether there is one."""
        return self._reference is not None

    @property
    def reference(self) -> Reference:
        """The reference, for metrics that need one."""
        if self._reference is None:
            raise UsageError("needs a reference")
        return self._reference

    @functools.cached_property
    def _factor(self) -> np.ndarray:
        return fid.covariance_factor(self.reference.cov)

    @functools.cached_property
    def _manifold(self) -> precision_recall.Manifold:
        real = self.reference.kept_features("precision-recall")
        return precision_recall.Manifold(real, self.k, "real features")

    @functools.cached_property
    def _wide_manifold(self) -> precision_recall.Manifold:
        real = self.reference.kept_features("density-coverage")
        return precision_recall.Manifold(real, DENSITY_COVERAGE_K, "real features")

    def measure(self, metric: str, samples: Features) -> dict[str, Entry]:
        """Numbers of one metric: name -> {id, value, and what is known of its error}.

        `error` with `error_is` is the uncertainty to show; `sd` is the deviation over splits or
        subsets that other libraries report.

        Raises:
            Unavailable: the reference has no features, and the metric needs them.
            UsageError: these samples do not allow the metric (too few, say), or a number is not
                finite.
        """
        entries = _MEASURES[metric](self, samples)
        for name, entry in entries.items():
            if not math.isfinite(entry["value"]):
                raise UsageError(f"{name} is not a finite number")
        return entries

    def add_subset_errors(
        self, metric: str, samples: Features, entries: dict[str, Entry], subsets: int
    ) -> None:
        """Put the standard error that disjoint subsets give (seeded shuffle) into `entries`.

        The values stay those of all samples. The error is the subsets' standard deviation divided
        by sqrt(subsets): for what is a mean over images, the error of the whole. Metrics that state
        a standard error of their own keep it.

        Raises:
            UsageError: subsets that are too small for the metric.
        """
        n = len(samples.features)
        if not 2 <= subsets <= n:
            raise UsageError(f"--error-bars {subsets}: expected 2 to {n}, the number of images")
        if all("standard_error" in entry for entry in entries.values()):
            return
        order = np.random.default_rng(SUBSET_SEED).permutation(n)
        parts = []
        for rows in np.array_split(order, subsets):
            part = Features(samples.features[rows], samples.logits[rows])
            try:
                parts.append(self.measure(metric, part))
            except UsageError as error:
                raise UsageError(
                    f"--error-bars {subsets}: subsets of {len(rows)} images: {error}"
                ) from error
        for name, entry in entries.items():
            if all(name in part for part in parts):
                values = [part[name]["value"] for part in parts]
                entry["subset_values"] = values
                entry["standard_error"] = float(np.std(values, ddof=1) / math.sqrt(subsets))
                entry["error"] = entry["standard_error"]
                entry["error_is"] = (
                    f"standard error, from {subsets} disjoint subsets of {n // subsets} images"
                )

    def protocol(self, metrics: Sequence[str]) -> dict[str, object]:
        """What the numbers depend on beside the extractor and the sets."""
        result: dict[str, object] = {}
        if "is" in metrics:
            result["is_splits"] = self.splits
        if "kid" in metrics and self._reference is not None:
            result["kid_reference_n"] = len(self._reference.features)
        if "precision-recall" in metrics and self._reference is not None:
            result["precision_recall_k"] = self.k
            result["precision_recall_reference_n"] = len(self._reference.features)
        if "density-coverage" in metrics and self._reference is not None:
            result["density_coverage_k"] = DENSITY_COVERAGE_K
            result["density_coverage_reference_n"] = len(self._reference.features)
        if "fid-infinity" in metrics:
            result["fid_infinity_levels"] = fid_infinity.LEVELS
        return result

    def _fid(self, samples: Features) -> dict[str, Entry]:
        from eval.metrics.statistics import Statistics

        s, r = Statistics.of(samples.features), self.reference
        value = fid.frechet_distance(r.mean, r.cov, s.mean, s.cov, self._factor)
        return {"fid": {"id": fid.metric_id(self.features), "value": value}}

    def _fd_dinov2(self, samples: Features) -> dict[str, Entry]:
        value = self._fid(samples)["fid"]["value"]
        return {"fd-dinov2": {"id": f"fd.{self.features}.v{fid.VERSION}", "value": value}}

    def _fid_infinity(self, samples: Features) -> dict[str, Entry]:
        r = self.reference
        fit = fid_infinity.fid_infinity(r.mean, r.cov, samples.features, factor=self._factor)
        entry = {
            "id": fid_infinity.metric_id(self.features),
            "value": fit.value,
            "standard_error": fit.standard_error,
            "error": fit.standard_error,
            "error_is": "standard error, of sample and fit",
            "slope": fit.slope,
            "slope_interval": list(fit.slope_interval),
            "points": [list(point) for point in fit.points],
        }
        return {"fid-infinity": entry}

    def _inception_score(self, samples: Features) -> dict[str, Entry]:
        if samples.logits.shape[1] == 0:
            raise UsageError(f"Inception Score needs a classifier, {self.features} is none")
        value, sd = inception_score.inception_score(samples.logits, self.splits)
        name = inception_score.metric_id(self.features)
        entries = {"is": {"id": name, "value": value, "sd": sd}}
        if self.splits > 1:
            entries["is"] |= {"error": sd, "error_is": f"sd over {self.splits} splits"}
            if len(samples.logits) < inception_score.SINGLE_SPLIT_BELOW:
                name = inception_score.single_split_id(self.features)
                single = inception_score.inception_score(samples.logits, 1)[0]
                entries["is-single-split"] = {"id": name, "value": single}
        return entries

    def _kid(self, samples: Features) -> dict[str, Entry]:
        real = self.reference.kept_features("kid")
        size = min(kid.SUBSET_SIZE, len(real), len(samples.features))
        value, sd = kid.kernel_distance(real, samples.features, subset_size=size)
        entry: Entry = {"id": kid.metric_id(self.features), "value": value, "sd": sd}
        entry["subset_size"] = size
        try:
            error, subsets = kid.standard_error(real, samples.features)
        except UsageError:  # fewer than two disjoint subsets
            return {"kid": entry}
        entry |= {
            "standard_error": error,
            "error": error,
            "error_is": f"standard error, from {subsets} disjoint subsets",
        }
        return {"kid": entry}

    def _precision_recall(self, samples: Features) -> dict[str, Entry]:
        pair = precision_recall.precision_recall(self._manifold, samples.features, self.k)
        ids = precision_recall.metric_ids(self.features)
        return {
            name: {"id": ids[name], "value": value}
            for name, value in zip(("precision", "recall"), pair, strict=True)
        }

    def _density_coverage(self, samples: Features) -> dict[str, Entry]:
        pair = density_coverage.density_coverage(
            self._wide_manifold, samples.features, DENSITY_COVERAGE_K
        )
        ids = density_coverage.metric_ids(self.features)
        return {
            name: {"id": ids[name], "value": value}
            for name, value in zip(("density", "coverage"), pair, strict=True)
        }


_MEASURES: dict[str, Callable[[Measures, Features], dict[str, Entry]]] = {
    "fid": Measures._fid,
    "fid-infinity": Measures._fid_infinity,
    "is": Measures._inception_score,
    "kid": Measures._kid,
    "precision-recall": Measures._precision_recall,
    "density-coverage": Measures._density_coverage,
    "fd-dinov2": Measures._fd_dinov2,
}


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
