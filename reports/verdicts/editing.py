"""The verdicts on iterations, editing, panoramas and failures; see reports/verdicts/schedules.py.

All rules come from `paper_values.toml`, written before the runs. One seed, or a baseline that is
not there, never earns more than "trend reproduced".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from reports.rows import Row
from reports.study import Mean
from reports.tables import number
from reports.verdicts.schedules import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    TREND,
    Verdict,
    tolerance,
)

ONE_SEED = "n=1: the noise is unknown"
OTHER_DATA = "another data set, image size and feature network"


def standard_error(value: Mean) -> float:
    """Of a mean over seeds; NaN for one seed."""
    return value.sd / math.sqrt(value.n) if value.n > 1 else math.nan


def verdict_of(
    claim: str,
    rule: Mapping[str, Any],
    word: str,
    ours: str = "",
    why: Sequence[str] = (),
    **numbers: float,
) -> Verdict:
    """A verdict with the words of its rule."""
    head = {name: str(rule[name]) for name in ("title", "paper", "rule")}
    return Verdict(claim=claim, verdict=word, ours=ours, why=tuple(why), numbers=numbers, **head)


def judge_iterations(kept: Sequence[int], rule: Mapping[str, Any]) -> Verdict:
    """kept: tokens that each iteration of MaskGIT fixes."""
    if len(kept) < 2:
        why = f"{len(kept)} iterations of MaskGIT" if kept else "no trace of MaskGIT"
        return verdict_of("figure2", rule, NOT_RUN, why=[why])
    rising = all(later >= before for before, later in pairwise(kept))
    half = len(kept) // 2
    word = NOT_REPRODUCED
    if sum(kept[-half:]) > sum(kept[:half]):
        word = REPRODUCED if rising and kept[-1] >= rule["sharply"] * kept[0] else TREND
    ours = f"{len(kept)} iterations fix {', '.join(map(str, kept))} tokens"
    return verdict_of("figure2", rule, word, ours)


def judge_baselines(
    claim: str,
    fids: Mapping[str, Mapping[str, Mean]],
    rule: Mapping[str, Any],
    absent: Mapping[str, str],
) -> Verdict:
    """fids: task -> method -> FID, n = 0 where there is none; absent: method -> why it has none."""
    tasks, against = rule["tasks"], rule["against"]
    without = [task for task in tasks if not fids.get(task, {}).get("maskgit", _NONE).n]
    if without:
        why = absent.get("maskgit", "")
        words = f"no FID of MaskGIT for {', '.join(without)}" + (f": {why}" if why else "")
        return verdict_of(claim, rule, NOT_RUN, why=[words])
    limits, parts, wins, clear = [], [], True, True
    for task in tasks:
        own = fids[task]["maskgit"]
        there = {m: fids[task][m] for m in against if fids[task].get(m, _NONE).n}
        for other in there.values():
            # A plain filling has no seed: only MaskGIT's noise counts.
            needed = tolerance(own.mean, (standard_error(own),), rule)
            wins &= other.mean > own.mean
            clear &= other.mean - own.mean > needed
        beside = ", ".join(f"{_short(m)} {number(v.mean, 2)}" for m, v in there.items())
        parts.append(f"{task} {number(own.mean, 2)}" + (f" ({beside})" if beside else ""))
    missing = [m for m in against if any(not fids[t].get(m, _NONE).n for t in tasks)]
    if len(missing) == len(against):
        return verdict_of(claim, rule, NOT_RUN, why=["no baseline has a FID"])
    limits += [f"{_short(m)}: {absent.get(m) or 'not in this run'}" for m in missing]
    limits += [ONE_SEED] if any(fids[task]["maskgit"].n == 1 for task in tasks) else []
    word = NOT_REPRODUCED
    if wins:
        word = REPRODUCED if clear and not limits else TREND
    return verdict_of(claim, rule, word, "; ".join(parts), limits)


def judge_class(
    share: Mean, before: Mean, classes: int, rule: Mapping[str, Any], why: str
) -> Verdict:
    """share: of edited images that show the class asked for; before: of the same before."""
    if not share.n:
        return verdict_of("figure6_class", rule, NOT_RUN, why=[why or "not in this run"])
    chance = 1 / classes
    word = NOT_REPRODUCED
    if share.mean >= rule["trend_chance"] * chance and share.mean > before.mean:
        word = TREND
    limits = [ONE_SEED] if share.n == 1 else []
    if share.mean >= rule["reproduced_from"] and not limits:
        word = REPRODUCED
    ours = f"{percent(share.mean)} after the edit, {percent(before.mean)} before"
    return verdict_of("figure6_class", rule, word, ours, limits)


def judge_seams(ratio: Mean, factor: int | None, rule: Mapping[str, Any]) -> Verdict:
    """ratio: of gradients at the windows' boundaries and beside them, at the widest."""
    if not ratio.n:
        return verdict_of("figure15", rule, NOT_RUN, why=["no panorama"])
    limits = [ONE_SEED] if ratio.n == 1 else []
    word = NOT_REPRODUCED
    if ratio.mean <= rule["trend_to"]:
        word = REPRODUCED if ratio.mean <= rule["reproduced_to"] and not limits else TREND
    ours = f"{number(ratio.mean, 2)} times as much, at {factor} times the width"
    return verdict_of("figure15", rule, word, ours, limits)


def judge_boundary(ratios: Mapping[str, Mean], rule: Mapping[str, Any]) -> Verdict:
    """ratios: direction -> gradient across the boundary over that of the real images."""
    there = {name: value for name, value in ratios.items() if value.n}
    if not there:
        return verdict_of("figure21_boundary", rule, NOT_RUN, why=["nothing was outpainted"])
    overall = sum(value.mean for value in there.values()) / len(there)
    limits = [ONE_SEED] if any(value.n == 1 for value in there.values()) else []
    word = NOT_REPRODUCED
    if overall >= rule["trend_from"]:
        word = REPRODUCED if overall >= rule["reproduced_from"] and not limits else TREND
    ours = ", ".join(f"{name} {number(value.mean, 2)}" for name, value in there.items())
    return verdict_of("figure21_boundary", rule, word, f"times as much: {ours}", limits)


def judge_samples(ours: Mean, real: Mean, n: int, rule: Mapping[str, Any], why: str) -> Verdict:
    """Shares that the classifier takes for another class: of n samples a seed, of real images."""
    if not ours.n or not real.n:
        return verdict_of("figure21_samples", rule, NOT_RUN, why=[why or "not in this run"])
    # Two shares of independent images: binomial errors, which one seed has too.
    error = math.sqrt(sum(v.mean * (1 - v.mean) / (n * v.n) for v in (ours, real)))
    more = ours.mean - real.mean
    word = NOT_REPRODUCED
    if more > 0:
        word = REPRODUCED if more > rule["noise_multiple"] * error else TREND
    words = f"{percent(ours.mean)} of samples, {percent(real.mean)} of real images"
    return verdict_of("figure21_samples", rule, word, words)


def number_row(
    what: str,
    paper: float,
    ours: Mean,
    *,
    samples: int,
    same_preset: bool,
    rule: Mapping[str, Any],
    why: str = "",
    digits: int = 2,
) -> Row:
    """A number of the paper beside ours: compared only on the paper's own preset.

    rule: has reproduced_within and trend_within, shares of the paper's number. why: the reason
    where ours is missing.
    """
    word, reason = NOT_COMPARABLE, OTHER_DATA
    if not ours.n:
        word, reason = NOT_RUN, why or "not in this run"
    elif same_preset:
        off, reason = abs(ours.mean - paper) / paper, ""
        word = NOT_REPRODUCED
        if off <= rule["trend_within"]:
            word = REPRODUCED if off <= rule["reproduced_within"] else TREND
    mean, sd = ours.mean, ours.sd
    return Row(what, paper, mean, sd, samples, ours.n, word, reason, digits, same_preset)


def percent(share: float) -> str:
    """`12.3%`."""
    return f"{number(100 * share, 1)}%"


def _short(method: str) -> str:
    return {"mean": "mean fill", "autoregressive": "baseline"}.get(method, method)


_NONE = Mean(math.nan, math.nan, 0)
