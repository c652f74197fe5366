"""Bounds from below for distances in many dimensions, from few.

Features of networks vary mostly along few directions, and these tell the far pairs: with z(x) the
coordinates in an orthonormal basis and q(x) the length of what the basis misses, Cauchy-Schwarz
gives

    |x - y|^2 >= |z(x) - z(y)|^2 + (q(x) - q(y))^2 = |x|^2 + |y|^2 - 2 (z(x)'z(y) + q(x) q(y))

for all pairs by one product of narrow float32 matrices. The worst that rounding can do is added.
How narrow pays is measured on a sample; where no projection helps (white noise) all directions are
kept, and the bound is the distance but for rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PAIR_COST = 40  # of a pair on its own, in multiplications of a matrix product per dimension
WIDTHS = (32, 64, 128, 192, 256, 384, 512, 768, 1024)
FEWEST = 1024  # points, below which a projection does not pay
SAMPLE_ROWS, SAMPLE_COLUMNS, SAMPLE_BASIS = 128, 2048, 4096
EPS32, EPS64 = 2.0**-24, 2.0**-53
BLOCK = 2048  # rows converted at a time
DEPTH = 256  # terms of a float32 sum in a projection; the sums of these are few
GROUP = 32  # right factors are filled up to a multiple of this
NOWHERE = -1e30  # closeness to what fills them up


@dataclass(frozen=True)
class Frame:
    """From where and how large points are seen. Any frame gives valid bounds.

    Attributes:
        center: (D,) float32; distances do not depend on it, their rounding does.
        scale: power of two, about the largest norm; coordinates are divided by it.
    """

    center: Tensor
    scale: float

    @classmethod
    def around(cls, points: Tensor) -> Frame:
        """A frame in which the norms of these points are at most about 1."""
        center = points[_sample(len(points))].double().mean(dim=0).float()
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


class Side:
    """Points as factors of a matrix of closeness,

        closeness(x, y) = inner(x)'inner(y) + shift(x) + shift(y)
                        = -|x - y|^2 / (2 scale^2) + excess,   excess >= 0.

    The excess is what the directions miss, plus what covers the rounding: `slack` of each point.

    Attributes:
        inner: coordinates, float32 (n, width).
        norms: squared norms over scale^2, float64 (n,).
        slack: float64 (n,); with all directions the excess is at most 3 / 2 of both points' slack.
        shift: slack less half of the norms, float64 (n,).
        rounding: of a closeness in float32, in any order of its sums, over the sum of its terms.
    """

    def __init__(
        self, inner: Tensor, norms: Tensor, norm_rounding: float, lost: float = 0.0
    ) -> None:
        # A float32 sum of so many products, in any order, of factors rounded before is off by at
        # most this share of the sum of their absolute values, here |x|^2 + |y|^2.
        self.rounding = _sum_rounding(inner.shape[1]) + 1.1 * lost
        self.inner, self.norms = inner, norms
        self.slack = 2 * (self.rounding + norm_rounding) * norms
        self.shift = self.slack - norms / 2

    @classmethod
    def full(cls, points: Tensor, frame: Frame) -> Side:
        """Points in a frame, with all directions."""
        inner = torch.empty(points.shape, dtype=torch.float32)
        for start in range(0, len(points), BLOCK):
            part = slice(start, start + BLOCK)
            inner[part] = frame.coordinates(points[part])
        norms = torch.linalg.vector_norm(inner, dim=1).double().square()
        return cls(inner, norms, _sum_rounding(inner.shape[1]))

    def narrow(self, basis: Tensor) -> Side:
        """The points of a full side, with the directions of a basis and the length of the rest."""
        dim, width = basis.shape
        inner = torch.zeros(len(self.inner), width + 1)
        for start in range(0, dim, DEPTH):
            part = slice(start, start + DEPTH)
            inner[:, :width].addmm_(self.inner[:, part], basis[part])
        # Rounding of each number of the projection, and of the vector of them.
        lost = _sum_rounding(DEPTH + dim // DEPTH) * math.sqrt(width)
        norm_rounding = _sum_rounding(dim)
        # float32 is enough: too long a rest weakens the bound, too short would break it.
        held = torch.linalg.vector_norm(inner, dim=1).double().square()
        rest = (self.norms - held).clamp(min=0) + (2.2 * lost + 2.2 * norm_rounding) * self.norms
        inner[:, width] = rest.sqrt().float()
        return Side(inner, self.norms, norm_rounding, lost)

    def left(self, rows: Tensor) -> Tensor:
        """The left factor of some points, (rows, width + 2): with `right` it gives closeness."""
        columns = self.shift[rows].float(), torch.ones(len(rows))
        return torch.cat([self.inner[rows], torch.stack(columns, dim=1)], dim=1)

    def right(self, columns: Tensor, halves: Tensor | None = None) -> Tensor:
        """The right factor of some points, (columns, width + 2), filled up to a multiple of GROUP.

        With `halves`, r^2 / (2 scale^2) of balls around them, float64, closeness is that to the
        ball: larger by them.
        """
        n, width = len(columns), self.inner.shape[1]
        right = torch.zeros(-(-n // GROUP) * GROUP, width + 2)
        right[:n, :width] = self.inner[columns]
        right[:, width] = 1
        right[n:, -1] = NOWHERE
        shift = self.shift[columns]
        if halves is not None:
            shift = shift + halves * (1 + 4 * self.rounding)
        right[:n, -1] = shift.float()
        return right


def _sum_rounding(terms: int) -> float:
    return 1.01 * (terms + 16) * EPS32


def choose_basis(side: Side, k: int) -> Tensor | None:
    """The directions with which k-th neighbours of the points of a full side are found fastest,
    (D, p) float32 and orthonormal, by a sample; None for all."""
    n, dim = side.inner.shape
    if n < FEWEST or dim < 2 * WIDTHS[0]:
        return None
    cloud = side.inner[_sample(n)]
    best_cost, best, basis = float(dim), None, None
    pairs, tried = _SampledPairs(side, k), 0
    width = max(w for w in WIDTHS if w <= min(256, dim // 2))
    while width <= min(dim // 2, WIDTHS[-1]):
        basis = _leading_directions(cloud, width, basis)
        widths = [w for w in WIDTHS if tried < w <= width]
        tried = width
        costs = {w: pairs.cost(basis[:, :w]) for w in widths}
        cheapest = min(costs, key=lambda w: costs[w])
        if costs[cheapest] < best_cost:
            best_cost, best = costs[cheapest], basis[:, :cheapest]
        if costs[width] > PAIR_COST * dim / 2 or cheapest != width:
            break  # hopeless, or wider only costs more
        width *= 2
    return None if best is None else torch.linalg.qr(best.double()).Q.float()


def suits(basis: Tensor | None, side: Side, k: int) -> bool:
    """Whether a basis chosen for other points helps with these."""
    return basis is None or _SampledPairs(side, k).cost(basis) < side.inner.shape[1]


class _SampledPairs:
    """Some points of a side, the distances to their k-th neighbours, and some other points."""

    def __init__(self, side: Side, k: int) -> None:
        self._side = side
        coordinates = side.inner
        sample = _sample(len(side.inner))
        rows, columns = sample[:SAMPLE_ROWS], sample[SAMPLE_ROWS:][:SAMPLE_COLUMNS]
        self._rows, self._columns = coordinates[rows], coordinates[columns]
        norms = side.norms.float()
        self._norms = norms[rows, None] + norms[columns]
        nearest = torch.full((len(rows), k), torch.inf)
        for part in torch.arange(len(side.inner)).split(4 * BLOCK):
            block = coordinates[int(part[0]) : int(part[-1]) + 1]
            squared = norms[rows, None] + norms[part]
            squared.addmm_(self._rows, block.T, alpha=-2)
            squared[rows[:, None] == part] = torch.inf
            nearest = torch.cat([nearest, squared], dim=1).topk(k, dim=1, largest=False).values
        self._reach = nearest[:, -1:]

    def cost(self, basis: Tensor) -> float:
        """Of a pair of points, in multiplications: of the narrow product, and of the pairs that it
        leaves and of the projection, shared by all."""
        inner = [points @ basis for points in (self._rows, self._columns)]
        squared = self._norms.clone()
        squared.addmm_(inner[0], inner[1].T, alpha=-2)
        rest = []
        for points, z in zip((self._rows, self._columns), inner, strict=True):
            rest.append((points.square().sum(dim=1) - z.square().sum(dim=1)).clamp(min=0).sqrt())
        squared.addr_(*rest, alpha=-2)
        left = float((squared <= self._reach).float().mean())
        dim, width = basis.shape
        return width * (1 + 2 * dim / len(self._side.inner)) + left * PAIR_COST * dim


def _sample(n: int) -> Tensor:
    """Some of n indices, always the same."""
    size = min(SAMPLE_BASIS, SAMPLE_BASIS // 2 + n // 16)
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:size]


def _leading_directions(cloud: Tensor, width: int, start: Tensor | None) -> Tensor:
    """About the `width` leading principal directions, (D, width): a step of subspace iteration from
    some of the points themselves, which lean that way already."""
    basis = cloud[-width:].T
    if start is not None:
        basis = torch.cat([start, basis], dim=1)[:, :width]
    basis = torch.linalg.qr(cloud.T @ (cloud @ basis)).Q
    inner = cloud @ basis
    vectors = torch.linalg.eigh(inner.T @ inner).eigenvectors.flip(1)
    return basis @ vectors
