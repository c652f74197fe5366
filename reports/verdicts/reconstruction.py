"""The verdicts on Figure 10: how reconstructions lose quality as more tokens are masked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from reports.means import Mean, number
from reports.verdicts.numbers import OTHER_DATA, PaperNumber, not_run
from reports.verdicts.schedules import rank_correlation
from reports.verdicts.verdict import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    ONE_SEED,
    REPRODUCED,
    TREND,
    Verdict,
    grade,
    noise,
    one_seed,
    verdict_of,
)

POINTS = 6  # mask ratios that a fit of two segments needs


@dataclass(frozen=True)
class Knot:
    """Two segments that meet: where, the value there, and the slopes before and after."""

    place: float
    value: float
    before: float
    after: float

    def at(self, x: float) -> float:
        """The fitted value."""
        return self.value + (x - self.place) * (self.before if x < self.place else self.after)


def two_segments(xs: Sequence[float], ys: Sequence[float], grid: float = 0.005) -> Knot | None:
    """The continuous two-segment line of least squared error, None for fewer than POINTS points.

    The knot is looked for on a grid between the second and the last but one x, so that each
    segment has two points or more.
    """
    if len(xs) < POINTS:
        return None
    x, y = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    count = round((x[-2] - x[1]) / grid)
    best: tuple[float, Knot] | None = None
    for place in np.linspace(x[1], x[-2], count + 1):
        terms = np.stack([np.ones_like(x), np.minimum(x - place, 0), np.maximum(x - place, 0)], 1)
        found = np.linalg.lstsq(terms, y, rcond=None)[0]
        error = float(np.square(terms @ found - y).sum())
        if best is None or error < best[0] - 1e-12:
            best = error, Knot(float(place), *map(float, found))
    return best[1] if best else None


def judge_monotone(curve: Mapping[float, Mean], rule: Mapping[str, Any]) -> Verdict:
    """curve: mask ratio -> PSNR."""
    ratios, claim = sorted(curve), "figure10_monotone"
    if len(ratios) < 3:
        return verdict_of(claim, rule, NOT_RUN, why=["fewer than three mask ratios"])
    values = [curve[ratio] for ratio in ratios]
    rises = [(a, b) for a, b in pairwise(values) if b.mean >= a.mean]
    within = all(b.mean - a.mean <= rule["noise_multiple"] * noise(a, b) for a, b in rises)
    limits = one_seed(*values)
    rho = rank_correlation(ratios, [value.mean for value in values])
    word = NOT_REPRODUCED
    if not rises and not limits:
        word = REPRODUCED
    elif within or rho <= rule["trend_to"]:
        word = TREND
    ends = [f"{number(curve[ratio].mean, 1)} dB at {ratio:g}" for ratio in (ratios[0], ratios[-1])]
    ours = f"{' to '.join(ends)}; it rises at {len(rises)} of {len(ratios) - 1} steps"
    return verdict_of(claim, rule, word, ours, limits, rank_correlation=rho)


def judge_inflection(
    knot: Knot | None, singles: Mean, rule: Mapping[str, Any], paper: float
) -> Verdict:
    """knot: of the mean curve. singles: the knots of the single seeds' curves."""
    claim = "figure10_inflection"
    if knot is None:
        return verdict_of(claim, rule, NOT_RUN, why=[f"needs {POINTS} mask ratios"])
    steeper = knot.after / knot.before if knot.before else math.inf
    off = abs(knot.place - paper)
    falls = knot.after < 0 and knot.after < knot.before
    limits = [ONE_SEED] if singles.n < 2 else []
    clear = off <= rule["reproduced_off"] and steeper >= rule["steeper"]
    word = grade(falls and off <= rule["trend_off"], clear, limits)
    ours = (
        f"knot at {Mean(knot.place, singles.sd, singles.n).words()}; "
        f"{number(knot.before / 10)} dB per tenth before it, {number(knot.after / 10)} after"
    )
    return verdict_of(claim, rule, word, ours, limits, knot=knot.place)


def inflection_number(
    knot: Knot | None, singles: Mean, paper: float, *, samples: int, same: bool
) -> PaperNumber:
    """The place of the inflection: the paper prints none, it is read off a curve.

    same: whether the preset is the paper's.
    """
    what = "Figure 10: mask ratio of the inflection"
    if knot is None:
        return not_run(what, "fewer than six mask ratios", paper)
    why = "the paper reads it off a curve" if same else OTHER_DATA
    ours = Mean(knot.place, singles.sd, singles.n)
    return PaperNumber(what, paper, ours, samples, NOT_COMPARABLE, why, compared=same)
