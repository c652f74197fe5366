"""Frechet distance between two Gaussians, the FID (Heusel et al. 2017) when they describe network
features.

    d^2 = |m1 - m2|^2 + Tr(C1) + Tr(C2) - 2 Tr((C1 C2)^(1/2))

The last trace is the sum of the singular values of F1' F2, where Ci = Fi Fi'. Unlike a matrix
square root of the (unsymmetric) product this has no imaginary part, is exact for singular
covariances (fewer images than features, dead features) and needs no offset on the diagonal.
"""

from __future__ import annotations

import numpy as np

from eval.errors import UsageError

METRIC = "fid"
VERSION = 1


def metric_id(features: str) -> str:
    """`fid.FEATURES.vN`: what may share a column."""
    return f"{METRIC}.{features}.v{VERSION}"


def covariance_factor(cov: np.ndarray) -> np.ndarray:
    """F (D, rank) with F F' = cov, by eigenvalues.

    Directions whose eigenvalue is rounding noise (below D * eps * the largest) are left out:
    their square root would be 1e-8 of the largest instead of 0. A reference's factor can be
    prepared once.

    Raises:
        UsageError: not a square, finite, symmetric, positive semi-definite matrix.
    """
    cov = np.asarray(cov, np.float64)
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or cov.size == 0:
        raise UsageError(f"covariance: expected a square matrix, got shape {cov.shape}")
    if not np.isfinite(cov).all():
        raise UsageError("covariance: has NaN or infinite values")
    scale = np.abs(cov).max()
    if np.abs(cov - cov.T).max() > 1e-8 * scale:
        raise UsageError("covariance: is not symmetric")
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    if values[0] < -1e-6 * max(values[-1], 0) or values[-1] < 0:
        raise UsageError(f"covariance: has the negative eigenvalue {values[0]:.3g}")
    keep = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, keep] * np.sqrt(values[keep])


def frechet_distance(
    mean1: np.ndarray,
    cov1: np.ndarray,
    mean2: np.ndarray,
    cov2: np.ndarray,
    factor1: np.ndarray | None = None,
) -> float:
    """Squared Frechet (2-Wasserstein) distance between N(mean1, cov1) and N(mean2, cov2);
    symmetric, >= 0.

    Args:
        mean1, mean2: (D,).
        cov1, cov2: (D, D), symmetric positive semi-definite, possibly singular.
        factor1: `covariance_factor(cov1)` if it was prepared.

    Raises:
        UsageError: shapes that do not fit, NaN or infinite values, or a matrix that is no
            covariance.
    """
    mean1, mean2 = np.asarray(mean1, np.float64), np.asarray(mean2, np.float64)
    cov1, cov2 = np.asarray(cov1, np.float64), np.asarray(cov2, np.float64)
    shapes = [mean1.shape, cov1.shape, mean2.shape, cov2.shape]
    dim = len(mean1) if mean1.ndim == 1 else -1
    if shapes != [(dim,), (dim, dim)] * 2:
        raise UsageError(f"means and covariances do not fit: shapes {', '.join(map(str, shapes))}")
    if not (np.isfinite(mean1).all() and np.isfinite(mean2).all()):
        raise UsageError("mean: has NaN or infinite values")
    if factor1 is None:
        factor1 = covariance_factor(cov1)
    product = factor1.T @ covariance_factor(cov2)
    trace = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    offset = mean1 - mean2
    distance = offset @ offset + np.trace(cov1) + np.trace(cov2) - 2 * trace
    return max(float(distance), 0.0)  # equal Gaussians give 0 up to rounding, of either sign
