"""Numbers of the paper beside ours, and the rules for what becomes of each in the index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reports.means import DASH, NOTHING, Mean, number
from reports.verdicts.verdict import NOT_COMPARABLE, NOT_RUN, REPRODUCED, Verdict, grade

OTHER_DATA = "another data set, image size and feature network"
PICTURES_ONLY = "the paper has pictures only"
NOT_IN_RUN = "not in this run"


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper beside ours.

    what: "Table 1, MaskGIT: FID". paper: NaN where the paper prints none. ours: over seeds. n:
    samples behind each value. verdict: a word of reports/verdicts, with the reason in a few words.
    compared: whether the difference of the two numbers means anything (the same data and protocol).
    """

    what: str
    paper: float
    ours: Mean
    n: int
    verdict: str
    why: str = ""
    digits: int = 2
    compared: bool = False

    @property
    def difference(self) -> str:
        """Ours less the paper's, or a dash where they are not of one kind."""
        value = self.ours.mean - self.paper
        if not self.compared or not math.isfinite(value):
            return DASH
        return f"{value:+.{self.digits}f}"

    def summary(self) -> dict[str, Any]:
        """Plain data for summary.json: finite numbers or null."""
        return {
            "what": self.what,
            "paper": number(self.paper, self.digits),
            "ours": self.ours.words(self.digits),
            "n": self.n,
            "seeds": self.ours.n,
            "difference": self.difference,
            "verdict": self.verdict,
            "why": self.why,
        }


def judge_number(
    what: str,
    paper: float,
    ours: Mean,
    *,
    samples: int,
    same_preset: bool,
    rule: Mapping[str, Any],
    why: str = "",
) -> PaperNumber:
    """A number of a table: compared on the paper's own preset only.

    rule: has reproduced_within and trend_within, shares of the paper's number. why: the reason
    where ours is missing.
    """
    word, reason = NOT_COMPARABLE, OTHER_DATA
    if not ours.n:
        word, reason = NOT_RUN, why or NOT_IN_RUN
    elif same_preset:
        off, reason = abs(ours.mean - paper) / paper, ""
        word = grade(off <= rule["trend_within"], off <= rule["reproduced_within"])
    return PaperNumber(what, paper, ours, samples, word, reason, compared=same_preset)


def without_paper(
    what: str, ours: Mean, verdict: Verdict, *, samples: int, why: str = NOT_IN_RUN, digits: int = 2
) -> PaperNumber:
    """A number that the paper shows in pictures only; it shares the verdict of its claim."""
    word, reason = (verdict.verdict, PICTURES_ONLY) if ours.n else (NOT_RUN, why)
    return PaperNumber(what, math.nan, ours, samples, word, reason, digits)


def not_run(what: str, why: str, paper: float = math.nan, digits: int = 2) -> PaperNumber:
    """A number that is not there at all."""
    return PaperNumber(what, paper, NOTHING, 0, NOT_RUN, why, digits)


def judge_iteration_count(
    what: str, paper: int, ours: int | None, *, is_setting: bool, same: bool, tokens: int, why: str
) -> PaperNumber:
    """A number of iterations of Figure 2.

    ours: None where there is no trace, with the reason in `why`. is_setting: whether the user sets
    it, so that it can be met with any number of tokens. same: whether the preset is the paper's.
    """
    if ours is None:
        return not_run(what, why or NOT_IN_RUN, float(paper), 0)
    word, reason = NOT_COMPARABLE, f"{tokens} tokens per image instead of 256"
    if ours == paper and (same or is_setting):
        word, reason = REPRODUCED, "" if same else "a setting of the decoding, met"
    value = Mean(float(ours), math.nan, 1)
    return PaperNumber(what, float(paper), value, 0, word, reason, 0, same)


def judge_speedup(what: str, paper: float, ours: float | None, batches: int) -> PaperNumber:
    """A speed-up of Figure 4: never comparable, for it belongs to a device and a model's size."""
    value = Mean(math.nan if ours is None else ours, math.nan, 1)
    word, why = NOT_COMPARABLE, "another device and another size"
    if ours is None:
        word, why = NOT_RUN, NOT_IN_RUN
    return PaperNumber(what, paper, value, batches, word, why, 1)
