"""Means over seeds, and numbers as words: fixed decimals everywhere."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DASH = "–"


@dataclass(frozen=True)
class Mean:
    """Mean and standard deviation over n values; NaN where there are none (sd: fewer than two)."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """Of finite values, one a seed."""
        numbers = [float(value) for value in values]
        if not numbers:
            return NOTHING
        sd = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
        return cls(statistics.fmean(numbers), sd, len(numbers))

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN for one value, whose noise is unknown."""
        return self.sd / math.sqrt(self.n) if self.n > 1 else math.nan

    @property
    def bar(self) -> float:
        """Half the length of the error bar: the standard deviation, or 0 where there is none."""
        return self.sd if math.isfinite(self.sd) else 0.0

    def scaled(self, factor: float) -> Mean:
        """In another unit, for example percent."""
        return Mean(factor * self.mean, factor * self.sd, self.n)

    def words(self, digits: int = 2) -> str:
        """`1.20 ± 0.05`, the mean alone where there is one value, or a dash."""
        if not math.isfinite(self.mean) or not math.isfinite(self.sd):
            return number(self.mean, digits)
        return f"{number(self.mean, digits)} ± {number(self.sd, digits)}"


NOTHING = Mean(math.nan, math.nan, 0)


def number(value: float, digits: int = 2) -> str:
    """Fixed decimals; a dash for NaN; never "-0.00"."""
    if not math.isfinite(value):
        return DASH
    return f"{round(value, digits) + 0.0:.{digits}f}"


def percent(share: float, digits: int = 1) -> str:
    """`12.3%`, or a dash for NaN."""
    return f"{number(100 * share, digits)}%" if math.isfinite(share) else DASH


def ranges(values: Iterable[int], among: Sequence[int]) -> str:
    """Values of T as runs of neighbours in `among`: 8, 9, 10, 12 of 4..60 is "8-10, 12"."""
    place = {value: i for i, value in enumerate(sorted(among))}
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and place[value] == place[runs[-1][-1]] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def and_list(words: Iterable[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    texts = [str(word) for word in words]
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def sentence(text: str) -> str:
    """With a capital first letter; the rest as it is."""
    return text[:1].upper() + text[1:]
