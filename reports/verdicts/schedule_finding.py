"""What the finding of `ablate_schedule` says, good news or bad; its words are in the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.means import Mean
from reports.verdicts.schedules import (
    Best,
    Evidence,
    best_of,
    one_seed_words,
    rank_correlation,
    sweet_spot,
)
from reports.verdicts.verdict import tolerance


def finding(evidence: Evidence, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Which schedule wins, and whether the number of iterations has a sweet spot.

    ranked: the schedules by their lowest FID, empty where no cell has one.
    """
    bests = {s: best for s, curve in evidence.curves.items() if (best := best_of(curve))}
    ranked = sorted(bests, key=lambda s: (bests[s].mean, s))
    found: dict[str, Any] = {"ranked": ranked}
    if ranked:
        shapes = declared["shapes"]
        shared = {"one_seed_relative": shapes["one_seed_relative"]}
        found |= _winner(bests, ranked, {**shared, **shapes["cosine_first"]})
        order = [s for s in declared["figure8"]["order"] if s in ranked]
        found |= _iterations(evidence, order, {**shared, **shapes["sweet_spot"]})
    return found


def _winner(
    bests: Mapping[str, Best], ranked: Sequence[str], rule: Mapping[str, Any]
) -> dict[str, Any]:
    """own: the schedule that the paper ranks first. other: the one that the winner is held against.

    counts: whether the difference is more than the noise; None where the noise is unknown.
    """
    own, first = rule["schedule"], bests[ranked[0]]
    found: dict[str, Any] = {"own": own, "place": ranked.index(own) + 1 if own in bests else 0}
    found["best"] = {
        s: {"T": best.T, "value": Mean(best.mean, best.sd, best.n)} for s, best in bests.items()
    }
    found["one_seed"] = one_seed_words(first.error) if first.n == 1 else ""
    if len(ranked) > 1:
        name = own if found["place"] > 1 else ranked[1]
        other = bests[name]
        needed = tolerance(first.mean, (first.error, other.error), rule)
        unknown = math.isnan(first.error)
        found |= {"other": name, "allowed": needed}
        # As printed, so that a reader's own subtraction agrees.
        found["gap"] = round(other.mean, 2) - round(first.mean, 2)
        found["counts"] = None if unknown else other.mean - first.mean > needed
    return found


def _iterations(
    evidence: Evidence, order: Sequence[str], rule: Mapping[str, Any]
) -> dict[str, Any]:
    """order: the schedules that ran, in the paper's order of concavity. rho: the rank correlation
    of that order with the best T, NaN for fewer than three."""
    spots = [spot for s, c in evidence.curves.items() if (spot := sweet_spot(s, c, rule))]
    steps = {spot.schedule: spot.best.T for spot in spots}
    unknown = any(math.isnan(spot.best.error) for spot in spots)
    margin = "the noise"
    if any(spot.best.n == 1 for spot in spots):
        share = f"{100 * rule['one_seed_relative']:g}%" if unknown else margin
        margin = f"{share} ({one_seed_words(math.nan if unknown else 0.0)})"
    rho = rank_correlation(range(len(order)), [steps[s] for s in order])
    return {
        "values": sorted({T for curve in evidence.curves.values() for T in curve}),
        "low": min(spot.first for spot in spots),
        "high": max(spot.last for spot in spots),
        "of": len(spots),
        "spots": [spot.schedule for spot in spots if spot.found],
        "margin": margin,
        "order": order,
        "rho": rho if len(order) > 2 and math.isfinite(rho) else None,
    }
