"""The finding of `ablate_schedule` in two sentences that its numbers decide, good news or bad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.means import Mean, and_list, number
from reports.verdicts.schedules import (
    Best,
    Evidence,
    best_of,
    one_seed_words,
    rank_correlation,
    sweet_spot,
)
from reports.verdicts.verdict import tolerance


def sentences(evidence: Evidence, declared: Mapping[str, Any]) -> list[str]:
    """Two sentences: which schedule wins, and whether the number of iterations has a sweet spot."""
    shapes = declared["shapes"]
    bests = {s: best for s, curve in evidence.curves.items() if (best := best_of(curve))}
    if not bests:
        why = f" ({evidence.why_no_fid})" if evidence.why_no_fid else ""
        return [f"No cell has a FID{why}, so nothing can be said about the schedules."]
    ranked = sorted(bests, key=lambda s: (bests[s].mean, s))
    rule = {"one_seed_relative": shapes["one_seed_relative"], **shapes["cosine_first"]}
    return [
        _winner(bests, ranked, rule),
        _iterations(evidence, ranked, declared),
    ]


def _value(best: Best) -> str:
    return f"{Mean(best.mean, best.sd, best.n).words()} at T = {best.T}"


def _winner(bests: Mapping[str, Best], ranked: Sequence[str], rule: Mapping[str, Any]) -> str:
    first, own = bests[ranked[0]], rule["schedule"]
    one_seed = "" if first.n > 1 else f" ({one_seed_words(first.error)})"
    if len(ranked) == 1:
        return f"Only {ranked[0]} has results: its lowest FID is {_value(first)}{one_seed}."
    if ranked[0] == own:
        second = bests[ranked[1]]
        text = (
            f"Of {len(ranked)} mask schedules {own} reaches the lowest FID, {_value(first)}, "
            f"ahead of {ranked[1]} with {_value(second)}"
        )
        other = second
    elif own in bests:
        other = bests[own]
        text = (
            f"{own.capitalize()} does not win: of {len(ranked)} mask schedules {ranked[0]} reaches "
            f"the lowest FID, {_value(first)}, and {own} is number {ranked.index(own) + 1} "
            f"with {_value(other)}"
        )
    else:
        other = bests[ranked[1]]
        text = (
            f"{own.capitalize()} did not run; of {len(ranked)} mask schedules {ranked[0]} reaches "
            f"the lowest FID, {_value(first)}, ahead of {ranked[1]} with {_value(other)}"
        )
    # As printed, so that a reader's own subtraction agrees.
    gap = round(other.mean, 2) - round(first.mean, 2)
    needed = tolerance(first.mean, (first.error, other.error), rule)
    if math.isnan(first.error):
        return f"{text}: a difference of {number(gap, 2)}{one_seed}."
    against = "more than" if other.mean - first.mean > needed else "which is within"
    return (
        f"{text}: a difference of {number(gap, 2)}, {against} the {number(needed, 2)} that "
        f"the noise allows{one_seed}."
    )


def _iterations(evidence: Evidence, ranked: Sequence[str], declared: Mapping[str, Any]) -> str:
    shapes, order = declared["shapes"], declared["figure8"]["order"]
    rule = {"one_seed_relative": shapes["one_seed_relative"], **shapes["sweet_spot"]}
    spots = [sweet_spot(s, evidence.curves[s], rule) for s in evidence.curves]
    known = [spot for spot in spots if spot is not None]
    if max(spot.last for spot in known) == min(spot.first for spot in known):
        return f"Only T = {known[0].first} ran, so nothing can be said about iterations."
    values = {T for curve in evidence.curves.values() for T in curve}
    if len(values) < 3:
        listed = and_list([str(T) for T in sorted(values)])
        return f"Only T = {listed} ran, between which a sweet spot cannot be seen."
    found = [spot.schedule for spot in known if spot.found]
    unknown = any(math.isnan(spot.best.error) for spot in known)
    margin = "more than the noise"
    if any(spot.best.n == 1 for spot in known):
        share = f"{100 * shapes['one_seed_relative']:g}%" if unknown else "the noise"
        margin = f"more than {share} ({one_seed_words(math.nan if unknown else 0.0)})"
    low, high = min(spot.first for spot in known), max(spot.last for spot in known)
    if not found:
        text = (
            f"No schedule has a sweet spot: between T = {low} and {high} no best T lies inside "
            f"the range with a FID at both ends that is worse by {margin}"
        )
    else:
        few = and_list(found) if len(found) <= 3 else f"{len(found)} of {len(known)} schedules"
        text = (
            f"More iterations are not always better: {few} "
            f"{'has a sweet spot' if len(found) == 1 else 'have a sweet spot'} inside "
            f"T = {low} to {high}, where FID is lower than at both ends by {margin}"
        )
    present = [s for s in order if s in ranked]
    steps = {spot.schedule: spot.best.T for spot in known}
    rho = rank_correlation(range(len(present)), [steps[s] for s in present])
    if len(present) < 3 or math.isnan(rho):
        return text + "."
    return text + (
        f"; the best T goes from {steps[present[0]]} for {present[0]} to {steps[present[-1]]} "
        f"for {present[-1]} (rank correlation with the paper's order {number(rho, 2)})."
    )
