"""FID-infinity (Chong & Forsyth 2020): the FID that infinitely many generated images would have.

FID falls with the number N of generated images like 1/N, by an amount that depends on the model, so
that models cannot be compared at finite N. A line is fitted to FID against 1/N; its value at
1/N = 0 is the estimate, its slope the bias.

Protocol: the n generated images are shuffled (seeded) and cut into j disjoint parts of n/j images,
for j = 1..levels, with a new shuffle for each j: 15 FIDs at the default of 5 levels. The mean FID
of each level is one point of the fit; every level covers all images once, so that the points share
the error of the sample and the slope does not contain it. The reference is taken as it is: the
bias that its own size gives stays in the result. The authors' code fits 15 random subsets of 5,000
to 50,000 images instead; it estimates the same number, with an error that it does not state.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eval.features.registry import Features
from eval.metrics.fid import covariance_factor, frechet_distance, prepared_factor
from eval.metrics.metric import Entry, Metric, PreparedReference, Settings
from eval.metrics.statistics import Statistics, check_features
from maskgit.common.errors import UsageError

LEVELS = 5
# Images in the smallest part, per feature: with fewer the covariance is far from full rank and FID
# is no longer a line in 1/N.
ROWS_PER_FEATURE = 2


class FIDInfinity(NamedTuple):
    """The fit.

    value: the intercept, FID at 1/N = 0; sampling error can make it negative.
    standard_error: of the value, from the error of the sample (the scatter among disjoint parts)
        and that of the fit.
    slope: FID * images; the bias at N images is slope / N.
    slope_interval: 95 % (Student's t on the fit's residuals, levels - 2 degrees of freedom).
    points: (images in a part, mean FID) per level.
    """

    value: float
    standard_error: float
    slope: float
    slope_interval: tuple[float, float]
    points: list[tuple[float, float]]


def fid_infinity(
    mean: np.ndarray,
    cov: np.ndarray,
    generated: np.ndarray,
    *,
    levels: int = LEVELS,
    seed: int = 0,
    factor: np.ndarray | None = None,
) -> FIDInfinity:
    """Extrapolate the FID of generated features to infinitely many.

    Args:
        mean, cov: of the reference, (D,) and (D, D).
        generated: features (n, D); n >= levels * ROWS_PER_FEATURE * D.
        levels: the smallest parts have n / levels images; at least 3.
        seed: of the shuffles.
        factor: `covariance_factor(cov)` if it was prepared.

    Raises:
        UsageError: too few images or levels, or what `frechet_distance` refuses.
    """
    generated = check_features(generated, "generated features")
    n, dim = generated.shape
    if levels < 3:
        raise UsageError(f"FID-infinity levels {levels}: at least 3 are needed")
    needed = levels * ROWS_PER_FEATURE * dim
    if n < needed:
        raise UsageError(
            f"FID-infinity on {dim} features needs at least {needed} generated images, got {n}"
        )
    if factor is None:
        factor = covariance_factor(cov)
    rng = np.random.default_rng(seed)
    counts = np.arange(1, levels + 1)
    means, spread = np.zeros(levels), 0.0
    for j in counts:
        order = rng.permutation(n) if j > 1 else np.arange(n)
        values = []
        for rows in np.array_split(order, j):
            part = Statistics(dim)
            for start in range(0, len(rows), 8192):
                part.update(generated[rows[start : start + 8192]])
            values.append(frechet_distance(mean, cov, part.mean, part.cov, factor))
        means[j - 1] = np.mean(values)
        if j > 1:  # variance that one image gives: parts of n / j images, j - 1 degrees of freedom
            spread += np.var(values, ddof=1) * (n / j) * (j - 1)
    per_image = spread / (counts - 1).sum()

    # What is left after the sample's own error grows like j: weights 1 / j.
    sizes = n / counts
    design = np.stack([np.ones(levels), 1 / sizes], axis=1)
    weighted = design / counts[:, None]
    inverse = np.linalg.inv(weighted.T @ design)
    value, slope = inverse @ weighted.T @ means
    residuals = means - design @ [value, slope]
    scatter = (residuals**2 / counts).sum() / (levels - 2)
    fit = np.sqrt(scatter * np.diag(inverse))
    half = float(_t_quantile(levels - 2) * fit[1])
    return FIDInfinity(
        value=float(value),
        standard_error=float(np.hypot(np.sqrt(per_image / n), fit[0])),
        slope=float(slope),
        slope_interval=(float(slope) - half, float(slope) + half),
        points=[(float(size), float(mean)) for size, mean in zip(sizes, means, strict=True)],
    )


def _t_quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def _measure(
    samples: Features, reference: PreparedReference, _settings: Settings
) -> dict[str, Entry]:
    real = reference.reference
    fit = fid_infinity(real.mean, real.cov, samples.features, factor=prepared_factor(reference))
    entry: Entry = {
        "value": fit.value,
        "standard_error": fit.standard_error,
        "error": fit.standard_error,
        "error_is": "standard error, of sample and fit",
        "slope": fit.slope,
        "slope_interval": list(fit.slope_interval),
        "points": [list(point) for point in fit.points],
    }
    return {"fid-infinity": entry}


METRIC = Metric(
    "fid-infinity",
    1,
    "FID-infinity",
    2,
    "lower",
    function=_measure,
    describe=lambda _settings, _reference: {"fid_infinity_levels": LEVELS},
)
