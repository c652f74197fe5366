"""Rows of the index: one number of the paper each, beside ours, with what became of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from reports.tables import DASH, mean_sd, number


@dataclass(frozen=True)
class Row:
    """One number: the paper's and ours, mean and sd over seeds.

    what: "Table 1, MaskGIT: FID". paper, mean, sd: NaN where there is none. n: samples behind each
    value; seeds: how many. verdict: a word of reports/verdicts/schedules.py; why: its reason, in a
    few words. compared: whether the difference of the two numbers means anything (the same data
    and protocol).
    """

    what: str
    paper: float
    mean: float
    sd: float
    n: int
    seeds: int
    verdict: str
    why: str = ""
    digits: int = 2
    compared: bool = False

    @property
    def difference(self) -> str:
        """Ours less the paper's, or a dash where they are not of one kind."""
        value = self.mean - self.paper
        if not self.compared or not math.isfinite(value):
            return DASH
        return f"{value:+.{self.digits}f}"

    def summary(self) -> dict[str, Any]:
        """Plain data for summary.json: finite numbers or null."""
        return {
            "what": self.what,
            "paper": number(self.paper, self.digits),
            "ours": mean_sd(self.mean, self.sd, self.digits),
            "n": self.n,
            "seeds": self.seeds,
            "difference": self.difference,
            "verdict": self.verdict,
            "why": self.why,
        }
