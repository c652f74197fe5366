"""Similarity of reconstructed images and their originals, pair by pair: PSNR, SSIM, LPIPS, and the
share of tokens that two encodings have in common.

    PSNR = 10 log10(1 / MSE), in dB, over all pixels and channels in [0, 1]; equal images: infinity
    SSIM (Wang et al. 2004): Gaussian window of 11 pixels, deviation 1.5, K = 0.01 and 0.03, range
    1, population variances, windows that lie whole in the image, mean over positions and channels

This is scikit-image's SSIM with gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
An image of 32x32 has 22x22 such windows; an image below 11 pixels has none, and no SSIM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eval.features.registry import check_pairs
from eval.metrics.metric import Metric
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from eval.metrics.lpips_distance import LPIPS

WINDOW, SIGMA = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03
CHUNK = 64  # images in float64 at a time


_NEEDS = frozenset({"held_out"})
PSNR = Metric("psnr", 1, "PSNR", 2, "higher", unit="dB", needs=_NEEDS, id_form="psnr.v{version}")
SSIM = Metric(
    "ssim", 1, "SSIM", 3, "higher", needs=_NEEDS, id_form=f"ssim.gaussian-{WINDOW}.v{{version}}"
)
TOKEN_AGREEMENT = Metric(
    "token-agreement",
    1,
    "Token agreement",
    3,
    "higher",
    needs=_NEEDS,
    id_form="token-agreement.v{version}",
)


def reconstruction(
    original: np.ndarray, reconstructed: np.ndarray, lpips: LPIPS | None = None
) -> dict[str, np.ndarray]:
    """All measures of pairs of images.

    Args:
        original, reconstructed: uint8 (n, H, W, C), C of 1 or 3, or floating point in [0, 1].
        lpips: a loaded `eval.metrics.lpips_distance.LPIPS` (raises Unavailable where its network
            is not here); None leaves LPIPS out.

    Returns:
        name -> float64 (n,): psnr (dB), ssim (at most 1), and lpips (from 0) if it was given.

    Raises:
        UsageError: shapes differ, another type or range, or images too small for SSIM.
    """
    values = {"psnr": psnr(original, reconstructed), "ssim": ssim(original, reconstructed)}
    if lpips is not None:
        pair = (_as_lpips(images) for images in (original, reconstructed))
        values["lpips"] = lpips.distances(*pair).astype(np.float64)
    return values


def summarize(values: np.ndarray) -> dict[str, float | int]:
    """Mean and deviation over images.

    Returns:
        n, mean and deviation (n - 1; NaN for one image) of the finite values, and `infinite`: the
        number of others, such as the PSNR of equal images. The mean of no values is infinity.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0 or np.isnan(values).any():
        raise UsageError(f"values {values.shape}: expected one number for each image")
    finite = values[np.isfinite(values)]
    return {
        "n": len(values),
        "mean": float(finite.mean()) if len(finite) else float("inf"),
        "deviation": float(finite.std(ddof=1)) if len(finite) > 1 else float("nan"),
        "infinite": len(values) - len(finite),
    }


def psnr(original: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each pair in dB, float64 (n,); infinity for equal images.

    Args and errors as for `reconstruction`. The mean over images is not the PSNR of their mean
    error: each image's ratio is taken first, as it is in the literature of tokenizers.
    """
    original, reconstructed = _check(original, reconstructed)
    result = np.empty(len(original))
    for rows in _chunks(len(original)):
        error = _unit(original[rows]) - _unit(reconstructed[rows])
        mse = np.square(error).mean(axis=(1, 2, 3))
        with np.errstate(divide="ignore"):
            result[rows] = -10 * np.log10(mse)
    return result


def ssim(original: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """Structural similarity of each pair, float64 (n,), at most 1 (equal images).

    Args and errors as for `reconstruction`; at least 11 pixels on both sides.
    """
    original, reconstructed = _check(original, reconstructed)
    height, width = original.shape[1:3]
    if min(height, width) < WINDOW:
        raise UsageError(f"SSIM takes images from {WINDOW}x{WINDOW}, got {width}x{height}")
    result = np.empty(len(original))
    for rows in _chunks(len(original)):
        x, y = _unit(original[rows]), _unit(reconstructed[rows])
        mean_x, mean_y = _blur(x), _blur(y)
        var_x = _blur(x * x) - mean_x**2
        var_y = _blur(y * y) - mean_y**2
        cov = _blur(x * y) - mean_x * mean_y
        top = (2 * mean_x * mean_y + K1**2) * (2 * cov + K2**2)
        bottom = (mean_x**2 + mean_y**2 + K1**2) * (var_x + var_y + K2**2)
        result[rows] = (top / bottom).mean(axis=(1, 2, 3))
    return result


def token_agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of equal tokens in each pair of encodings, float64 (n,) in [0, 1].

    Args:
        first, second: integers (n, N) or (n, h, w).

    Raises:
        UsageError: shapes differ, no tokens, or another type.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim not in (2, 3) or 0 in first.shape:
        raise UsageError(
            f"tokens {first.shape} and {second.shape}: expected twice (n, N) or (n, h, w)"
        )
    if first.dtype.kind not in "iu" or second.dtype.kind not in "iu":
        raise UsageError(f"tokens {first.dtype} and {second.dtype}: expected integers")
    return (first == second).reshape(len(first), -1).mean(axis=1)


def _blur(images: np.ndarray) -> np.ndarray:
    """Weighted mean of every 11 x 11 window: (n, H, W, C) -> (n, H - 10, W - 10, C)."""
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (distance / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        size = images.shape[axis] - WINDOW + 1
        parts = (np.take(images, range(i, i + size), axis) * w for i, w in enumerate(weights))
        images = sum(parts, start=np.zeros(()))
    return images


def _check(original: np.ndarray, reconstructed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return check_pairs(original, reconstructed, ("original", "reconstructed"), (0, 1))


def _unit(images: np.ndarray) -> np.ndarray:
    """float64 in [0, 1]."""
    scale = 255 if images.dtype == np.uint8 else 1
    return images.astype(np.float64) / scale


def _as_lpips(images: np.ndarray) -> np.ndarray:
    """Images in LPIPS's range: uint8, or floating point in [-1, 1]."""
    return images if images.dtype == np.uint8 else images * 2 - 1


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
