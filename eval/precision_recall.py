"""Improved precision and recall (Kynkaanniemi et al. 2019), k = 3.

A set of features spans a manifold: the union of balls around its points, each reaching to the
point's k-th nearest neighbour in the set. Precision is the share of generated points inside the
real manifold, recall the share of real points inside the generated one. Both depend on the sizes
of the two sets: compare only numbers of equal sizes.

Distances come from matrix products in blocks of bounded memory. What rounding could decide (a
point on the rim of a ball, as when images are repeated or copied from the training set) is
recomputed from the differences, so the result does not depend on the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from eval.errors import UsageError
from eval.statistics import check_features

METRIC = "precision-recall"
VERSION = 1
BLOCK_BYTES = 128 * 2**20  # of one block of distances
# Squared distances by |x|^2 + |y|^2 - 2 x'y are wrong by far less than this times |x|^2 + |y|^2.
ROUNDING = 1e-12


def metric_ids(features: str) -> dict[str, str]:
    """`precision.FEATURES.vN` and `recall.FEATURES.vN`: what may share a column."""
    return {name: f"{name}.{features}.v{VERSION}" for name in ("precision", "recall")}


class Manifold:
    """A set of features and the squared radius of the ball around each; built once, asked often.

    Raises:
        UsageError: wrong shape, NaN or infinite values, k < 1, or fewer than k + 1 points.
    """

    def __init__(self, features: np.ndarray, k: int = 3, what: str = "features") -> None:
        if k < 1:
            raise UsageError(f"precision/recall k={k}: at least 1 is needed")
        features = check_features(features, what)
        if len(features) < k + 1:
            raise UsageError(
                f"{what}: precision/recall with k={k} needs at least {k + 1} images, "
                f"got {len(features)}"
            )
        self.k = k
        self.points = torch.from_numpy(features.astype(np.float64))
        # Distances do not change when all points move: nearer to 0 they are rounded less.
        self.center = self.points.mean(dim=0)
        self._shifted = self.points - self.center
        self._norms = self._shifted.square().sum(dim=1)
        self.radii = self._radii()

    def _blocks(
        self, points: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Blocks of (rows, squared distances to all of this set, bound of their rounding)."""
        size = max(1, BLOCK_BYTES // (8 * len(self.points)))
        for rows in torch.arange(len(points)).split(size):
            shifted = points[rows] - self.center
            norms = shifted.square().sum(dim=1, keepdim=True)
            squared = torch.addmm(self._norms[None, :] + norms, shifted, self._shifted.T, alpha=-2)
            yield rows, squared, ROUNDING * (norms + self._norms.max())

    def _radii(self) -> torch.Tensor:
        radii = torch.empty(len(self.points), dtype=torch.float64)
        for rows, squared, _ in self._blocks(self.points):
            squared[torch.arange(len(rows)), rows] = torch.inf  # a point is no neighbour of itself
            near = squared.topk(self.k, dim=1, largest=False).indices
            difference = self.points[near] - self.points[rows][:, None]
            radii[rows] = difference.square().sum(dim=2).amax(dim=1)
        return radii

    def contains(self, features: np.ndarray) -> np.ndarray:
        """Whether each point of an array (m, D) lies in any ball (the rim included); bool (m,).

        Raises:
            UsageError: wrong shape, another number of columns, NaN or infinite values.
        """
        points = torch.from_numpy(check_features(features).astype(np.float64))
        if points.shape[1] != self.points.shape[1]:
            raise UsageError(
                f"features: {points.shape[1]} columns, the manifold has {self.points.shape[1]}"
            )
        inside = torch.zeros(len(points), dtype=torch.bool)
        for rows, margin, rounding in self._blocks(points):
            margin -= self.radii
            found = (margin < -rounding).any(dim=1)
            # Rows that rounding decides: take the differences themselves.
            on_rim = margin <= rounding
            for row in torch.nonzero(~found & on_rim.any(dim=1))[:, 0]:
                rim = torch.nonzero(on_rim[row])[:, 0]
                exact = (self.points[rim] - points[rows[row]]).square().sum(dim=1)
                found[row] = bool((exact <= self.radii[rim]).any())
            inside[rows] = found
        return inside.numpy()


def precision_recall(
    real: np.ndarray | Manifold, generated: np.ndarray, k: int = 3
) -> tuple[float, float]:
    """Precision and recall, each in [0, 1].

    Args:
        real: features (n, D), or their `Manifold` with the same k (prepared once for many calls).
        generated: features (m, D); m may differ from n.
        k: the neighbour that sets a ball's radius.

    Raises:
        UsageError: wrong shapes, NaN or infinite values, or fewer than k + 1 points on a side.
    """
    if not isinstance(real, Manifold):
        real = Manifold(real, k, "real features")
    elif real.k != k:
        raise UsageError(f"the real manifold was built with k={real.k}, asked for k={k}")
    fake = Manifold(generated, k, "generated features")
    precision = real.contains(generated).mean()
    recall = fake.contains(real.points.numpy()).mean()
    return float(precision), float(recall)
