"""The verdicts on Figure 2 (what each iteration fixes) and Figure 4 (how fast decoding is)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from reports.verdicts.verdict import NOT_RUN, Verdict, grade, verdict_of


def judge_iterations(kept: Sequence[int], rule: Mapping[str, Any]) -> Verdict:
    """kept: tokens that each iteration of MaskGIT fixes."""
    if len(kept) < 2:
        why = f"{len(kept)} iterations of MaskGIT" if kept else "no trace of MaskGIT"
        return verdict_of("figure2", rule, NOT_RUN, why=[why])
    rising = all(later >= before for before, later in pairwise(kept))
    half = len(kept) // 2
    more_in_second_half = sum(kept[-half:]) > sum(kept[:half])
    word = grade(more_in_second_half, rising and kept[-1] >= rule["sharply"] * kept[0])
    ours = f"{len(kept)} iterations fix {', '.join(map(str, kept))} tokens"
    return verdict_of("figure2", rule, word, ours)


def judge_speed(
    speedups: Mapping[int, float], rule: Mapping[str, Any], paper: Mapping[str, Any]
) -> Verdict:
    """speedups: number of tokens -> times as fast as the baseline at the fewest iterations."""
    printed = f"{paper['speedup_min']}x to {paper['speedup_max']}x, more with more tokens"
    rule = {**rule, "paper": printed}
    if len(speedups) < 2:
        return verdict_of("figure4", rule, NOT_RUN)
    values = [speedups[tokens] for tokens in sorted(speedups)]
    grows = all(later > before for before, later in pairwise(values))
    word = grade(grows and values[-1] > 1, values[-1] >= rule["reproduced_from"])
    ours = ", ".join(f"{value:.1f}x at {n} tokens" for n, value in sorted(speedups.items()))
    return verdict_of("figure4", rule, word, ours)
