"""The verdicts on Tables 1, 4 and 5 and Figure 10; see reports/verdicts/schedules.py.

All rules come from `paper_values.toml`, written before the runs. One seed never earns more than
"trend reproduced".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reports.study import Mean
from reports.tables import number
from reports.verdicts.editing import ONE_SEED, standard_error, verdict_of
from reports.verdicts.schedules import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    TREND,
    Verdict,
    rank_correlation,
)

POINTS = 6  # mask ratios that a fit of two segments needs


def judge_order(
    claim: str,
    ours: Mean,
    baseline: Mean,
    rule: Mapping[str, Any],
    *,
    higher: bool,
    why: str = "",
    digits: int = 2,
    scale: float = 1.0,
    unit: str = "",
    steps: tuple[int, int] | None = None,
    real: Mean | None = None,
    chance: float = 0.0,
) -> Verdict:
    """MaskGIT against the baseline. higher: whether more is better. why: one is missing because.

    steps: of both, where the claim needs many times fewer. real, chance: what real images and
    guessing reach, of a score that says nothing where they are close.
    """
    if not (ours.n and baseline.n):
        who = "MaskGIT" if not ours.n else "the baseline"
        return verdict_of(claim, rule, NOT_RUN, why=[why or f"no value of {who}"])
    lead = (ours.mean - baseline.mean) * (1 if higher else -1)
    error = math.hypot(standard_error(ours), standard_error(baseline))
    fewer = steps is None or steps[1] >= rule["fewer_steps"] * steps[0]
    limits = [] if ours.n > 1 and baseline.n > 1 else [ONE_SEED]
    word = NOT_REPRODUCED
    if lead > 0 and fewer:
        clear = not limits and lead > rule["noise_multiple"] * error
        word = REPRODUCED if clear else TREND
    values = [f"{number(scale * v.mean, digits)}{unit}" for v in (ours, baseline)]
    if steps is not None:
        values = [f"{text} in {T}" for text, T in zip(values, steps, strict=True)]
        values[0] += " steps"
    if real is not None and real.n and real.mean < rule["times_chance"] * chance:
        learnt = f"real images reach {number(scale * real.mean, digits)}{unit}"
        guessed = f"guessing {number(scale * chance, digits)}{unit}: too little training"
        ours_told = f"{values[0]} against {values[1]}"
        return verdict_of(claim, rule, NOT_COMPARABLE, ours_told, [f"{learnt}, {guessed}"])
    within = math.isfinite(error) and abs(lead) <= rule["noise_multiple"] * error
    told = f"{values[0]} against {values[1]}" + (" (level within the noise)" if within else "")
    return verdict_of(claim, rule, word, told, limits)


def judge_rejection_is(
    scores: Mapping[float, Mean], rule: Mapping[str, Any], why: str, judge: str = ""
) -> Verdict:
    """scores: acceptance rate -> Inception Score. judge: the classifier, where it measures too."""
    rates = [rate for rate in sorted(scores, reverse=True) if scores[rate].n]
    if len(rates) < 2:
        return verdict_of("table4_is", rule, NOT_RUN, why=[why or "fewer than two rates"])
    first, last = scores[rates[0]], scores[rates[-1]]
    rises = all(scores[b].mean > scores[a].mean for a, b in pairwise(rates))
    error = math.hypot(standard_error(first), standard_error(last))
    limits = [] if first.n > 1 and last.n > 1 else [ONE_SEED]
    limits += [f"{judge} rejects and measures"] if judge else []
    word = NOT_REPRODUCED
    if last.mean > first.mean:
        clear = rises and not limits and last.mean - first.mean > rule["noise_multiple"] * error
        word = REPRODUCED if clear else TREND
    ours = ", ".join(f"{number(scores[rate].mean, 2)} at {rate:g}" for rate in rates)
    return verdict_of("table4_is", rule, word, ours, limits)


def judge_rejection_fid(
    fids: Mapping[float, Mean], rule: Mapping[str, Any], why: str, judge: str = ""
) -> Verdict:
    """fids: acceptance rate -> FID; without rate 1 there is nothing to compare with. judge: the
    classifier, where it measures too."""
    plain = fids.get(1.0)
    lower = [rate for rate in sorted(fids) if rate < 1 and fids[rate].n]
    if plain is None or not plain.n or not lower:
        words = why or "needs a FID at rate 1 and at another"
        return verdict_of("table4_fid", rule, NOT_RUN, why=[words])
    last = fids[lower[0]]
    error = math.hypot(standard_error(plain), standard_error(last))
    limits = [] if plain.n > 1 and last.n > 1 else [ONE_SEED]
    limits += [f"{judge} rejects and measures"] if judge else []
    word = NOT_REPRODUCED
    if any(fids[rate].mean < plain.mean for rate in lower):
        gain = plain.mean - last.mean
        clear = not limits and gain > rule["noise_multiple"] * error
        word = REPRODUCED if clear else TREND
    rates = sorted(fids, reverse=True)
    ours = ", ".join(f"{number(fids[r].mean, 2)} at {r:g}" for r in rates if fids[r].n)
    return verdict_of("table4_fid", rule, word, ours, limits)


def judge_monotone(curve: Mapping[float, Mean], rule: Mapping[str, Any], why: str = "") -> Verdict:
    """curve: mask ratio -> PSNR."""
    ratios = [ratio for ratio in sorted(curve) if curve[ratio].n]
    claim = "figure10_monotone"
    if len(ratios) < 3:
        return verdict_of(claim, rule, NOT_RUN, why=[why or "fewer than three mask ratios"])
    rises = [(a, b) for a, b in pairwise(ratios) if curve[b].mean >= curve[a].mean]
    beyond = [
        (a, b)
        for a, b in rises
        if not curve[b].mean - curve[a].mean
        <= rule["noise_multiple"] * math.hypot(standard_error(curve[a]), standard_error(curve[b]))
    ]
    limits = [ONE_SEED] if any(curve[ratio].n == 1 for ratio in ratios) else []
    rho = rank_correlation(ratios, [curve[ratio].mean for ratio in ratios])
    word = NOT_REPRODUCED
    if not rises and not limits:
        word = REPRODUCED
    elif not beyond or rho <= rule["trend_to"]:
        word = TREND
    ends = [f"{number(curve[ratio].mean, 1)} dB at {ratio:g}" for ratio in (ratios[0], ratios[-1])]
    ours = f"{' to '.join(ends)}; it rises at {len(rises)} of {len(ratios) - 1} steps"
    return verdict_of(claim, rule, word, ours, limits, rank_correlation=rho)


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
    import numpy as np

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


def judge_inflection(
    knot: Knot | None, sd: float, seeds: int, rule: Mapping[str, Any], paper: float
) -> Verdict:
    """knot: of the mean curve. sd: of the knots of single seeds, NaN for one seed."""
    claim = "figure10_inflection"
    if knot is None:
        return verdict_of(claim, rule, NOT_RUN, why=[f"needs {POINTS} mask ratios"])
    steeper = knot.after / knot.before if knot.before else math.inf
    off = abs(knot.place - paper)
    falls = knot.after < 0 and knot.after < knot.before
    limits = [ONE_SEED] if seeds < 2 else []
    word = NOT_REPRODUCED
    if falls and off <= rule["trend_off"]:
        near = off <= rule["reproduced_off"] and steeper >= rule["steeper"]
        word = REPRODUCED if near and not limits else TREND
    spread = f" ± {number(sd, 2)}" if math.isfinite(sd) else ""
    ours = (
        f"knot at {number(knot.place, 2)}{spread}; "
        f"{number(knot.before / 10, 2)} dB per tenth before it, {number(knot.after / 10, 2)} after"
    )
    return verdict_of(claim, rule, word, ours, limits, knot=knot.place)
