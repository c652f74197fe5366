"""Exact nearest neighbours by the distances of all pairs, block by block on a torch device: the
plain path for a GPU, which has the arithmetic to spare that `eval.neighbours.search` saves.

A float32 product gives all pairs of a block a lower and an upper bound of their distance. Where
the bounds cannot decide (neighbours of nearly equal distance, points on the rim of a ball), the
difference in float64 on the CPU does, by the function that the CPU's path decides with: every
answer is the same as there. Blocks in which float32 leaves too much open are bounded again in
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eval.neighbours.projection import (
    EPS64,
    Frame,
    Points,
    Projected,
    as_points,
    full_float32,
    kth_of_rows,
    squared_lengths,
)

BLOCK_PAIRS = 2**26  # of which bounds are held at a time
COLUMNS = 4096  # points turned into float64 at a time
PICKS = 2  # beyond k: near points that are measured first
CROWDED = 0.01  # share of a block's pairs left open, above which it is bounded in float64


class DenseCloud(Points):
    """A set of points, prepared for questions about distances within it and to it.

    It answers what `eval.neighbours.search.Cloud` answers.

    Args:
        features: (n, D) with n >= 2, finite.
        device: torch device of the products.
    """

    def __init__(self, features: np.ndarray, device: str) -> None:
        self.points, self.device = as_points(features), torch.device(device)
        self.frame = Frame.around(self.points)
        self._full = self._asked(self.points)
        self._unit = 2 * self.frame.scale**2
        # Relative error of a squared distance in float64, with a lot to spare.
        self._margin = 1 + 16 * (self.points.shape[1] + 16) * EPS64

    def _asked(self, asked: np.ndarray | Points | Tensor) -> _Asked:
        """Points in this cloud's frame, with their projection on the device."""
        if isinstance(asked, np.ndarray):
            points = as_points(asked)
        else:
            points = asked.points if isinstance(asked, Points) else asked
        projected = Projected(points, self.frame)
        parts = projected.inner, projected.shift, projected.slack
        return _Asked(points, *(part.to(self.device) for part in parts))

    def squared_radii(self, k: int) -> Tensor:
        """Squared distance of each point to its k-th nearest other point; float64 (n,)."""
        radii = torch.empty(len(self.points), dtype=torch.float64)
        for rows in self._blocks(len(self.points)):
            radii[rows] = self._radii_of(rows, k)
        return radii

    def _radii_of(self, rows: Tensor, k: int) -> Tensor:
        def exact(row: Tensor, column: Tensor) -> Tensor:
            return squared_lengths(self.points, rows[row], self.points, column)

        for last in (False, True):
            least, _ = self._bounds(self._full, rows, last)
            # A point is no neighbour of itself.
            least[torch.arange(len(rows)), rows] = torch.inf
            near = least.topk(min(k + PICKS, len(self.points) - 1), largest=False).indices
            row = torch.arange(len(rows)).repeat_interleave(near.shape[1])
            squared = exact(row, near.cpu().flatten())
            # The k-th of a few near ones is no nearer than the k-th of all; 0 cannot shrink.
            limit = kth_of_rows(row, squared, k)
            reach = limit * self._margin**2 / self._unit
            least.scatter_(1, near, torch.inf)
            open_pairs = least <= reach.to(self.device)[:, None]
            open_pairs &= (limit > 0).to(self.device)[:, None]
            if last or not _crowded(open_pairs):
                break
        more_row, more_column = _pairs(open_pairs)
        row = torch.cat([row, more_row])
        squared = torch.cat([squared, exact(more_row, more_column)])
        return kth_of_rows(row, squared, k)

    def inside_each(
        self, other: Points, squared_radii: Tensor, others_radii: Tensor
    ) -> tuple[Tensor, Tensor]:
        asked = self._asked(other)
        inside = torch.zeros(len(asked.points), dtype=torch.bool)
        covered = torch.zeros(len(self.points), dtype=torch.bool)
        for rows in self._blocks(len(asked.points)):
            self._look_into(asked, rows, squared_radii, others_radii, inside, covered)
        return inside, covered

    def _look_into(
        self,
        asked: _Asked,
        rows: Tensor,
        squared_radii: Tensor,
        others_radii: Tensor,
        inside: Tensor,
        covered: Tensor,
    ) -> None:
        """Update `inside` and `covered` by a block of the points asked about."""

        def exact(row: Tensor, column: Tensor) -> Tensor:
            return squared_lengths(asked.points, rows[row], self.points, column)

        for last in (False, True):
            bounds = self._bounds(asked, rows, last)
            sure, rim = self._held(bounds, squared_radii[None])
            inside[rows] |= sure.any(dim=1).cpu()
            rim &= ~inside[rows].to(self.device)[:, None]
            sure, others_rim = self._held(bounds, others_radii[rows][:, None])
            covered |= sure.any(dim=0).cpu()
            others_rim &= ~covered.to(self.device)
            if last or not _crowded(rim | others_rim):
                break
        least = bounds[0]
        inside[rows] |= _any_within(rim, least, exact, lambda row, column: squared_radii[column])
        covered |= _any_within(
            others_rim.T,
            least.T,
            lambda column, row: exact(row, column),
            lambda column, row: others_radii[rows[row]],
        )

    def counts_inside(self, features: np.ndarray | Points, squared_radii: Tensor) -> Tensor:
        asked = self._asked(features)
        counts = torch.zeros(len(self.points), dtype=torch.int64)
        for rows in self._blocks(len(asked.points)):
            for last in (False, True):
                sure, rim = self._held(self._bounds(asked, rows, last), squared_radii[None])
                if last or not _crowded(rim):
                    break
            counts += sure.sum(dim=0).cpu()
            row, ball = _pairs(rim)
            squared = squared_lengths(asked.points, rows[row], self.points, ball)
            counts += torch.bincount(ball[squared < squared_radii[ball]], minlength=len(counts))
        return counts

    def _held(self, bounds: tuple[Tensor, Tensor], squared: Tensor) -> tuple[Tensor, Tensor]:
        """Which pairs are certainly nearer than a limit, and which perhaps; bool (rows, n) each.

        squared: the limits of |x - y|^2, float64 (1, n) or (rows, 1).
        """
        least, most = bounds
        limits = squared.to(self.device) / self._unit
        sure = most * self._margin < limits
        return sure, (least <= limits * self._margin) & ~sure

    def _blocks(self, n: int) -> Iterator[Tensor]:
        with full_float32():
            yield from torch.arange(n).split(max(1, BLOCK_PAIRS // len(self.points)))

    def _bounds(self, asked: _Asked, rows: Tensor, in_float64: bool) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of |x - y|^2 / (2 scale^2) for some of the points asked about and
        all of the cloud; float64 (rows, n) each."""
        if in_float64:
            return self._bounds_in_float64(asked, rows)
        here = rows.to(self.device)
        closeness = (asked.inner[here] @ self._full.inner.T).double()
        closeness += asked.shift[here][:, None]
        closeness += self._full.shift
        least = closeness.neg_()
        most = least + 1.6 * (asked.slack[here][:, None] + self._full.slack)
        unknown = ~(least.isfinite() & most.isfinite())  # beyond float32 in this frame
        return least.masked_fill_(unknown, -torch.inf), most.masked_fill_(unknown, torch.inf)

    def _bounds_in_float64(self, asked: _Asked, rows: Tensor) -> tuple[Tensor, Tensor]:
        left = self._in_float64(asked.points[rows])
        left_norms = left.square().sum(dim=1)[:, None]
        slack = 8 * (self.points.shape[1] + 16) * EPS64
        parts = []
        for part in self.points.split(COLUMNS):
            right = self._in_float64(part)
            norms = left_norms + right.square().sum(dim=1)
            least = norms / 2 - left @ right.T - slack * norms
            parts.append((least, least + 3 * slack * norms))
        least, most = (torch.cat(bounds, dim=1) for bounds in zip(*parts, strict=True))
        return least, most

    def _in_float64(self, points: Tensor) -> Tensor:
        center = self.frame.center.to(self.device)
        return (points.to(self.device).double() - center) / self.frame.scale


class _Asked(NamedTuple):
    """Points asked about, on the CPU, and their projection on the device."""

    points: Tensor
    inner: Tensor
    shift: Tensor
    slack: Tensor


def _crowded(open_pairs: Tensor) -> bool:
    return int(open_pairs.sum()) > CROWDED * open_pairs.numel()


def _pairs(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pairs that are True, on the CPU; the rows in order."""
    row, column = chosen.nonzero(as_tuple=True)
    return row.cpu(), column.cpu()


def _any_within(
    open_pairs: Tensor,
    least: Tensor,
    exact: Callable[[Tensor, Tensor], Tensor],
    limits: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Which rows have an open pair whose squared distance is within its limit; bool (rows,) on the
    CPU. The nearest of each row is tried first, as it mostly decides."""
    found = torch.zeros(len(open_pairs), dtype=torch.bool)

    def look(row: Tensor, column: Tensor) -> None:
        found[row[exact(row, column) <= limits(row, column)]] = True

    rows = open_pairs.any(dim=1).nonzero()[:, 0]
    nearest = least[rows].masked_fill(~open_pairs[rows], torch.inf).argmin(dim=1)
    look(rows.cpu(), nearest.cpu())
    look(*_pairs(open_pairs & ~found.to(open_pairs.device)[:, None]))
    return found
