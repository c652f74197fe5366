"""Mean and covariance of features, batch by batch in constant memory.

All sums are float64. Each batch is added as Chan, Golub and LeVeque (1979) merge two partial
results, so the order and the size of batches change a result by rounding only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from maskgit.common.errors import UsageError


def check_features(features: np.ndarray, what: str = "features", minimum: int = 1) -> np.ndarray:
    """Return features as an array (n, D), or raise a UsageError that says what is wrong."""
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0 or features.dtype.kind not in "fiu":
        raise UsageError(
            f"{what}: expected real numbers of shape (n, D), got {features.dtype} {features.shape}"
        )
    if len(features) < minimum:
        raise UsageError(f"{what}: {len(features)} rows, at least {minimum} are needed")
    if not np.isfinite(features).all():
        raise UsageError(f"{what}: {(~np.isfinite(features)).sum()} values are NaN or infinite")
    return features


class Statistics:
    """Streaming mean and covariance of rows of `dim` numbers, in float64 and constant memory."""

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))

    @classmethod
    def of(cls, features: np.ndarray, batch_size: int = 8192) -> Statistics:
        """Statistics of all rows of an array (n, D)."""
        features = check_features(features)
        result = cls(features.shape[1])
        for start in range(0, len(features), batch_size):
            result.update(features[start : start + batch_size])
        return result

    @property
    def dim(self) -> int:
        """Number of features of a row."""
        return len(self.mean)

    @property
    def cov(self) -> np.ndarray:
        """Covariance (D, D), divided by n - 1 as numpy.cov and the FID literature do.

        Raises:
            UsageError: fewer than two rows were seen.
        """
        if self.n < 2:
            raise UsageError(f"a covariance needs at least 2 images, got {self.n}")
        return self._scatter / (self.n - 1)

    def update(self, features: np.ndarray) -> None:
        """Add the rows of an array (n, D).

        Raises:
            UsageError: the shape does not fit, or a value is NaN or infinite.
        """
        rows = check_features(features).astype(np.float64)
        if rows.shape[1] != self.dim:
            raise UsageError(f"features: {rows.shape[1]} columns, these statistics have {self.dim}")
        mean = rows.mean(axis=0)
        rows -= mean
        rest = rows.mean(axis=0)  # what rounding left, when the mean is large
        rows -= rest
        n, total = len(rows), self.n + len(rows)
        delta = mean + rest - self.mean
        self._scatter += rows.T @ rows + np.outer(delta, delta) * (self.n * n / total)
        self.mean = self.mean + delta * (n / total)
        self.n = total

    def arrays(self) -> dict[str, np.ndarray]:
        """n, mean (D,) and scatter (D, D), the whole state: `from_arrays` takes them back."""
        return {"n": np.array(self.n), "mean": self.mean, "scatter": self._scatter}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Statistics:
        """The statistics that `arrays` described.

        Raises:
            UsageError: an array is missing, or they do not fit together.
        """
        try:
            n, mean, scatter = (np.asarray(arrays[key]) for key in ("n", "mean", "scatter"))
        except KeyError as error:
            raise UsageError(f"statistics: {error} is missing") from error
        floats = mean.dtype == scatter.dtype == np.float64
        fits = n.shape == () and n.dtype.kind in "iu" and floats and mean.ndim == 1
        if not fits or scatter.shape != (len(mean),) * 2 or not np.isfinite(scatter).all():
            raise UsageError(
                f"statistics: n {n.shape}, mean {mean.shape} and scatter {scatter.shape} are no "
                "statistics, expected float64 (), (D,), (D, D)"
            )
        result = cls(len(mean))
        result.n, result.mean, result._scatter = int(n), mean.copy(), scatter.copy()
        return result
