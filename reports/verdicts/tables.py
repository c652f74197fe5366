"""The verdicts on Tables 1, 4 and 5: MaskGIT against the baseline, and rejection sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from reports.means import Mean, number
from reports.verdicts.verdict import (
    NOT_COMPARABLE,
    NOT_RUN,
    Verdict,
    grade,
    noise,
    one_seed,
    verdict_of,
)


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
    """MaskGIT against the baseline.

    higher: whether more is better. why: the reason if one of the two values is missing. digits,
    scale, unit: how the values are printed. steps: how many each takes, MaskGIT first, where the
    claim needs many times fewer. real, chance: what real images and guessing reach, of a score that
    says nothing where the two are close.
    """
    if not (ours.n and baseline.n):
        who = "MaskGIT" if not ours.n else "the baseline"
        return verdict_of(claim, rule, NOT_RUN, why=[why or f"no value of {who}"])
    lead = (ours.mean - baseline.mean) * (1 if higher else -1)
    noise_allowed = rule["noise_multiple"] * noise(ours, baseline)
    fewer = steps is None or steps[1] >= rule["fewer_steps"] * steps[0]
    limits = one_seed(ours, baseline)

    def told(value: Mean) -> str:
        return f"{number(scale * value.mean, digits)}{unit}"

    words = f"{told(ours)} against {told(baseline)}"
    if steps is not None:
        words = f"{told(ours)} in {steps[0]} steps against {told(baseline)} in {steps[1]}"
    if real is not None and real.n and real.mean < rule["times_chance"] * chance:
        guessing = f"guessing {number(scale * chance, digits)}{unit}: too little training"
        learnt = f"real images reach {told(real)}, {guessing}"
        return verdict_of(claim, rule, NOT_COMPARABLE, words, [learnt])
    word = grade(lead > 0 and fewer, lead > noise_allowed, limits)
    if math.isfinite(noise_allowed) and abs(lead) <= noise_allowed:
        words += " (level within the noise)"
    return verdict_of(claim, rule, word, words, limits)


def judge_rejection_is(
    scores: Mapping[float, Mean], rule: Mapping[str, Any], why: str, judge: str = ""
) -> Verdict:
    """scores: acceptance rate -> Inception Score.

    judge: the classifier that rejects, where it also measures.
    """
    rates = [rate for rate in sorted(scores, reverse=True) if scores[rate].n]
    if len(rates) < 2:
        return verdict_of("table4_is", rule, NOT_RUN, why=[why or "fewer than two rates"])
    first, last = scores[rates[0]], scores[rates[-1]]
    rises = all(scores[b].mean > scores[a].mean for a, b in pairwise(rates))
    counts = last.mean - first.mean > rule["noise_multiple"] * noise(first, last)
    limits = _rejection_limits(first, last, judge)
    word = grade(last.mean > first.mean, rises and counts, limits)
    return verdict_of("table4_is", rule, word, _by_rate(scores), limits)


def judge_rejection_fid(
    fids: Mapping[float, Mean], rule: Mapping[str, Any], why: str, judge: str = ""
) -> Verdict:
    """fids: acceptance rate -> FID; without rate 1 there is nothing to compare with.

    judge: the classifier that rejects, where it also measures.
    """
    plain = fids.get(1.0)
    lower = [rate for rate in sorted(fids) if rate < 1 and fids[rate].n]
    if plain is None or not plain.n or not lower:
        words = why or "needs a FID at rate 1 and at another"
        return verdict_of("table4_fid", rule, NOT_RUN, why=[words])
    last = fids[lower[0]]
    counts = plain.mean - last.mean > rule["noise_multiple"] * noise(plain, last)
    limits = _rejection_limits(plain, last, judge)
    word = grade(any(fids[rate].mean < plain.mean for rate in lower), counts, limits)
    return verdict_of("table4_fid", rule, word, _by_rate(fids), limits)


def _rejection_limits(first: Mean, last: Mean, judge: str) -> list[str]:
    return one_seed(first, last) + ([f"{judge} rejects and measures"] if judge else [])


def _by_rate(values: Mapping[float, Mean]) -> str:
    rates = [rate for rate in sorted(values, reverse=True) if values[rate].n]
    return ", ".join(f"{number(values[rate].mean)} at {rate:g}" for rate in rates)
