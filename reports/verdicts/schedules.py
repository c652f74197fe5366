"""The verdicts on Table 3 and Figure 8: the mask schedules, and the number of iterations T.

Coarse grids of T, a single seed and unfinished cells never earn more than "trend reproduced".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reports.means import Mean
from reports.verdicts.verdict import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    TREND,
    Verdict,
    grade,
    tolerance,
    verdict_of,
)

Curve = Mapping[int, Mean]  # T -> FID over seeds

MIN_TRIPLES = 12  # neighbouring values of T that a noise estimate from one seed needs
CHI_SQUARE_MEDIAN = 0.454936  # of one degree of freedom


@dataclass(frozen=True)
class Best:
    """The T of lowest mean FID. `error` is the standard error of the mean, NaN if not known."""

    T: int
    mean: float
    sd: float
    n: int
    error: float


@dataclass(frozen=True)
class Evidence:
    """What a run offers: a FID curve a schedule, and what limits the comparison.

    `unfinished` counts cells asked for and not there. `obstacles` are reasons, one a line, why the
    schedules cannot be held against each other at all (unequal training budgets, say).
    `why_no_fid` says in a few words why finished cells have no FID, if some have none.
    """

    curves: Mapping[str, Curve]
    unfinished: int = 0
    obstacles: Sequence[str] = ()
    why_no_fid: str = ""


@dataclass(frozen=True)
class SweetSpot:
    """One schedule's rise from its best T to both ends. `found` only where both rises count."""

    schedule: str
    best: Best
    first: int
    last: int
    rise_first: float
    rise_last: float
    tolerance: float
    found: bool


# ---- numbers ------------------------------------------------------------------------------------


def eligible(curve: Curve) -> dict[int, Mean]:
    """The points with the most seeds: a mean over fewer is noisier and would win by luck."""
    most = max((point.n for point in curve.values()), default=0)
    return {T: curve[T] for T in sorted(curve) if curve[T].n == most}


def pooled_sd(curve: Curve) -> float:
    """sd between seeds, pooled over T by degrees of freedom; see `neighbour_sd` for a single seed.

    Three seeds give a poor sd each; fifty values of T together give a good one.
    """
    if all(point.n == 1 for point in curve.values()):
        return neighbour_sd(curve)
    repeated = [point for point in curve.values() if point.n > 1 and math.isfinite(point.sd)]
    freedom = sum(point.n - 1 for point in repeated)
    if not freedom:
        return math.nan
    return math.sqrt(sum((point.n - 1) * point.sd**2 for point in repeated) / freedom)


def neighbour_sd(curve: Curve) -> float:
    """sd of one seed, from how far each FID lies off its two neighbours in T; NaN if there are few.

    Second differences of independent errors have six times their variance, and a slope cancels in
    them. Their median, not their mean: at small T a curve bends. Without this the lowest of fifty
    noisy values would pass for a sweet spot.
    """
    steps = sorted(curve)
    triples = [
        (curve[a].mean, curve[b].mean, curve[c].mean)
        for a, b, c in zip(steps, steps[1:], steps[2:], strict=False)
        if b - a == c - b
    ]
    if len(triples) < MIN_TRIPLES:
        return math.nan
    squares = [(low - 2 * middle + high) ** 2 for low, middle, high in triples]
    return math.sqrt(statistics.median(squares) / (6 * CHI_SQUARE_MEDIAN))


def one_seed_words(error: float) -> str:
    """What a report says of the noise where there is one seed."""
    if math.isnan(error):
        return "n=1, so the noise is unknown"
    return "n=1: the noise is judged from neighbouring T only"


def best_of(curve: Curve) -> Best | None:
    """The lowest mean among the eligible points, the smaller T on a tie; None without points."""
    points = eligible(curve)
    if not points:
        return None
    T = min(points, key=lambda T: (points[T].mean, T))
    point = points[T]
    return Best(T, point.mean, point.sd, point.n, pooled_sd(curve) / math.sqrt(point.n))


def sweet_spot(schedule: str, curve: Curve, rule: Mapping[str, Any]) -> SweetSpot | None:
    """The best T of a curve and whether FID rises from it to both ends; None without points."""
    best = best_of(curve)
    if best is None:
        return None
    points = eligible(curve)
    first, last = min(points), max(points)
    rises = points[first].mean - best.mean, points[last].mean - best.mean
    needed = tolerance(best.mean, (best.error, best.error), rule)
    found = first < best.T < last and min(rises) > needed
    return SweetSpot(schedule, best, first, last, *rises, needed, found)


def within_noise(curve: Curve, rule: Mapping[str, Any]) -> list[int]:
    """Every T whose mean FID cannot be told from the best one's, by the sweet spot's tolerance."""
    best = best_of(curve)
    if best is None:
        return []
    limit = best.mean + tolerance(best.mean, (best.error, best.error), rule)
    return [T for T, point in eligible(curve).items() if point.mean <= limit]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation with mid-ranks for ties; NaN where one side is constant."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan
    return statistics.correlation(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


# ---- verdicts -----------------------------------------------------------------------------------


def judge(evidence: Evidence, declared: Mapping[str, Any]) -> list[Verdict]:
    """One verdict a claim, in a fixed order; `declared` is `paper_values.toml`, parsed."""
    shared = {name: value for name, value in declared["shapes"].items() if name not in _RULES}
    verdicts = []
    for claim, rule_of_claim in _RULES.items():
        rule = {**shared, **declared["shapes"][claim], "figure8": declared["figure8"]}
        stop = _stopped(evidence, rule)
        if stop:
            verdicts.append(verdict_of(claim, rule, stop[0], why=[stop[1]]))
            continue
        word, ours, numbers = rule_of_claim(evidence, rule)
        limits = _limits(evidence, rule)
        if limits and word == REPRODUCED:
            word = TREND
        verdicts.append(verdict_of(claim, rule, word, ours, limits, **numbers))
    return verdicts


# What keeps a claim from being judged at all: schedules without a FID, ends of T not reached.
def _stopped(evidence: Evidence, rule: Mapping[str, Any]) -> tuple[str, str] | None:
    needed = rule["figure8"]["order"]
    absent = [schedule for schedule in needed if not evidence.curves.get(schedule)]
    if absent:
        which = ", ".join(absent) if len(absent) < len(needed) else "any schedule of the paper"
        why = f": {evidence.why_no_fid}" if evidence.why_no_fid else ""
        return NOT_RUN, f"no FID for {which}{why}"
    low, high = rule["T_range"]
    ends = {
        s: (min(points), max(points)) for s in needed if (points := eligible(evidence.curves[s]))
    }
    short = {s: end for s, end in ends.items() if end[0] > low or end[1] < high}
    if short:
        who, (first, last) = next(iter(short.items()))
        got = f"T from {first} to {last}" if first < last else f"only T = {first}"
        whose = "this run" if len(set(ends.values())) == 1 else who
        return NOT_RUN, f"needs T from {low} to {high}; {whose} has {got}"
    if evidence.obstacles:
        return NOT_COMPARABLE, "; ".join(evidence.obstacles)
    return None


# What keeps a claim from being more than a trend.
def _limits(evidence: Evidence, rule: Mapping[str, Any]) -> list[str]:
    curves = [eligible(evidence.curves[schedule]) for schedule in rule["figure8"]["order"]]
    limits = []
    fewest = min(map(len, curves))
    ratio = max(later / T for curve in curves for T, later in pairwise(curve))
    if ratio > rule["max_T_ratio"]:
        limits.append(f"coarse grid of T ({fewest} values)")
    if any(point.n == 1 for curve in curves for point in curve.values()):
        limits.append(one_seed_words(max(map(pooled_sd, curves), key=_nan_last)))
    if evidence.unfinished:
        limits.append(f"{evidence.unfinished} cells are not there")
    return limits


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _groups(evidence: Evidence, rule: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    names = {"concave": rule["figure8"]["concave"], "linear": ["linear"]}
    names["convex"] = rule["figure8"]["convex"]
    mean, error = {}, {}
    for group, schedules in names.items():
        bests = [best for s in schedules if (best := best_of(evidence.curves[s]))]
        mean[group] = statistics.fmean(best.mean for best in bests)
        error[group] = math.hypot(*(best.error for best in bests)) / len(bests)

    def beats(better: str, worse: str) -> bool:
        needed = tolerance(mean[better], (error[better], error[worse]), rule)
        return mean[worse] - mean[better] > needed

    both = beats("concave", "linear") and beats("linear", "convex")
    word = grade(beats("concave", "convex"), both)
    ours = ", ".join(f"{group} {value:.2f}" for group, value in mean.items())
    return word, f"mean best FID: {ours}", mean


def _sweet_spots(evidence: Evidence, rule: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    spots = [sweet_spot(s, evidence.curves[s], rule) for s in rule["schedules"]]
    found = [spot.schedule for spot in spots if spot and spot.found]
    word = grade(len(found) >= rule["trend_at_least"], len(found) == len(spots))
    ours = f"{len(found)} of {len(spots)}"
    if found:
        ours += f" ({', '.join(found)})"
    unclear = [
        spot.schedule
        for spot in spots
        if spot and not spot.found and spot.first < spot.best.T < spot.last
    ]
    if unclear:
        ours += f"; inside, but the rise is within the noise: {', '.join(unclear)}"
    outside = [s for s in rule["figure8"]["order"] if s not in rule["schedules"]]
    for schedule in outside:
        spot = sweet_spot(schedule, evidence.curves[schedule], rule)
        ours += f"; {schedule}: {'has one too' if spot and spot.found else 'none'}"
    return word, ours, {"found": float(len(found)), "of": float(len(spots))}


def _later(evidence: Evidence, rule: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    bests = [best for s in rule["figure8"]["order"] if (best := best_of(evidence.curves[s]))]
    steps = [best.T for best in bests]
    rho = rank_correlation(range(len(steps)), steps)
    listed = ", ".join(map(str, steps))
    if math.isnan(rho):
        return NOT_REPRODUCED, f"every best T is {steps[0]}: no order", {"rho": rho}
    # As printed: a correlation of 0.9 must not fail for its fifteenth digit.
    value = round(rho, 9)
    word = grade(value >= rule["trend_from"], value >= rule["reproduced_from"])
    return word, f"rank correlation {rho:.2f} (best T: {listed})", {"rho": rho}


def _cosine_first(evidence: Evidence, rule: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    bests = {s: best for s in rule["figure8"]["order"] if (best := best_of(evidence.curves[s]))}
    ranked = sorted(bests, key=lambda s: (bests[s].mean, s))
    own, place = rule["schedule"], ranked.index(rule["schedule"]) + 1
    first, other = bests[ranked[0]], bests[ranked[1] if place == 1 else own]
    counts = other.mean - first.mean > tolerance(first.mean, (first.error, other.error), rule)
    if place == 1:
        word = REPRODUCED if counts else TREND
        ours = f"{own} {first.mean:.2f}, then {ranked[1]} {other.mean:.2f}"
    else:
        word = NOT_REPRODUCED if counts else TREND
        ours = f"{ranked[0]} {first.mean:.2f}; {own} is number {place} with {other.mean:.2f}"
    ours += "" if counts else " (level within the noise)"
    return word, ours, {"place": float(place)}


_RULES = {
    "groups": _groups,
    "sweet_spot": _sweet_spots,
    "later": _later,
    "cosine_first": _cosine_first,
}
