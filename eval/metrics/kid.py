"""Kernel distance (KID, Binkowski et al. 2018): squared MMD with a cubic polynomial kernel,
unbiased, over subsets.

It equals torch-fidelity's on the same features, seed and subsets (its first input are the generated
images). The deviation over those subsets is not the error of their mean, because they share images
and there can be any number of them. `standard_error` estimates that error from subsets that share
none.
"""

from __future__ import annotations

import numpy as np

from eval.features.registry import Features
from eval.metrics.metric import Entry, Metric, PreparedReference, Settings
from eval.metrics.statistics import check_features
from maskgit.common.errors import UsageError

SUBSET_SIZE = 1000


def kernel_distance(
    real: np.ndarray,
    generated: np.ndarray,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 2020,
) -> tuple[float, float]:
    """Mean and deviation over random subsets of the unbiased squared MMD, k(x, y) = (x'y / D +
    1)^3.

    Values near 0 can be negative: the estimate is unbiased.

    Args:
        real, generated: features (n, D) and (m, D).
        subsets: number of subsets drawn.
        subset_size: images a subset takes from each side, without replacement; default 1000, or
            all images of the smaller side if there are fewer (its subset is then always the same,
            and the deviation that of the other side alone).
        seed: of the draws (numpy's RandomState).

    Raises:
        UsageError: wrong shapes, NaN or infinite values, fewer than 2 images, or fewer than
            subset_size.
    """
    real, generated = _check_pair(real, generated)
    smaller = min(len(real), len(generated))
    if subset_size is None:
        subset_size = min(SUBSET_SIZE, smaller)
    if subsets < 1:
        raise UsageError(f"KID subsets {subsets}: at least 1 is needed")
    if not 2 <= subset_size <= smaller:
        raise UsageError(
            f"KID subset size {subset_size}: expected 2 to {smaller}, "
            f"with {len(real)} real and {len(generated)} generated images"
        )
    rng = np.random.RandomState(seed)  # torch-fidelity's draws, in its order
    distances = np.zeros(subsets)
    for i in range(subsets):
        x = generated[rng.choice(len(generated), subset_size, replace=False)]
        y = real[rng.choice(len(real), subset_size, replace=False)]
        distances[i] = _squared_mmd(x, y)
    return float(distances.mean()), float(distances.std())


def standard_error(
    real: np.ndarray, generated: np.ndarray, subset_size: int | None = None, seed: int = 2020
) -> tuple[float, int]:
    """Standard error of the kernel distance between two sets, and the number of disjoint subsets
    that it comes from.

    Both sides are shuffled and cut into pairs of subsets that share no image; their distances are
    independent, so sd / sqrt(number) is the error of their mean (Zaremba et al. 2013). That mean
    is no better an estimate than the one over random subsets, so the error is if anything too
    large for the latter.

    Args:
        real, generated: features (n, D) and (m, D).
        subset_size: images a subset takes from each side; default 1000, or a tenth of the smaller
            side if that is less.
        seed: of the shuffle.

    Raises:
        UsageError: as `kernel_distance`, or too few images for two subsets.
    """
    real, generated = _check_pair(real, generated)
    smaller = min(len(real), len(generated))
    if subset_size is None:
        subset_size = max(2, min(SUBSET_SIZE, smaller // 10))
    if not 2 <= subset_size <= smaller // 2:
        raise UsageError(
            f"KID's standard error in subsets of {subset_size}: needs at least 2 of them, "
            f"with {len(real)} real and {len(generated)} generated images"
        )
    number = smaller // subset_size
    rng = np.random.default_rng(seed)
    x, y = (rng.permutation(len(side))[: number * subset_size] for side in (generated, real))
    distances = [
        _squared_mmd(generated[a], real[b])
        for a, b in zip(x.reshape(number, -1), y.reshape(number, -1), strict=True)
    ]
    return float(np.std(distances, ddof=1) / np.sqrt(number)), number


def _check_pair(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real = check_features(real, "real features", 2)
    generated = check_features(generated, "generated features", 2)
    if real.shape[1] != generated.shape[1]:
        raise UsageError(
            f"features: {real.shape[1]} columns real, {generated.shape[1]} columns generated"
        )
    return real, generated


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD of two sets of equal size m, with the pairs x, x and y, y left out."""
    m = len(x)
    x, y = x.astype(np.float64), y.astype(np.float64)
    within = 0.0
    for rows in (x, y):
        kernel = _cubic_kernel(rows, rows)
        within += kernel.sum() - np.trace(kernel)
    return within / (m * (m - 1)) - 2 * _cubic_kernel(x, y).sum() / m**2


def _cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base


def _measure(
    samples: Features, reference: PreparedReference, _settings: Settings
) -> dict[str, Entry]:
    real = reference.reference.kept_features("KID")
    size = min(SUBSET_SIZE, len(real), len(samples.features))
    value, sd = kernel_distance(real, samples.features, subset_size=size)
    entry: Entry = {"value": value, "sd": sd, "subset_size": size}
    try:
        error, subsets = standard_error(real, samples.features)
    except UsageError:  # fewer than two disjoint subsets
        return {"kid": entry}
    entry |= {
        "standard_error": error,
        "error": error,
        "error_is": f"standard error, from {subsets} disjoint subsets",
    }
    return {"kid": entry}


def _describe(_settings: Settings, reference: PreparedReference) -> dict[str, object]:
    return {"kid_reference_n": len(reference.reference.features)}


METRIC = Metric(
    "kid",
    1,
    "KID",
    4,
    "lower",
    needs=frozenset({"features", "reference", "real_features"}),
    function=_measure,
    describe=_describe,
)
