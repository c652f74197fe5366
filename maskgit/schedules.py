"""Mask schedules gamma(r): which share of the tokens is still masked after a share r of the steps.

One registry: to add a schedule, write its formula and put it into `FORMULAS`; the command lines,
the training and the decoding take it from there.

Source: the paper's section 3.1 and figure 8, and the official code (maskgit/libml/mask_schedule.py,
parallel_decode.py), whose float32 numbers these are, bit for bit, as JAX computes them on a CPU
operation by operation. Known answers: tests/golden/gamma.json and mask_counts.json.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from maskgit.common.errors import UsageError
from maskgit.model import float32
from maskgit.model.float32 import Float32

_MIN_RATIO = np.float32(1e-6)
_ONE = np.float32(1)
_TINY = np.float32(2.0**-126)
_HALF_PI = np.float32(math.pi / 2)
_LN2 = np.float32(math.log(2))
# XLA divides by the constant ln 2 by multiplying with its reciprocal.
_INVERSE_LN2 = _ONE / _LN2
_POWER_NAME = re.compile(r"pow(\d+\.?\d*|\.\d+)", re.ASCII)

# (r, N) -> gamma before clipping; both float32, N of no dimension or of r's shape.
Formula = Callable[[Float32, Float32], Float32]


def _log2(x: Float32) -> Float32:
    return float32.log(x) * _INVERSE_LN2


def _power(exponent: float) -> Formula:
    return lambda r, num_tokens: _ONE - float32.power(r, exponent)


def _linear(r: Float32, num_tokens: Float32) -> Float32:
    return _ONE - r


def _cosine(r: Float32, num_tokens: Float32) -> Float32:
    return float32.cos(_HALF_PI * r)


def _arccos(r: Float32, num_tokens: Float32) -> Float32:
    # Not in the official code: no bits to follow.
    return (np.arccos(r.astype(np.float64)) * (2 / math.pi)).astype(np.float32)


def _logarithmic(r: Float32, num_tokens: Float32) -> Float32:
    # -log2(r) is below 1022 down to the smallest normal float32; gamma is clipped to 1 long before.
    numerator, denominator = -_log2(np.maximum(r, _TINY)), _log2(num_tokens)
    with np.errstate(divide="ignore", invalid="ignore"):
        # XLA divides many numbers by one by multiplying them with its reciprocal, as in gamma.json;
        # the decode loop divides one by the many (the images of a batch), which is a true division.
        if r.size > 1 and num_tokens.ndim == 0:
            ratio = numerator * (_ONE / denominator)
        else:
            ratio = numerator / denominator
    # The end of the schedule for a single token would be 0 / 0.
    return np.where(r == _ONE, np.float32(0), ratio)


def _exponential(r: Float32, num_tokens: Float32) -> Float32:
    # XLA evaluates 2**x as exp(x ln 2).
    return _ONE - float32.exp(-_log2(num_tokens) * (_ONE - r) * _LN2)


# The schedules that have a name; `pow<x>`, for example pow1.5, is accepted beside them.
FORMULAS: dict[str, Formula] = {
    "cosine": _cosine,
    "linear": _linear,
    "square": _power(2),
    "cubic": _power(3),
    "sqrt": _power(0.5),
    "logarithmic": _logarithmic,
    "exponential": _exponential,
    "arccos": _arccos,
}


def validate(schedule: str, flag: str = "--schedules") -> str:
    """Return `schedule`, or raise UsageError naming `flag`, the value and the names accepted."""
    _formula(schedule, flag)
    return schedule


def mask_ratio(schedule: str, r: ArrayLike, num_tokens: int) -> np.ndarray:
    """gamma(r) in [1e-6, 1], float32, shaped as `r`; r is the share of the steps done, in [0, 1].

    `num_tokens`, N, matters to logarithmic and exponential only. Raises UsageError for an unknown
    schedule, r outside [0, 1] or num_tokens < 1. Source: mask_schedule.py of the official code.
    """
    formula = _formula(schedule)
    if num_tokens < 1:
        raise UsageError(f"num_tokens {num_tokens}: expected a positive number of tokens")
    r = np.asarray(r, np.float32)
    if not np.all((r >= 0) & (r <= 1)):
        bad = r[~((r >= 0) & (r <= 1))].flat[0]
        raise UsageError(f"r {bad:g}: expected a share of the steps from 0 to 1")
    return _clip(formula(r, np.asarray(num_tokens, np.float32)))


def mask_counts(schedule: str, steps: int, num_unknown: int, start: int = 0) -> list[int]:
    """Tokens still masked after each of the iterations start, ..., steps - 1 of the decode loop.

    With N0 = `num_unknown` tokens masked before the first of them, iteration t leaves
    n = max(1, min(unknown - 1, floor(N0 gamma((t + 1) / steps)))), in float32: at least one token
    is revealed while there are two, and one stays masked to the end (the image is taken from the
    last iteration before that masking). All are 0 where nothing is masked at the start.

    Raises UsageError unless steps >= 1, 0 <= start < steps and num_unknown >= 0.
    Source: the paper's section 3.2 and decode() in the official parallel_decode.py.
    """
    _formula(schedule)
    steps, num_unknown, start = map(operator.index, (steps, num_unknown, start))
    if steps < 1:
        raise UsageError(f"--T {steps}: expected at least one iteration")
    if not 0 <= start < steps:
        raise UsageError(f"start {start}: expected an iteration from 0 to {steps - 1} (of {steps})")
    if num_unknown < 0:
        raise UsageError(f"num_unknown {num_unknown}: expected a number of tokens, 0 or more")
    return list(_mask_counts(schedule, steps, num_unknown, start))


def _clip(ratio: Float32) -> Float32:
    return np.asarray(np.clip(ratio, _MIN_RATIO, _ONE))


@lru_cache(maxsize=4096)
def _mask_counts(schedule: str, steps: int, num_unknown: int, start: int) -> tuple[int, ...]:
    if num_unknown == 0:
        return (0,) * (steps - start)
    r = np.arange(start + 1, steps + 1).astype(np.float32) / np.float32(steps)
    tokens = np.full_like(r, num_unknown)
    wanted = np.floor(tokens * _clip(_formula(schedule)(r, tokens)))
    counts, unknown = [], num_unknown
    for count in wanted.astype(np.int64).tolist():
        unknown = max(1, min(unknown - 1, count))
        counts.append(unknown)
    return tuple(counts)


@lru_cache(maxsize=64)
def _formula(schedule: str, flag: str = "--schedules") -> Formula:
    if schedule in FORMULAS:
        return FORMULAS[schedule]
    match = _POWER_NAME.fullmatch(schedule)
    if match and 2**-126 <= float(match[1]) < 2**128:
        return _power(float(match[1]))
    close = difflib.get_close_matches(schedule, FORMULAS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    accepted = ", ".join((*FORMULAS, "pow<x> with x > 0"))
    raise UsageError(f"{flag} {schedule!r}: unknown schedule{hint}; accepted: {accepted}")
