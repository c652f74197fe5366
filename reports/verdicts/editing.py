"""The verdicts on editing (Table 2, Figures 6 and 16), panoramas (15) and failures (21)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from reports.means import NOTHING, Mean, number, percent
from reports.verdicts.numbers import NOT_IN_RUN
from reports.verdicts.verdict import NOT_RUN, Verdict, grade, one_seed, tolerance, verdict_of

SHORT = {"mean": "mean fill", "autoregressive": "baseline"}


def judge_baselines(
    claim: str,
    fids: Mapping[str, Mapping[str, Mean]],
    rule: Mapping[str, Any],
    absent: Mapping[str, str],
) -> Verdict:
    """fids: task -> method -> FID, n = 0 where there is none; absent: method -> why it has none."""
    tasks, against = rule["tasks"], rule["against"]

    def fid(task: str, method: str) -> Mean:
        return fids.get(task, {}).get(method, NOTHING)

    without = [task for task in tasks if not fid(task, "maskgit").n]
    if without:
        why = f": {absent['maskgit']}" if absent.get("maskgit") else ""
        words = f"no FID of MaskGIT for {', '.join(without)}{why}"
        return verdict_of(claim, rule, NOT_RUN, why=[words])
    parts, wins, clear = [], True, True
    for task in tasks:
        own = fid(task, "maskgit")
        there = {method: fid(task, method) for method in against if fid(task, method).n}
        # A plain filling has no seed, so only MaskGIT's noise counts.
        needed = tolerance(own.mean, (own.error,), rule)
        wins &= all(other.mean > own.mean for other in there.values())
        clear &= all(other.mean - own.mean > needed for other in there.values())
        beside = ", ".join(f"{SHORT.get(m, m)} {number(v.mean)}" for m, v in there.items())
        parts.append(f"{task} {number(own.mean)}" + (f" ({beside})" if beside else ""))
    missing = [method for method in against if not all(fid(task, method).n for task in tasks)]
    if len(missing) == len(against):
        return verdict_of(claim, rule, NOT_RUN, why=["no baseline has a FID"])
    limits = [f"{SHORT.get(m, m)}: {absent.get(m) or NOT_IN_RUN}" for m in missing]
    limits += one_seed(*(fid(task, "maskgit") for task in tasks))
    return verdict_of(claim, rule, grade(wins, clear, limits), "; ".join(parts), limits)


def judge_class(
    share: Mean, before: Mean, classes: int, rule: Mapping[str, Any], why: str
) -> Verdict:
    """share: of edited images that show the class asked for; before: of the same before."""
    if not share.n:
        return verdict_of("figure6_class", rule, NOT_RUN, why=[why or NOT_IN_RUN])
    limits = one_seed(share)
    trend = share.mean >= rule["trend_chance"] / classes and share.mean > before.mean
    clear = share.mean >= rule["reproduced_from"]
    # Half of the images are enough for "reproduced", whatever was there before.
    word = grade(trend or (clear and not limits), clear, limits)
    ours = f"{percent(share.mean)} after the edit, {percent(before.mean)} before"
    return verdict_of("figure6_class", rule, word, ours, limits)


def judge_seams(ratio: Mean, factor: int | None, rule: Mapping[str, Any]) -> Verdict:
    """ratio: of gradients at the windows' boundaries and beside them, at the widest."""
    if not ratio.n:
        return verdict_of("figure15", rule, NOT_RUN, why=["no panorama"])
    limits = one_seed(ratio)
    word = grade(ratio.mean <= rule["trend_to"], ratio.mean <= rule["reproduced_to"], limits)
    ours = f"{number(ratio.mean)} times as much, at {factor} times the width"
    return verdict_of("figure15", rule, word, ours, limits)


def judge_boundary(ratios: Mapping[str, Mean], rule: Mapping[str, Any]) -> Verdict:
    """ratios: direction -> gradient across the boundary over that of the real images."""
    there = {name: value for name, value in ratios.items() if value.n}
    if not there:
        return verdict_of("figure21_boundary", rule, NOT_RUN, why=["nothing was outpainted"])
    overall = statistics.fmean(value.mean for value in there.values())
    limits = one_seed(*there.values())
    word = grade(overall >= rule["trend_from"], overall >= rule["reproduced_from"], limits)
    ours = ", ".join(f"{name} {number(value.mean)}" for name, value in there.items())
    return verdict_of("figure21_boundary", rule, word, f"times as much: {ours}", limits)


def judge_samples(ours: Mean, real: Mean, n: int, rule: Mapping[str, Any], why: str) -> Verdict:
    """ours, real: the shares of samples and of real images that are taken for another class.

    n: samples of each seed.
    """
    if not ours.n or not real.n:
        return verdict_of("figure21_samples", rule, NOT_RUN, why=[why or NOT_IN_RUN])
    # Two shares of independent images have binomial errors, which one seed has too.
    error = math.sqrt(sum(v.mean * (1 - v.mean) / (n * v.n) for v in (ours, real)))
    more = ours.mean - real.mean
    word = grade(more > 0, more > rule["noise_multiple"] * error)
    words = f"{percent(ours.mean)} of samples, {percent(real.mean)} of real images"
    return verdict_of("figure21_samples", rule, word, words)
