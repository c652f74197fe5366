"""Exact nearest neighbours in many dimensions, without most of the arithmetic.

The questions (how far is a point's k-th neighbour, which points lie in which balls) concern few of
the n^2 pairs. Lower bounds of the distance discard the others, never wrongly, in two steps: a
product of whole numbers for all pairs (`eval/neighbours/codes.py`; in float32 where a processor has
no fast ones), then one in float32 for the pairs that are left (`eval/neighbours/projection.py`).
The remaining pairs (neighbours, and points as near a rim as float32 can tell) are decided by
differences in float64. So every answer is that of float64 differences of all pairs, whatever the
blocks, the grid or the number of threads.

Blocks that the whole numbers leave crowded (clusters much tighter than the whole) are bounded again
in float64.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eval.neighbours.codes import (
    NEVER,
    Codes,
    Columns,
    Grid,
    Reach,
    best_columns,
    best_of_groups,
    lowest,
    pairs_within,
)
from eval.neighbours.projection import (
    EPS64,
    Frame,
    Points,
    Projected,
    as_points,
    full_float32,
    kth_of_rows,
    products,
    squared_lengths,
)

BLOCK_BYTES = 128 * 2**20  # of closeness at most, all threads together
BLOCK_ROWS = 256
MOST_THREADS = 16
PICKS = 2  # beyond k: near points that are measured first


class Cloud(Points):
    """A set of points, prepared for questions about distances within it and to it.

    Args:
        features: (n, D) with n >= 2, finite.
        like: another cloud whose grid is taken if it suits, which makes questions about both
            cheaper.
    """

    def __init__(self, features: np.ndarray, like: Cloud | None = None) -> None:
        self.points = as_points(features)
        # Relative error of a squared distance in float64, with a lot to spare.
        self._margin = 1 + 16 * (self.points.shape[1] + 16) * EPS64
        if like is not None:
            self.frame: Frame = like.frame
            _, self._full, self._codes = like._seen(self.points)
            if self._codes.looseness <= 2 * like._codes.looseness:
                return
        self.frame = Frame.around(self.points)
        self._full = Projected(self.points, self.frame)
        self._codes = Codes(self._full, Grid.for_points(self._full))

    def _seen(self, points: Tensor) -> _Asked:
        """Points in this cloud's frame and grid."""
        full = Projected(points, self.frame)
        return _Asked(points, full, Codes(full, self._codes.grid))

    def _asked(self, features: np.ndarray | Points) -> _Asked:
        if isinstance(features, np.ndarray):
            return self._seen(as_points(features))
        if not isinstance(features, Cloud) or features._codes.grid is not self._codes.grid:
            return self._seen(features.points)
        return _Asked(features.points, features._full, features._codes)

    def squared_radii(self, k: int) -> Tensor:
        """Squared distance of each point to its k-th nearest other point; float64 (n,)."""
        n = len(self.points)
        radii = torch.empty(n, dtype=torch.float64)
        asked, columns = self._asked(self), Columns(self._codes, torch.arange(n))
        bounds = _Bounds(asked.codes, columns)

        def find(rows: Tensor) -> None:
            block = _Block(asked, rows)
            found = self._radii_of(block, k, bounds.closeness(rows), columns)
            if found is None:
                found = self._radii_of(block, k, self._in_float64(block, columns), columns, True)
                assert found is not None  # the last bounds always answer
            radii[rows] = found

        bounds.for_blocks(n, find)
        return radii

    def _radii_of(
        self, block: _Block, k: int, closeness: Tensor, columns: Columns, last: bool = False
    ) -> Tensor | None:
        """Squared radii of a block of rows, or None where these bounds leave too many pairs
        (unless they are the last)."""
        rows, least_close = block.rows, lowest(closeness)
        # A point is no neighbour of itself.
        closeness[torch.arange(len(rows)), columns.places[rows]] = least_close
        groups = best_of_groups(closeness)
        near = best_columns(closeness, groups, min(k + PICKS, len(self.points) - 1))
        row = torch.arange(len(rows)).repeat_interleave(near.shape[1])
        column = columns.ids[near.flatten()]
        least, most = self._halves(block, row, column, last)
        # The k-th of a few near ones is no nearer than the k-th of all. A radius of 0 cannot
        # shrink: asking for nothing keeps repeated images cheap.
        limit = kth_of_rows(row, most, k)
        closeness.scatter_(1, near, least_close)
        reach = self._reach(block, columns, last, rows=limit)
        reach.base[limit <= 0] = NEVER
        more = pairs_within(closeness, groups, [reach], last)
        if more is None:
            return None
        more_row, more_column = more[0], columns.ids[more[1]]
        more_least, more_most = self._halves(block, more_row, more_column, last)
        # Most of these are beyond the limit after all; the others may lower it.
        within = more_least <= limit[more_row]
        row, column = torch.cat([row, more_row[within]]), torch.cat([column, more_column[within]])
        least, most = torch.cat([least, more_least[within]]), torch.cat([most, more_most[within]])
        # The k-th is between the k-th lower and the k-th upper limit: what is certainly nearer
        # only counts.
        nearer = most < kth_of_rows(row, least, k)[row]
        left = ~nearer & (least <= kth_of_rows(row, most, k)[row])
        rank = k - torch.bincount(row[nearer], minlength=len(rows))
        row, column = row[left], column[left]
        return kth_of_rows(row, squared_lengths(self.points, rows[row], self.points, column), rank)

    def _reach(
        self,
        block: _Block,
        columns: Columns,
        last: bool,
        rows: Tensor | None = None,
        balls: Tensor | None = None,
    ) -> Reach:
        """The reach for limits of |x - y|^2 / (2 scale^2) of each row or of each point."""
        row_limits = torch.zeros(len(block.rows), dtype=torch.float64) if rows is None else rows
        limits = torch.zeros(len(columns), dtype=torch.float64)
        if balls is not None:
            limits[columns.places] = balls
        codes = None if last else block.asked.codes
        return Reach(codes, block.rows, columns, row_limits, limits)

    def _halves(
        self, block: _Block, row: Tensor, column: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of |x - y|^2 / (2 scale^2) of a block's points and points of the
        cloud, float64 (pairs,) each; the rows in order."""
        least = torch.zeros(len(row), dtype=torch.float64)
        most, unclear = least.clone(), torch.arange(len(row))
        if not last:
            closeness = products(block.asked.full, block.rows[row], self._full, column)
            slack = block.asked.full.slack[block.rows[row]] + self._full.slack[column]
            least, most = -closeness, 1.6 * slack - closeness
            unclear = (least < slack).nonzero()[:, 0]  # perhaps 0
        exact = squared_lengths(
            block.asked.points, block.rows[row[unclear]], self.points, column[unclear]
        ) / (2 * self.frame.scale**2)
        least[unclear], most[unclear] = exact / self._margin, exact * self._margin
        return least, most

    def inside_each(
        self, other: Points, squared_radii: Tensor, others_radii: Tensor
    ) -> tuple[Tensor, Tensor]:
        asked = self._asked(other)
        inside = torch.zeros(len(asked.points), dtype=torch.bool)
        covered = torch.zeros(len(self.points), dtype=torch.bool)
        # Balls of a size together: a group is as near as its largest ball lets it be.
        columns = Columns(self._codes, squared_radii.argsort())
        bounds, unit = _Bounds(asked.codes, columns), 2 * self.frame.scale**2

        def find(rows: Tensor, last: bool = False) -> None:
            block = _Block(asked, rows)
            closeness = self._in_float64(block, columns) if last else bounds.closeness(rows)
            groups = best_of_groups(closeness)
            reaches = [
                self._reach(block, columns, last, balls=squared_radii / unit),
                self._reach(block, columns, last, rows=others_radii[rows] / unit),
            ]

            def look(row: Tensor, column: Tensor) -> None:
                ids = columns.ids[column]
                row, ids = row[ids >= 0], ids[ids >= 0]
                useful = ~inside[rows[row]] | ~covered[ids]
                row, ids = row[useful], ids[useful]
                limits = [squared_radii[ids], others_radii[rows[row]]]
                held = self._within(block, row, ids, limits, last)
                inside[rows[row[held[0]]]] = True
                covered[ids[held[1]]] = True

            near = best_columns(closeness, groups, min(4, len(self.points)))
            look(torch.arange(len(rows)).repeat_interleave(near.shape[1]), near.flatten())
            if last:
                look(closeness.argmax(dim=0), torch.arange(len(columns)))
            closeness.scatter_(1, near, lowest(closeness))
            reaches[0].base[inside[rows]] = NEVER
            # Not by indices: other threads find more of them in the meantime.
            reaches[1].bar[columns.places] = NEVER * covered.double()
            pairs = pairs_within(closeness, groups, reaches, last)
            if pairs is None:
                find(rows, last=True)
            else:
                look(*pairs)

        bounds.for_blocks(len(asked.points), find)
        return inside, covered

    def counts_inside(self, features: np.ndarray | Points, squared_radii: Tensor) -> Tensor:
        asked = self._asked(features)
        columns = Columns(self._codes, squared_radii.argsort())
        bounds, halves = _Bounds(asked.codes, columns), squared_radii / (2 * self.frame.scale**2)
        found: list[Tensor] = []

        def count(rows: Tensor) -> None:
            block, closeness = _Block(asked, rows), bounds.closeness(rows)
            reach = self._reach(block, columns, False, balls=halves)
            pairs = pairs_within(closeness, best_of_groups(closeness), [reach])
            if last := pairs is None:
                closeness = self._in_float64(block, columns)
                # Nearer than any rounding explains is inside for certain.
                excess = 3 * self._slack64(asked.full.norms[rows])[:, None]
                excess = excess + 3 * self._slack64(self._full.norms)
                certain = closeness[:, columns.places] + halves > excess
                found.append(certain.sum(dim=0))
                known = torch.zeros(closeness.shape, dtype=torch.bool)
                known[:, columns.places] = certain
                closeness.masked_fill_(known, -torch.inf)
                reach = self._reach(block, columns, last, balls=halves)
                pairs = pairs_within(closeness, best_of_groups(closeness), [reach], last)
                assert pairs is not None  # the last bounds always answer
            row, ball = pairs[0], columns.ids[pairs[1]]
            (held,) = self._within(block, row, ball, [squared_radii[ball]], last, strict=True)
            found.append(torch.bincount(ball[held], minlength=len(halves)))

        bounds.for_blocks(len(asked.points), count)
        return torch.stack(found).sum(dim=0)

    def _within(
        self,
        block: _Block,
        row: Tensor,
        column: Tensor,
        limits: list[Tensor],
        last: bool,
        strict: bool = False,
    ) -> list[Tensor]:
        """Whether the squared distance of each pair is within each of these limits."""
        if not last:
            halves = products(block.asked.full, block.rows[row], self._full, column)
            slack = block.asked.full.slack[block.rows[row]] + self._full.slack[column]
        result = []
        for limit in limits:
            if last:
                held, rim = torch.zeros(len(row), dtype=torch.bool), torch.arange(len(row))
            else:
                closeness = halves + limit / (2 * self.frame.scale**2)
                held = closeness > 1.6 * slack
                rim = ((closeness >= 0) & ~held).nonzero()[:, 0]
            squared = squared_lengths(
                block.asked.points, block.rows[row[rim]], self.points, column[rim]
            )
            held[rim] = squared < limit[rim] if strict else squared <= limit[rim]
            result.append(held)
        return result

    def _in_float64(self, block: _Block, columns: Columns) -> Tensor:
        """Closeness -|x - y|^2 / (2 scale^2) of points to the cloud, or a little more, in float64;
        (rows, columns)."""
        frame, points = self.frame, self.points
        rows = (block.asked.points[block.rows].double() - frame.center) / frame.scale
        norms = rows.square().sum(dim=1)
        closeness = torch.full((len(rows), len(columns)), -torch.inf).double()
        for part in torch.arange(len(points)).split(4096):
            others = (points[part].double() - frame.center) / frame.scale
            halves = others.square().sum(dim=1)
            shift = self._slack64(halves) - halves / 2
            closeness[:, columns.places[part]] = torch.addmm(shift, rows, others.T)
        return closeness.add_((self._slack64(norms) - norms / 2)[:, None])

    def _slack64(self, norms: Tensor) -> Tensor:
        """A bound of a point's share of the rounding of a float64 closeness."""
        return norms * (8 * (self.points.shape[1] + 16) * EPS64)


class _Asked(NamedTuple):
    """Points in the frame and on the grid of the cloud that is asked about them."""

    points: Tensor
    full: Projected
    codes: Codes


class _Block(NamedTuple):
    """Some rows of the points asked about."""

    asked: _Asked
    rows: Tensor


class _Bounds:
    """Closeness of blocks of points to the same columns, one block for each thread at a time."""

    def __init__(self, codes: Codes, columns: Columns) -> None:
        self._codes, self._columns = codes, columns
        self._threads = min(torch.get_num_threads(), MOST_THREADS)
        most = BLOCK_BYTES // self._threads // 4 // len(columns)
        self._block_rows = max(1, min(BLOCK_ROWS, most))
        self._memory = threading.local()

    def for_blocks(self, n: int, function: Callable[[Tensor], None]) -> None:
        """Call a function with blocks of n rows: threads of ours, each with one of torch's,
        because most of what a block needs are short calls."""
        blocks, threads = torch.arange(n).split(self._block_rows), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            # Products of bytes ask the thread itself how many it may use.
            pool = ThreadPoolExecutor(
                self._threads, initializer=torch.set_num_threads, initargs=(1,)
            )
            with full_float32(), pool:
                for _ in pool.map(function, blocks):
                    pass
        finally:
            torch.set_num_threads(threads)

    def closeness(self, rows: Tensor) -> Tensor:
        """(rows, columns), valid until the thread's next call: always the same memory, because
        fresh memory costs as much as the product."""
        size, dtype = len(rows) * len(self._columns), self._columns.dtype
        buffer = getattr(self._memory, "buffer", torch.empty(0))
        if len(buffer) < size:
            self._memory.buffer = buffer = torch.empty(size, dtype=dtype)
        closeness = buffer[:size].view(len(rows), len(self._columns))
        return self._columns.closeness(self._codes, rows, closeness)
