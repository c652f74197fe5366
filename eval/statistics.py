"""Mean and covariance of features, streaming and mergeable, and the reference statistics that
ship with the package.

All sums are float64. Two partial results merge exactly as if one had seen all rows (Chan, Golub
and LeVeque 1979), so the order of batches and the number of workers change a result by rounding
only.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.errors import UsageError, one_line
from eval.weights import ZOO, weights_sha256

# What ships: the name given on a command line -> (file below the zoo, the extractor it was made
# with).
REFERENCES = {
    "fashion-mnist-train": ("fashion-mnist/reference-fashion-resnet.npz", "fashion-resnet"),
}


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
        self._add(len(rows), mean, rows.T @ rows)

    def merge(self, other: Statistics) -> None:
        """Add what another worker has seen.

        Raises:
            UsageError: the two have a different number of features.
        """
        if other.dim != self.dim:
            raise UsageError(f"statistics of {other.dim} and {self.dim} features do not merge")
        self._add(other.n, other.mean, other._scatter)

    def _add(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.n + n
        if n == 0:
            return
        delta = mean - self.mean
        self._scatter += scatter + np.outer(delta, delta) * (self.n * n / total)
        self.mean = self.mean + delta * (n / total)
        self.n = total


@dataclass(frozen=True)
class Reference:
    """The real images' side of a measurement.

    Attributes:
        name: as given to `load_reference`.
        extractor: name of the network the features come from.
        n: number of images behind mean and cov.
        mean, cov: float64 (D,) and (D, D), of all n images.
        features: float32 (m, D), a fixed random subset for precision/recall and KID. Row i is of
            class i % classes, so that any first rows are balanced.
        sha256: of the file, the identity of this reference.
        weights_sha256: of the extractor's weights.
    """

    name: str
    extractor: str
    n: int
    mean: np.ndarray
    cov: np.ndarray
    features: np.ndarray
    sha256: str
    weights_sha256: str


def save_reference(
    path: str | Path,
    statistics: Statistics,
    features: np.ndarray,
    extractor: str,
    weights: str,
    description: str,
) -> None:
    """Write reference statistics as an npz without pickles; equal content gives equal bytes."""
    arrays = {
        "mean": statistics.mean,
        "cov": statistics.cov,
        "n": np.array(statistics.n),
        "features": features.astype(np.float32),
        "extractor": np.array(extractor),
        "weights_sha256": np.array(weights),
        "description": np.array(description),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            # A ZipInfo of our own carries no time of day.
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED
            )
    os.replace(temporary, path)


def load_reference(
    name: str, extractor: str | None = None, weights_dir: str | Path | None = None
) -> Reference:
    """Load reference statistics that ship with the package.

    Args:
        name: one of REFERENCES, today `fashion-mnist-train`.
        extractor: the extractor the caller measures with; checked when given.
        weights_dir: folder of the extractor's weights when they are not the shipped ones.

    Raises:
        UsageError: unknown name, missing or broken file, another extractor, or weights other than
            those the reference was made with.
    """
    if name not in REFERENCES:
        raise UsageError(f"reference {name!r}: expected one of {', '.join(REFERENCES)}")
    file, made_with = REFERENCES[name]
    if extractor is not None and extractor != made_with:
        raise UsageError(
            f"reference {name} holds features of {made_with}, not of {extractor}: "
            f"use --features {made_with}, or give the real images as the reference"
        )
    reference = read_reference(ZOO / file, name)
    actual = weights_sha256(made_with, weights_dir)
    if reference.weights_sha256 != actual:
        raise UsageError(
            f"reference {name} was made with {made_with} weights "
            f"{reference.weights_sha256[:12]}, the weights here are {actual[:12]}: "
            "build it again (python -m experiments.build_reference)"
        )
    return reference


@functools.lru_cache(maxsize=4)
def read_reference(path: Path, name: str) -> Reference:
    """Read one reference file (kept in memory); `load_reference` checks it against the weights."""
    try:
        raw = path.read_bytes()
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        for array in arrays.values():
            array.setflags(write=False)  # the result is shared by all callers
        return Reference(
            name=name,
            extractor=str(arrays["extractor"]),
            n=int(arrays["n"]),
            mean=arrays["mean"],
            cov=arrays["cov"],
            features=arrays["features"],
            sha256=hashlib.sha256(raw).hexdigest(),
            weights_sha256=str(arrays["weights_sha256"]),
        )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not a readable reference file ({one_line(error)})") from error
