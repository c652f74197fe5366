"""Distances in float32: factors of one product for all pairs, and bounds of its rounding.

In a frame's coordinates -|x - y|^2 / 2 = x'y - |x|^2 / 2 - |y|^2 / 2. The largest rounding error is
added to it, so that the computed value is never below the true one.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SAMPLE = 1024  # points that the center of a frame is the mean of
DIFFERENCE_BYTES = 2**19  # of float64 differences at a time, so that they stay in a core's cache
EPS32, EPS64 = 2.0**-24, 2.0**-53
BLOCK = 64  # rows converted at a time, so that they stay in a core's cache


@dataclass(frozen=True)
class Frame:
    """Origin and unit of coordinates. Any frame gives valid bounds.

    Attributes:
        center: (D,) float32; distances do not depend on it, their rounding does.
        scale: power of two, about the largest norm; coordinates are divided by it.
    """

    center: Tensor
    scale: float

    @classmethod
    def around(cls, points: Tensor) -> Frame:
        """A frame in which the norms of these points are at most about 1."""
        center = points[:: -(-len(points) // SAMPLE)].double().mean(dim=0).float()
        largest = float(torch.linalg.vector_norm(points, math.inf)) * math.sqrt(points.shape[1])
        scale = 2.0 ** math.ceil(math.log2(largest)) if 0 < largest < math.inf else 1.0
        return cls(center, scale)

    def coordinates(self, points: Tensor) -> Tensor:
        """(points - center) / scale in float32, with a relative error of 2^-24 in each number."""
        if points.dtype == torch.float32 and 1e-25 < self.scale < 1e25:
            return (points - self.center).mul_(1 / self.scale)
        return ((points.double() - self.center) / self.scale).float()


def as_points(features: np.ndarray) -> Tensor:
    """Features (n, D) as a float32 tensor if that holds them, else as float64."""
    narrow = np.can_cast(features.dtype, np.float32)
    features = np.ascontiguousarray(features, np.float32 if narrow else np.float64)
    if not features.flags.writeable:  # torch has no read-only tensors, and warns
        features = features.copy()
    return torch.from_numpy(features)


class Projected:
    """Points as factors of a matrix of closeness,

        closeness(x, y) = inner(x)'inner(y) + shift(x) + shift(y)
                        = -|x - y|^2 / (2 scale^2) + excess,   excess >= 0.

    The excess covers the rounding: `slack` of each point.

    Attributes:
        inner: coordinates, float32 (n, D).
        norms: squared norms over scale^2, float64 (n,).
        slack: float64 (n,); the excess is at most 3 / 2 of both points' slack.
        shift: slack less half of the norms, float64 (n,).
    """

    def __init__(self, points: Tensor, frame: Frame) -> None:
        self.inner = torch.empty(points.shape, dtype=torch.float32)
        for start in range(0, len(points), BLOCK):
            part = slice(start, start + BLOCK)
            self.inner[part] = frame.coordinates(points[part])
        self.norms = torch.linalg.vector_norm(self.inner, dim=1).double().square()
        # A float32 sum of so many products, in any order, of factors rounded before is off by at
        # most this share of the sum of their absolute values, here |x|^2 + |y|^2; and so are norms.
        self.slack = 4 * sum_rounding(points.shape[1]) * self.norms
        self.shift = self.slack - self.norms / 2


class Points:
    """A set of points, and questions about another set that both ways of searching answer.

    Attributes:
        points: features (n, D), float32 if that holds them, else float64.
        frame: around them.
    """

    points: Tensor
    frame: Frame

    def inside_each(
        self, other: Points, squared_radii: Tensor, others_radii: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whether each of another set's points lies in any ball around this set's points, the rims
        included, bool (m,), and whether each of this set's lies in any of the other's, bool
        (n,)."""
        raise NotImplementedError

    def counts_inside(self, features: np.ndarray | Points, squared_radii: Tensor) -> Tensor:
        """How many of some points (m, D) each ball holds, its rim left out; int64 (n,)."""
        raise NotImplementedError


def sum_rounding(terms: int) -> float:
    """Largest rounding error of a float32 sum of so many products, in any order, over the sum of
    their absolute values."""
    return 1.01 * (terms + 16) * EPS32


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute products of float32 matrices in float32, even if torch was told to use less."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


def products(asked: Projected, row: Tensor, cloud: Projected, column: Tensor) -> Tensor:
    """Closeness of pairs of projected points, as float64; the rows in order."""
    if len(row) == 0:
        return torch.zeros(0, dtype=torch.float64)
    n, m = len(asked.inner), len(cloud.inner)
    starts = torch.zeros(n + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(row, minlength=n).cumsum(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse matrices a beta
        pattern = torch.sparse_csr_tensor(
            starts, column, torch.zeros(len(row)), (n, m), check_invariants=False
        )
        inner = torch.sparse.sampled_addmm(pattern, asked.inner, cloud.inner.T, beta=0.0)
    return inner.values().double() + asked.shift[row] + cloud.shift[column]


def squared_lengths(points: Tensor, row: Tensor, others: Tensor, column: Tensor) -> Tensor:
    """Squared length of points[row] - others[column]; float64 (pairs,)."""
    result = torch.empty(len(row), dtype=torch.float64)
    size, dim = max(1, DIFFERENCE_BYTES // (8 * points.shape[1])), points.shape[1]
    size = min(size, len(row))
    left, right = points.new_empty(size, dim), others.new_empty(size, dim)
    difference = torch.empty(size, dim, dtype=torch.float64)
    for start in range(0, len(row), max(1, size)):
        part = slice(start, start + size)
        n = len(row[part])
        torch.index_select(points, 0, row[part], out=left[:n])
        torch.index_select(others, 0, column[part], out=right[:n])
        difference[:n].copy_(left[:n]).sub_(right[:n])
        result[part] = difference[:n].square_().sum(dim=1)
    return result


def kth_of_rows(row: Tensor, values: Tensor, k: int | Tensor) -> Tensor:
    """The k-th smallest of the values of each row; every row 0, 1, ... has at least k."""
    order = values.argsort()
    order = order[row[order].argsort(stable=True)]
    counts = torch.bincount(row)
    return values[order[counts.cumsum(0) - counts + k - 1]]
