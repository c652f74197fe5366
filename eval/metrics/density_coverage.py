"""Density and coverage (Naeem et al. 2020), k = 5.

Both look at the real set's balls only, each reaching to the point's k-th nearest neighbour in the
set. Density is the mean number of real balls a generated point lies in, divided by k: near 1 for
equal distributions, above 1 where samples are nearer the middle of the real images than these are,
and not moved much by a real outlier's large ball, as precision is. Coverage is the share of real
balls that hold any generated point: near 1 - 2^-k for equal distributions of equal, large size.

The rim does not belong to the ball here, as in the authors' package (in precision and recall it
does): so copies of the real images have density 1 and coverage 1.
"""

from __future__ import annotations

import numpy as np

from eval.features.registry import Features
from eval.metrics.metric import Entry, Metric, PreparedReference, Settings
from eval.metrics.precision_recall import Manifold, prepared_manifold
from maskgit.common.errors import UsageError

K = 5  # as its authors and everybody else take it


def density_coverage(
    real: np.ndarray | Manifold, generated: np.ndarray, k: int = K
) -> tuple[float, float]:
    """Density (>= 0, dimensionless) and coverage in [0, 1].

    Args:
        real: features (n, D), or their `Manifold` with the same k (prepared once for many calls).
        generated: features (m, D), m >= 1; m may differ from n.
        k: the neighbour that sets a ball's radius.

    Raises:
        UsageError: wrong shapes, NaN or infinite values, no generated point, or fewer than k + 1
            real ones.
    """
    if not isinstance(real, Manifold):
        real = Manifold(real, k, "real features")
    elif real.k != k:
        raise UsageError(f"the real manifold was built with k={real.k}, asked for k={k}")
    counts = real.counts(generated)
    return float(counts.sum() / (k * len(generated))), float((counts > 0).mean())


def _measure(
    samples: Features, reference: PreparedReference, settings: Settings
) -> dict[str, Entry]:
    real = reference.real_features("density-coverage", samples, settings)
    manifold = prepared_manifold(reference, real, K, "density-coverage", settings.device)
    density, coverage = density_coverage(manifold, samples.features, K)
    values = {"density": density, "coverage": coverage}
    return {name: {"value": value, "real_n": len(real)} for name, value in values.items()}


def _describe(_settings: Settings, reference: PreparedReference) -> dict[str, object]:
    return {
        "density_coverage_k": K,
        "density_coverage_reference_n": len(reference.reference.features),
    }


_NEEDS = frozenset({"features", "reference", "real_features"})
# A density above 1 is no merit, so neither direction of it is better.
DENSITY, COVERAGE = (
    Metric(name, 1, label, 3, direction, needs=_NEEDS, function=_measure, describe=_describe)
    for name, label, direction in (("density", "Density", ""), ("coverage", "Coverage", "higher"))
)
