"""What a verdict is, and the steps that all rules share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.means import Mean

REPRODUCED = "reproduced"
TREND = "trend reproduced"
NOT_REPRODUCED = "not reproduced"
NOT_COMPARABLE = "not comparable"
NOT_RUN = "not run"
ONE_SEED = "n=1: the noise is unknown"


@dataclass(frozen=True)
class Verdict:
    """One claim and what became of it: `ours` was measured, `why` are the reasons and limits."""

    claim: str
    title: str
    paper: str
    rule: str
    verdict: str
    ours: str = ""
    why: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Plain data for summary.json."""
        names = ("claim", "title", "paper", "ours", "verdict")
        return {name: getattr(self, name) for name in names} | {"why": list(self.why)}


def verdict_of(
    claim: str,
    rule: Mapping[str, Any],
    word: str,
    ours: str = "",
    why: Sequence[str] = (),
    **numbers: float,
) -> Verdict:
    """A verdict with the title, the paper's words and the rule of its claim."""
    head = {name: str(rule[name]) for name in ("title", "paper", "rule")}
    return Verdict(claim=claim, verdict=word, ours=ours, why=tuple(why), numbers=numbers, **head)


def grade(trend: bool, clear: bool, limits: Sequence[str] = ()) -> str:
    """Reproduced where the difference is clear and nothing limits it; else a trend or neither."""
    if not trend:
        return NOT_REPRODUCED
    return REPRODUCED if clear and not limits else TREND


def one_seed(*values: Mean) -> list[str]:
    """The limit that a value of a single seed sets."""
    return [ONE_SEED] if any(value.n == 1 for value in values) else []


def noise(first: Mean, second: Mean) -> float:
    """The standard error of the difference of two means; NaN where one has a single seed."""
    return math.hypot(first.error, second.error)


def tolerance(reference: float, errors: Iterable[float], rule: Mapping[str, Any]) -> float:
    """How far a difference of FIDs must go to count, given the standard errors of its terms.

    The larger of `noise_multiple` standard errors and the share `relative` of the reference; with a
    single seed on a coarse grid, where no error is known, the share `one_seed_relative`.
    """
    error = math.sqrt(sum(value**2 for value in errors))
    if math.isnan(error):
        return float(rule["one_seed_relative"]) * reference
    return max(rule["noise_multiple"] * error, rule["relative"] * reference)
