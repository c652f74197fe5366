"""Exact nearest neighbours in many dimensions, without most of the arithmetic.

What is asked here (how far is a point's k-th neighbour, which points lie in which balls) concerns
few of the n^2 pairs. Bounds from below (`eval/projection.py`) discard the others, never wrongly, in
two steps: a narrow float32 product for all pairs, then one with all directions for the pairs that
are left. What is left then (neighbours, and points as near a rim as float32 can tell) is decided by
differences in float64: every answer is that of float64 differences of all pairs, whatever the
blocks, the projection or the number of threads.

Blocks that the narrow bounds leave crowded (clusters much tighter than the whole) are bounded again
in float64 and from all directions.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eval.projection import EPS64, GROUP, Frame, Side, as_points, choose_basis, suits

BLOCK_BYTES = 64 * 2**20  # of float32 bounds, all threads together
MOST_THREADS = 16
PICKS = 2  # beyond k: near points that are measured first
CROWDED = 0.03  # share of a block's pairs above which float64 for all costs less than each alone
DIFFERENCE_BYTES = 2**19  # of float64 differences at a time, so that they stay in a core's cache


class Cloud:
    """A set of points, prepared for questions about distances within it and to it.

    Args:
        features: (n, D) with n >= 2, finite.
        k: neighbours that will be asked for; the directions of the bounds are chosen for them.
        like: another cloud whose directions are taken if they suit, which makes questions about
            both cheaper.
    """

    def __init__(self, features: np.ndarray, k: int, like: Cloud | None = None) -> None:
        self.points = as_points(features)
        # Relative error of a squared distance in float64, with a lot to spare.
        self._margin = 1 + 16 * (self.points.shape[1] + 16) * EPS64
        self.frame: Frame
        self._basis: Tensor | None
        if like is None or not self._look_like(like, k):
            self.frame = Frame.around(self.points)
            self._full = Side.full(self.points, self.frame)
            self._basis = choose_basis(self._full, k)
        self._narrow = self._narrowed(self._full)

    def _look_like(self, other: Cloud, k: int) -> bool:
        """Take another cloud's frame and directions; False if that does not suit these points."""
        self.frame, self._basis = other.frame, other._basis
        self._full = Side.full(self.points, self.frame)
        is_near = float(self._full.norms.mean()) < 4 * float(other._full.norms.mean())
        return is_near and suits(self._basis, self._full, k)

    def _narrowed(self, full: Side) -> Side:
        return full if self._basis is None else full.narrow(self._basis)

    def squared_radii(self, k: int) -> Tensor:
        """Squared distance of each point to its k-th nearest other point; float64 (n,)."""
        n = len(self.points)
        radii = torch.empty(n, dtype=torch.float64)
        bounds = _Bounds(self._narrow, self._narrow.right(torch.arange(n)))

        def find(rows: Tensor) -> None:
            found = self._radii_of(rows, k, bounds.closeness(rows))
            if found is None:
                found = self._radii_of(rows, k, self._in_float64(self.points[rows]), last=True)
                assert found is not None  # the last bounds always answer
            radii[rows] = found

        bounds.for_blocks(torch.arange(n), find)
        return radii

    def _radii_of(
        self, rows: Tensor, k: int, closeness: Tensor, last: bool = False
    ) -> Tensor | None:
        """Squared radii of a block of rows, or None where these bounds leave too many pairs
        (unless they are the last)."""
        block = _Block(_Asked(self.points, self._full, self._narrow), rows)
        local = torch.arange(len(rows))
        closeness[local, rows] = -torch.inf  # a point is no neighbour of itself
        groups = _best_of_groups(closeness)
        near = _best_columns(closeness, groups, min(k + PICKS, len(self.points) - 1))
        row, column = local.repeat_interleave(near.shape[1]), near.flatten()
        least, most = self._halves(block, row, column, last)
        # The k-th of a few near ones is no nearer than the k-th of all. A radius of 0 cannot
        # shrink: asking for nothing keeps repeated images cheap.
        limit = _kth_of_rows(row, most, k)
        closeness.scatter_(1, near, -torch.inf)
        more = _pairs(closeness, groups, torch.where(limit > 0, -limit, torch.inf), last)
        if more is None:
            return None
        more_least, more_most = self._halves(block, *more, last)
        row, column = torch.cat([row, more[0]]), torch.cat([column, more[1]])
        least, most = torch.cat([least, more_least]), torch.cat([most, more_most])
        near_enough = least <= _kth_of_rows(row, most, k)[row]
        row, column = row[near_enough], column[near_enough]
        return _kth_of_rows(row, _squared(self.points, rows[row], self.points, column), k)

    def _halves(
        self, block: _Block, row: Tensor, column: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """|x - y|^2 / (2 scale^2) of a block's points and points of the cloud is between these,
        float64 (pairs,) each; the rows in order."""
        least = torch.zeros(len(row), dtype=torch.float64)
        most, unclear = least.clone(), torch.arange(len(row))
        if not last:
            closeness = _products(block.asked.full, block.rows[row], self._full, column)
            slack = block.asked.full.slack[block.rows[row]] + self._full.slack[column]
            least, most = -closeness, 1.6 * slack - closeness
            unclear = (least < slack).nonzero()[:, 0]  # perhaps 0
        exact = _squared(
            block.asked.points, block.rows[row[unclear]], self.points, column[unclear]
        ) / (2 * self.frame.scale**2)
        least[unclear], most[unclear] = exact / self._margin, exact * self._margin
        return least, most

    def inside_any(self, features: np.ndarray | Cloud, squared_radii: Tensor) -> Tensor:
        """Whether each of some points (m, D) lies in any ball around this cloud's points, the rim
        included; bool (m,)."""
        asked = self._asked(features)
        inside = torch.zeros(len(asked.points), dtype=torch.bool)
        # Large balls first: what they hold is not asked again.
        order = squared_radii.argsort(descending=True)
        for balls in order.split(max(4096, len(order) // 4)):
            halves = squared_radii[balls] / (2 * self.frame.scale**2)
            bounds = _Bounds(asked.narrow, self._narrow.right(balls, halves))

            def find(rows: Tensor, balls: Tensor = balls, bounds: _Bounds = bounds) -> None:
                block, closeness = _Block(asked, rows), bounds.closeness(rows)
                inside[rows] = self._hits(block, closeness, balls, squared_radii)

            bounds.for_blocks((~inside).nonzero()[:, 0], find)
        return inside

    def _asked(self, features: np.ndarray | Cloud) -> _Asked:
        """Points in this cloud's frame and directions."""
        if isinstance(features, Cloud) and features.frame is self.frame:
            return _Asked(features.points, features._full, features._narrow)
        points = features.points if isinstance(features, Cloud) else as_points(features)
        full = Side.full(points, self.frame)
        return _Asked(points, full, self._narrowed(full))

    def _hits(
        self,
        block: _Block,
        closeness: Tensor,
        balls: Tensor,
        squared_radii: Tensor,
        last: bool = False,
    ) -> Tensor:
        """Whether each point of a block lies in any of these balls; it may where closeness >= 0."""
        hit = torch.zeros(len(block.rows), dtype=torch.bool)

        def look(row: Tensor, column: Tensor) -> None:
            hit[row[self._inside(block, row, balls[column], squared_radii, last)]] = True

        groups = _best_of_groups(closeness)
        near = _best_columns(closeness, groups, min(4, len(balls)))
        row, which = (closeness.gather(1, near) >= 0).nonzero(as_tuple=True)
        look(row, near[row, which])
        closeness.scatter_(1, near, -torch.inf)
        least = torch.zeros(len(hit), dtype=torch.float64).masked_fill(hit, torch.inf)
        pairs = _pairs(closeness, groups, least, last)
        if pairs is not None:
            look(*pairs)
            return hit
        rest = _Block(block.asked, block.rows[~hit])
        closeness = self._in_float64(rest.points, balls, squared_radii)
        hit[~hit] = self._hits(rest, closeness, balls, squared_radii, last=True)
        return hit

    def counts_inside(self, features: np.ndarray | Cloud, squared_radii: Tensor) -> Tensor:
        """How many of some points (m, D) each ball holds, its rim left out; int64 (n,)."""
        asked, balls = self._asked(features), torch.arange(len(self.points))
        found: list[Tensor] = []
        halves = squared_radii / (2 * self.frame.scale**2)
        bounds = _Bounds(asked.narrow, self._narrow.right(balls, halves))

        def count(rows: Tensor) -> None:
            block, least = _Block(asked, rows), torch.zeros(len(rows), dtype=torch.float64)
            closeness = bounds.closeness(rows)
            pairs = _pairs(closeness, _best_of_groups(closeness), least)
            if last := pairs is None:
                closeness = self._in_float64(block.points, balls, squared_radii)
                # Nearer than any rounding explains is inside for certain.
                excess = 3 * self._slack64(asked.full.norms[rows])[:, None]
                excess = excess + 3 * self._slack64(self._full.norms)
                certain = closeness[:, : len(balls)] > excess
                found.append(certain.sum(dim=0))
                closeness[:, : len(balls)].masked_fill_(certain, -torch.inf)
                pairs = _pairs(closeness, _best_of_groups(closeness), least, last)
                assert pairs is not None  # the last bounds always answer
            row, ball = pairs
            inside = self._inside(block, row, ball, squared_radii, last, strict=True)
            found.append(torch.bincount(ball[inside], minlength=len(balls)))

        bounds.for_blocks(torch.arange(len(asked.points)), count)
        return torch.stack(found).sum(dim=0)

    def _inside(
        self,
        block: _Block,
        row: Tensor,
        ball: Tensor,
        squared_radii: Tensor,
        last: bool,
        strict: bool = False,
    ) -> Tensor:
        """Whether each point of a block lies in the ball beside it; bool (pairs,)."""
        limit = squared_radii[ball]
        if last:
            inside, rim = torch.zeros(len(row), dtype=torch.bool), torch.arange(len(row))
        else:
            closeness = _products(block.asked.full, block.rows[row], self._full, ball)
            closeness += limit / (2 * self.frame.scale**2)
            slack = block.asked.full.slack[block.rows[row]] + self._full.slack[ball]
            inside = closeness > 1.6 * slack
            rim = ((closeness >= 0) & ~inside).nonzero()[:, 0]
        squared = _squared(block.asked.points, block.rows[row[rim]], self.points, ball[rim])
        inside[rim] = squared < limit[rim] if strict else squared <= limit[rim]
        return inside

    def _in_float64(
        self, points: Tensor, balls: Tensor | None = None, squared_radii: Tensor | None = None
    ) -> Tensor:
        """Closeness of points to the cloud or to some balls, from all directions in float64;
        (points, n) with the columns filled up."""
        if balls is None:
            balls = torch.arange(len(self.points))
        frame, n = self.frame, len(balls)
        rows = (points.double() - frame.center) / frame.scale
        norms = rows.square().sum(dim=1)
        closeness = torch.full((len(points), -(-n // GROUP) * GROUP), -torch.inf).double()
        for part in torch.arange(n).split(4096):
            others = (self.points[balls[part]].double() - frame.center) / frame.scale
            halves = others.square().sum(dim=1)
            shift = self._slack64(halves) - halves / 2
            if squared_radii is not None:
                shift += squared_radii[balls[part]] / (2 * frame.scale**2) * self._margin
            columns = slice(int(part[0]), int(part[-1]) + 1)
            closeness[:, columns] = torch.addmm(shift, rows, others.T)
        return closeness.add_((self._slack64(norms) - norms / 2)[:, None])

    def _slack64(self, norms: Tensor) -> Tensor:
        """What covers a point's share of the rounding of a float64 closeness."""
        return norms * (8 * (self.points.shape[1] + 16) * EPS64)


class _Asked(NamedTuple):
    """Points in the frame and directions of the cloud that is asked about them."""

    points: Tensor
    full: Side
    narrow: Side


class _Block:
    """Some rows of the points asked about, with what is needed of them only now and then."""

    def __init__(self, asked: _Asked, rows: Tensor) -> None:
        self.asked, self.rows = asked, rows

    @functools.cached_property
    def points(self) -> Tensor:
        return self.asked.points[self.rows]


class _Bounds:
    """Closeness of blocks of points to the same columns, one block for each thread at a time."""

    def __init__(self, side: Side, right: Tensor) -> None:
        self._side, self._right = side, right
        self._threads = min(torch.get_num_threads(), MOST_THREADS)
        size = BLOCK_BYTES // self._threads // 4
        self._block_rows = max(1, size // len(right))
        self._memory = threading.local()

    def for_blocks(self, rows: Tensor, function: Callable[[Tensor], None]) -> None:
        """Call a function with blocks of these rows: threads of ours, each with one of torch's,
        because most of what a block needs are short calls."""
        blocks = rows.split(self._block_rows)
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        torch.set_num_threads(1)
        # The bounds are those of float32, which torch can be told to do in less.
        torch.set_float32_matmul_precision("highest")
        try:
            with ThreadPoolExecutor(self._threads) as pool:
                for _ in pool.map(function, blocks):
                    pass
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)

    def closeness(self, rows: Tensor) -> Tensor:
        """(rows, columns), valid until the thread's next call: always the same memory, because
        fresh memory costs as much as the product."""
        size = len(rows) * len(self._right)
        buffer = getattr(self._memory, "buffer", torch.empty(0))
        if len(buffer) < size:
            self._memory.buffer = buffer = torch.empty(size)
        closeness = buffer[:size].view(len(rows), len(self._right))
        return torch.mm(self._side.left(rows), self._right.T, out=closeness)


def _pairs(
    closeness: Tensor, groups: Tensor, least: Tensor, last: bool = False
) -> tuple[Tensor, Tensor] | None:
    """Rows and columns where closeness is at least its row's `least` (float64), rows in order; None
    if they are too many, unless these bounds are the last.

    `groups` holds at least the largest closeness of GROUP columns each: most need no second look.
    """
    least = least.to(closeness.dtype).nextafter(torch.tensor(-torch.inf, dtype=closeness.dtype))
    flagged = groups >= least[:, None]
    # A share s of pairs touches about a share 1 - (1 - s)^GROUP of the groups.
    most = 1 - (1 - CROWDED) ** GROUP
    if not last and np.count_nonzero(flagged.numpy()) > most * flagged.numel():
        return None
    row, group = flagged.nonzero(as_tuple=True)
    found = closeness.unflatten(1, (GROUP, -1))[row, :, group] >= least[row][:, None]
    which, step = found.nonzero(as_tuple=True)
    return row[which], group[which] + groups.shape[1] * step


def _best_of_groups(closeness: Tensor) -> Tensor:
    """The largest of each GROUP of columns, (rows, columns / GROUP); a group's are equally far
    apart."""
    return closeness.unflatten(1, (GROUP, -1)).amax(dim=1)


def _best_columns(closeness: Tensor, groups: Tensor, count: int) -> Tensor:
    """Columns of about the `count` largest values of each row, all different; (rows, count)."""
    if groups.shape[1] < 2 * count:
        return closeness.topk(count, dim=1).indices
    # The best of the best groups: topk of all columns is slow.
    best = groups.topk(count, dim=1).indices
    rows = torch.arange(len(closeness))[:, None]
    values = closeness.unflatten(1, (GROUP, -1))[rows, :, best]
    return best + groups.shape[1] * values.argmax(dim=2)


def _products(asked: Side, row: Tensor, cloud: Side, column: Tensor) -> Tensor:
    """Closeness of pairs of points of two full sides, as float64; the rows in order."""
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


def _squared(points: Tensor, row: Tensor, others: Tensor, column: Tensor) -> Tensor:
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


def _kth_of_rows(row: Tensor, values: Tensor, k: int) -> Tensor:
    """The k-th smallest of the values of each row; every row 0, 1, ... has at least k."""
    order = values.argsort()
    order = order[row[order].argsort(stable=True)]
    counts = torch.bincount(row)
    return values[order[counts.cumsum(0) - counts + k - 1]]
