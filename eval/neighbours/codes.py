"""Bounds from below for distances in many dimensions, in whole numbers.

Points are rounded to a coarse grid: x = step * c(x) + e(x), with |c| small enough for 8 bits. Then

    |x - y| >= step * |c(x) - c(y)| - |e(x)| - |e(y)|

for all pairs by one product of whole numbers, which a processor with fast 8-bit products computes
several times as fast as float32, and exactly. Where that makes the rest e shorter (variance along
few axes), coordinates are mixed first. Elsewhere the product is one of the coordinates themselves,
in float32, with the bounds of `eval/neighbours/projection.py`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eval.neighbours.projection import BLOCK, EPS32, Projected, full_float32, sum_rounding

LARGEST = 127  # code
GROUP = 32  # columns are filled up to a multiple of this
LOWEST = -(2**30)  # closeness to what fills them up
NEVER = 1e300  # closeness that no pair has
DIGITS = 128  # columns at most for what depends on one point alone
FAR = 1e-3  # share of points that need not fit into the grid
SAMPLE = 512  # points that the grid is chosen by
CROWDED = 0.03  # share of a block's pairs above which float64 for all costs less than each alone
TINY = 1e-16  # more than float32 loses to underflow in a vector's length


@dataclass(frozen=True)
class Grid:
    """The grid that points are rounded to, if they are rounded. Any grid gives valid bounds.

    Attributes:
        step: of the grid, in units of the frame's scale.
        mixers: orthogonal float32 matrices (a, a) and (b, b), whose Kronecker product turns the
            coordinates, filled up with zeros to a * b; None for as they are.
        largest: code; 0 for points that are not rounded.
    """

    step: float
    mixers: tuple[Tensor, Tensor] | None
    largest: int

    @classmethod
    def for_points(cls, full: Projected) -> Grid:
        """The grid on which these points leave the shorter rest, or none without fast bytes."""
        if not fast_bytes():
            return cls(1.0, None, 0)
        n, dim = full.inner.shape
        width = -(-dim // GROUP) * GROUP
        sample = full.inner[:: -(-n // SAMPLE)]
        best: list[tuple[float, int, Grid]] = []
        for mixers in (None, _mixers(width)):
            extents = mixed(sample, mixers).abs().amax(dim=1)
            fits = float(extents.kthvalue(len(sample) - int(FAR * len(sample))).values)
            grid = cls(fits / LARGEST if fits > 0 else 1.0, mixers, LARGEST)
            rest = grid.rounded(sample)[1].median()
            best.append((float(rest), len(best), grid))
        return min(best, key=lambda x: x[:2])[2]

    def rounded(self, inner: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, float32, and the length of the rest, as computed, of some coordinates."""
        turned = mixed(inner, self.mixers)
        codes = (turned * (1 / self.step)).round_().clamp_(-self.largest, self.largest)
        codes.nan_to_num_(0.0)
        return codes, torch.linalg.vector_norm(turned.sub_(codes, alpha=self.step), dim=1)

    @property
    def stretch(self) -> float:
        """How much longer a vector can become by the mixing: matrices rounded to float32."""
        if self.mixers is None:
            return 1.0
        return math.prod(1 + 4 * EPS32 * math.sqrt(len(m)) for m in self.mixers)

    @property
    def lost(self) -> float:
        """Rounding of the mixing and of the coordinates, over the length of a vector."""
        sides = () if self.mixers is None else [len(m) for m in self.mixers]
        return 2**-20 + 1.2 * sum(sum_rounding(side) * math.sqrt(side) for side in sides)


class Codes:
    """Projected points on a grid, or as they are.

    Attributes:
        values: int8 (n, width), or the coordinates.
        squares: |c|^2, float64 (n,), or what stands for it in sums of coordinates: -2 shift(x).
        errors: at least the length of the rest over the step, float64 (n,); 0 without a rest.
        looseness: how far bounds are off, on the mean; to compare points in one frame.
    """

    def __init__(self, full: Projected, grid: Grid) -> None:
        n = len(full.inner)
        width = full.inner.shape[1]
        if grid.mixers is not None:
            width = -(-width // GROUP) * GROUP
        self.grid = grid
        if grid.largest == 0:
            self._as_they_are(full)
            return
        self.values = torch.empty(n, width, dtype=torch.int8)
        self.squares = torch.empty(n, dtype=torch.float64)
        rest = torch.empty(n)
        for start in range(0, n, BLOCK):
            part = slice(start, start + BLOCK)
            codes, rest[part] = grid.rounded(full.inner[part])
            self.values[part] = codes
            self.squares[part] = codes.square_().sum(dim=1, dtype=torch.float64)
        errors = rest.double() * (1 + sum_rounding(width)) + grid.lost * full.norms.sqrt() + TINY
        self.errors = (errors / grid.step).nan_to_num_(nan=torch.inf)
        self.looseness = float(self.errors.mean())

    def _as_they_are(self, full: Projected) -> None:
        self.values, self.squares = full.inner, -2 * full.shift
        self.errors, self.looseness = torch.zeros_like(full.shift), float(full.slack.mean())
        beyond = ~full.norms.isfinite()  # of float32 in this frame: perhaps near to any other
        if bool(beyond.any()):
            self.values = self.values.masked_fill(beyond[:, None], 0.0)
            self.squares = self.squares.masked_fill(beyond, -torch.inf)


class Columns:
    """The right factor of a matrix of closeness,

        closeness(x, y) >= -|c(x) - c(y)|^2 / 2 + |c(x)|^2 / 2

    in whole numbers, or without a grid x'y + shift(y) in float32.

    Each GROUP of points that follow each other in an order are columns equally far apart.

    Attributes:
        ids: which point a column is, int64 (columns,); -1 for what fills them up.
        places: which column a point is, int64 (n,).
        errors: of each, (columns,).
        lacks: what computed closeness falls short of the formula by, at most.
    """

    def __init__(self, codes: Codes, order: Tensor) -> None:
        n = len(order)
        ids = torch.full((-(-n // GROUP) * GROUP,), -1)
        ids[:n] = order
        self.ids = ids = ids.view(-1, GROUP).T.flatten()
        self.fillers = (ids < 0).nonzero()[:, 0]
        self.places = torch.empty(n, dtype=torch.int64)
        self.places[ids[ids >= 0]] = (ids >= 0).nonzero()[:, 0]
        self.errors = codes.errors[ids].index_fill_(0, self.fillers, 0.0)
        self.whole = codes.grid.largest > 0
        if self.whole:
            self._digits(codes)
        else:
            self.lacks = 0
            self._right, self._shift = codes.values[ids].T, -(codes.squares[ids] / 2).float()

    def _digits(self, codes: Codes) -> None:
        """The whole numbers, and halves of |c(y)|^2 in as many digits as they need."""
        ids, limit = self.ids, codes.grid.largest
        halves = -(codes.squares[ids] / 2).floor().long()
        half = min(int(halves.max() - halves.min()) // 2, DIGITS // 2 * limit**2)
        offset = int(halves.max()) - half
        self.lacks = offset + 1  # 1 for rounding
        # Too few digits only make far points seem nearer.
        halves = (halves - offset).clamp(min=-half)
        tall, low = halves.div(limit, rounding_mode="floor"), halves.remainder(limit)
        digits = [low]
        while bool((tall != 0).any()):
            digits.append(tall.clamp(-limit, limit))
            tall = tall - digits[-1]
        self._weights = torch.tensor([1] + [limit] * (len(digits) - 1), dtype=torch.int8)
        right = torch.cat([codes.values[ids], torch.stack(digits, dim=1).to(torch.int8)], dim=1)
        self._right = right.T

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dtype(self) -> torch.dtype:
        return torch.int32 if self.whole else torch.float32

    def closeness(self, codes: Codes, rows: Tensor, out: Tensor) -> Tensor:
        """Of some points to all columns, as computed; (rows, columns)."""
        if self.whole:
            left = torch.cat([codes.values[rows], self._weights.expand(len(rows), -1)], dim=1)
            torch._int_mm(left, self._right, out=out)
        else:
            torch.addmm(self._shift, codes.values[rows], self._right, out=out)
        return out.index_fill_(1, self.fillers, LOWEST)


class Reach:
    """How close a pair of a block's points and columns must be, to be within a distance.

    Attributes:
        base: of each row, (rows,); NEVER lets it ask for nothing.
        bar: of each column, (columns,); NEVER keeps it out.
    """

    def __init__(
        self, codes: Codes | None, rows: Tensor, columns: Columns, limits: Tensor, balls: Tensor
    ) -> None:
        """Limits of |x - y|^2 / (2 scale^2) of each row and of each column, float64, of which one
        is 0; codes of the points asked about, None for closeness without them."""
        self.bar = torch.zeros(len(columns), dtype=torch.float64)
        factor = 1 + 1e-9  # more than what float64 can round
        self._row, self._column = (2 * limits).sqrt() * factor, (2 * balls).sqrt() * factor
        if codes is None:
            self.base = torch.zeros(len(rows), dtype=torch.float64)
            return
        scale = codes.grid.stretch / codes.grid.step
        self._row = self._row * scale + codes.errors[rows]
        self._column = self._column * scale + columns.errors
        self.base = codes.squares[rows] / 2 - columns.lacks

    def of(self, row: Tensor, column: Tensor) -> Tensor:
        """The closeness that is needed, at most; float64 (pairs,)."""
        reach = self._row[row] + self._column[column]
        return self.base[row] + self.bar[column] - reach.square_() * (0.5 + 1e-9)

    def of_groups(self) -> Tensor:
        """The smallest for each of the groups of columns; (rows, columns / GROUP)."""
        column = self._column.unflatten(0, (GROUP, -1)).amax(dim=0)
        bar = self.bar.unflatten(0, (GROUP, -1)).amin(dim=0)
        reach = (self._row[:, None] + column).square_().mul_(-0.5 - 1e-9)
        return reach.add_(self.base[:, None]).add_(bar)


@functools.cache
def fast_bytes() -> bool:
    """Whether this machine has instructions for products of 8-bit numbers, and torch's with them
    are exact. It changes no answer."""
    try:
        found = torch.cpu.get_capabilities()
        if not (found.get("avx512_vnni") or found.get("avx_vnni")):
            return False
        generator = torch.Generator().manual_seed(0)
        left = torch.randint(-LARGEST, LARGEST + 1, (256, 1024), generator=generator)
        left[:64] = LARGEST * left[:64].sign()  # sums in 16 bits overflow with these
        left, right = left.to(torch.int8), left.roll(7, 0).to(torch.int8)
        out = torch.empty(256, 256, dtype=torch.int32)
        torch._int_mm(left, right.T, out=out)
        return torch.equal(out.double(), left.double() @ right.T.double())
    except (AttributeError, RuntimeError):  # an older torch, or none of these products
        return False


def _mixers(width: int) -> tuple[Tensor, Tensor]:
    """Random orthogonal matrices, always the same."""
    generator = torch.Generator().manual_seed(0)
    sides = (
        torch.randn(side, side, generator=generator, dtype=torch.float64)
        for side in (width // GROUP, GROUP)
    )
    first, second = (torch.linalg.qr(side).Q.float() for side in sides)
    return first, second


def mixed(inner: Tensor, mixers: tuple[Tensor, Tensor] | None) -> Tensor:
    """Coordinates turned; a new tensor."""
    if mixers is None:
        return inner.clone()
    first, second = mixers
    inner = torch.nn.functional.pad(inner, (0, len(first) * GROUP - inner.shape[1]))
    with full_float32():
        return (first @ (inner.view(-1, len(first), GROUP) @ second)).flatten(1)


def pairs_within(
    closeness: Tensor, groups: Tensor, reaches: list[Reach], last: bool = False
) -> tuple[Tensor, Tensor] | None:
    """Rows and columns of pairs within any reach, rows in order; None if they are too many, unless
    these bounds are the last.

    `groups` holds at least the largest closeness of GROUP columns each: most need no second look.
    """
    least = functools.reduce(torch.minimum, [reach.of_groups() for reach in reaches])
    flagged = groups >= least
    # A share s of pairs touches about a share 1 - (1 - s)^GROUP of the groups.
    most = 1 - (1 - CROWDED) ** GROUP
    if not last and np.count_nonzero(flagged.numpy()) > most * flagged.numel():
        return None
    row, group = flagged.nonzero(as_tuple=True)
    found = closeness.unflatten(1, (GROUP, -1))[row, :, group] >= least[row, group][:, None]
    which, step = found.nonzero(as_tuple=True)
    row, column = row[which], group[which] + groups.shape[1] * step
    value, within = closeness[row, column], torch.zeros(len(row), dtype=torch.bool)
    for reach in reaches:
        within |= value >= reach.of(row, column)
    return row[within], column[within]


def lowest(closeness: Tensor) -> float:
    return -torch.inf if closeness.is_floating_point() else LOWEST


def best_of_groups(closeness: Tensor) -> Tensor:
    """The largest of each GROUP of columns, (rows, columns / GROUP); a group's are equally far
    apart."""
    return closeness.unflatten(1, (GROUP, -1)).amax(dim=1)


def best_columns(closeness: Tensor, groups: Tensor, count: int) -> Tensor:
    """Columns of about the `count` largest values of each row, all different; (rows, count)."""
    if groups.shape[1] < 2 * count:
        return closeness.topk(count, dim=1).indices
    # The best of the best groups: topk of all columns is slow.
    best = groups.topk(count, dim=1).indices
    rows = torch.arange(len(closeness))[:, None]
    values = closeness.unflatten(1, (GROUP, -1))[rows, :, best]
    return best + groups.shape[1] * values.argmax(dim=2)
