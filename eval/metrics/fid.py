"""Frechet distance between two Gaussians, the FID (Heusel et al. 2017) when they describe network
features.

    d^2 = |m1 - m2|^2 + Tr(C1) + Tr(C2) - 2 Tr((C1 C2)^(1/2))

The last trace is the sum of the singular values of A = F1' F2, where Ci = Fi Fi'. Unlike a matrix
square root of the (unsymmetric) product this has no imaginary part, is exact for singular
covariances (fewer images than features, dead features) and needs no offset on the diagonal.

Three steps make it fast at 2048 features. F1 comes from eigenvectors and is prepared once for a
reference. F2 is a pivoted Cholesky factor. And the singular values are square roots of the
eigenvalues of A A' (or A' A, the smaller), which takes a third of their time. Squares of small
values could drown in the rounding of large ones; but the factors' order grades A A' from large to
small, and a reduction that starts at the large end keeps the small eigenvalues of a graded matrix.
Whether it did is checked with the determinant, and the singular values are computed where it did
not.
"""

from __future__ import annotations

import numpy as np

from eval.features.registry import Features
from eval.metrics.metric import Entry, Metric, PreparedReference, Settings
from eval.metrics.statistics import Statistics
from maskgit.common.errors import UsageError

# The smallest eigenvalues of A A' may be off by so much, relative to themselves and summed.
DETERMINANT = 1e-4


def covariance_factor(cov: np.ndarray) -> np.ndarray:
    """F (D, rank) with F F' = cov, by eigenvalues, its orthogonal columns from long to short.

    Directions whose eigenvalue is rounding noise (below D * eps * the largest) are left out:
    their square root would be 1e-8 of the largest instead of 0. A reference's factor can be
    prepared once.

    Raises:
        UsageError: not a square, finite, symmetric, positive semi-definite matrix.
    """
    cov = _checked(cov)
    values, vectors = np.linalg.eigh(cov)
    if values[0] < -1e-6 * max(values[-1], 0) or values[-1] < 0:
        raise UsageError(f"covariance: has the negative eigenvalue {values[0]:.3g}")
    keep = np.flatnonzero(values > max(values[-1], 0) * _noise(cov))[::-1]
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
    elif factor1.ndim != 2 or len(factor1) != dim:
        raise UsageError(f"factor1: shape {factor1.shape} is no factor of {dim} features")
    offset = mean1 - mean2
    trace = _nuclear_norm(factor1, _triangular_factor(cov2))
    distance = offset @ offset + np.trace(cov1) + np.trace(cov2) - 2 * trace
    return max(float(distance), 0.0)  # equal Gaussians give 0 up to rounding, of either sign


def _checked(cov: np.ndarray) -> np.ndarray:
    cov = np.asarray(cov, np.float64)
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or cov.size == 0:
        raise UsageError(f"covariance: expected a square matrix, got shape {cov.shape}")
    if not np.isfinite(cov).all():
        raise UsageError("covariance: has NaN or infinite values")
    if np.abs(cov - cov.T).max() > 1e-8 * np.abs(cov).max():
        raise UsageError("covariance: is not symmetric")
    return (cov + cov.T) / 2


def _noise(cov: np.ndarray) -> float:
    """Share of the largest eigenvalue or variance below which a direction is rounding."""
    return len(cov) * float(np.finfo(np.float64).eps)


def _triangular_factor(cov: np.ndarray) -> np.ndarray:
    """F (D, rank) with F F' = cov, like `covariance_factor` in an eighth of its time."""
    from scipy.linalg.lapack import dpstrf

    cov = _checked(cov)
    largest = cov.diagonal().max()
    if largest <= 0:
        return covariance_factor(cov)  # zero, or no covariance
    factor, pivots, rank, _ = dpstrf(cov, lower=1, tol=largest * _noise(cov))
    order = pivots - 1
    lower = np.tril(factor)[:, :rank]
    # What a covariance leaves over is rounding. If it is not, the eigenvalues say what is wrong.
    if rank < len(cov):
        rest = cov[np.ix_(order[rank:], order[rank:])] - lower[rank:] @ lower[rank:].T
        if np.abs(rest).max() > 1e-8 * largest:
            return covariance_factor(cov)
    result = np.empty_like(lower)
    result[order] = lower
    return result


def _nuclear_norm(factor1: np.ndarray, factor2: np.ndarray) -> float:
    """Sum of the singular values of factor1' factor2."""
    lengths = np.square(factor1).sum(axis=0)
    product = factor1[:, np.argsort(-lengths, kind="stable")].T @ factor2
    if product.size == 0:
        return 0.0
    if len(product) > product.shape[1]:
        product = product.T  # its rows are in order too: Cholesky took the largest pivots first
    # "L": the reduction takes the columns of the lower triangle from the first, largest, on.
    values = np.linalg.eigvalsh(product @ product.T, UPLO="L")
    if values[0] > 0:
        # The determinant of the product with its transpose, by a way that squares nothing.
        if product.shape[0] == product.shape[1]:
            expected = np.linalg.slogdet(product)[1]
        else:
            with np.errstate(divide="ignore"):
                diagonal = np.diagonal(np.linalg.qr(product.T, mode="r"))
                expected = np.log(np.abs(diagonal)).sum()
        if abs(np.log(values).sum() - 2 * expected) < DETERMINANT:
            return float(np.sqrt(values).sum())
    return float(np.linalg.svd(product, compute_uv=False).sum())


def prepared_factor(reference: PreparedReference) -> np.ndarray:
    """`covariance_factor` of a reference, computed once."""
    return reference.once("factor", lambda: covariance_factor(reference.reference.cov))


def _distance(samples: Features, reference: PreparedReference) -> float:
    real, generated = reference.reference, Statistics.of(samples.features)
    return frechet_distance(
        real.mean, real.cov, generated.mean, generated.cov, prepared_factor(reference)
    )


def _fid(samples: Features, reference: PreparedReference, _: Settings) -> dict[str, Entry]:
    return {"fid": {"value": _distance(samples, reference)}}


def _fd_dinov2(samples: Features, reference: PreparedReference, _: Settings) -> dict[str, Entry]:
    return {"fd-dinov2": {"value": _distance(samples, reference)}}


METRIC = Metric("fid", 1, "FID", 2, "lower", function=_fid)
FD_DINOV2 = Metric(
    "fd-dinov2",
    1,
    "FD-DINOv2",
    1,
    "lower",
    function=_fd_dinov2,
    network="dinov2-vit-l-14",
    id_form="fd.{features}.v{version}",
)
