"""The arguments of a decoding, checked, and the images of a call laid out for the loops.

`maskgit.decoding`, its form of fixed shapes (`maskgit.sampling.fixed`), the autoregressive loop and
the one in JAX share these, so that all of them take the same arguments and give the same errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig
from maskgit.sampling.noise import prng_key
from maskgit.schedules import mask_counts


@dataclass(frozen=True)
class Trace:
    """Every iteration of a decoding, in the order of the images given; T' = steps - start."""

    tokens: Tensor  # (T', B, N) int64, the sample of each iteration before masking
    masked: Tensor  # (T', B, N) bool, what is masked again after it
    confidence: Tensor  # (T', B, N) float32, +inf where the token was known


@dataclass(frozen=True)
class Settings:
    """What is the same for all images of a call."""

    steps: int
    start: int
    choice_temperature: float
    sampling_temperature: float
    seed: int
    trace: bool

    def check(self) -> None:
        check_integer("steps", self.steps, 1)
        check_integer("start", self.start, 0, self.steps - 1)
        check_temperature("choice_temperature", self.choice_temperature, zero=True)
        check_temperature("sampling_temperature", self.sampling_temperature)
        prng_key(self.seed)

    def annealed(self, step: int) -> float:
        """The choice temperature of an iteration, 0 in the last; in float32 as officially."""
        ratio = np.float32(step + 1) / np.float32(self.steps)
        return float(np.float32(self.choice_temperature) * (np.float32(1.0) - ratio))


@dataclass
class State:
    """The images of a call while they are decoded."""

    grid: Tensor  # (B, N) int64, the mask id where masked
    final: Tensor  # (B, N) int64, the latest sample, no position masked
    mask_id: int
    labels: Tensor  # (B,) int64, class ids
    sample_ids: Tensor  # (B,) int64
    counts: Tensor  # (B, T') int64, how many tokens to mask again after each iteration
    trace: Trace


def begin(
    config: TransformerConfig,
    device: torch.device,
    settings: Settings,
    schedule: str,
    labels: Tensor,
    sample_ids: Tensor | None,
    tokens: Tensor | None,
) -> State:
    """Check the images asked for and lay them out."""
    labels, sample_ids, grid = check_images(config, device, labels, sample_ids, tokens)
    images, length = grid.shape
    rounds = settings.steps - settings.start
    counts = torch.zeros((images, rounds), dtype=torch.int64)
    unknown = (grid == config.mask_id).sum(dim=1).cpu()
    for number in unknown.unique().tolist():
        if number:
            row = mask_counts(schedule, settings.steps, number, settings.start)
            counts[unknown == number] = torch.tensor(row, dtype=torch.int64)
    shape = (rounds, images, length) if settings.trace else (0, images, length)
    trace = Trace(
        tokens=grid.expand(shape).clone(),
        masked=torch.zeros(shape, dtype=torch.bool, device=device),
        confidence=torch.full(shape, math.inf, device=device),
    )
    state = State(grid, grid.clone(), config.mask_id, labels, sample_ids, counts.to(device), trace)
    return state


def check_images(
    config: TransformerConfig,
    device: torch.device,
    labels: Tensor,
    sample_ids: Tensor | None,
    tokens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """labels (B,), sample_ids (B,) and a copy of tokens (B, N), checked, or their defaults."""
    labels = integers("labels", labels, (None,), device)
    check_range("labels", labels, 0, config.num_classes - 1)
    images = len(labels)
    if sample_ids is None:
        sample_ids = torch.arange(images, device=device)
    sample_ids = integers("sample_ids", sample_ids, (images,), device)
    check_range("sample_ids", sample_ids, 0, 2**32 - 1)
    if tokens is None:
        tokens = torch.full((images, config.num_tokens), config.mask_id, device=device)
    grid = integers("tokens", tokens, (images, config.num_tokens), device).clone()
    known = grid[grid != config.mask_id]
    check_range("tokens", known, 0, config.num_codes - 1, f", or {config.mask_id} (the mask)")
    return labels, sample_ids, grid


def check_temperature(name: str, value: Any, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf or (value == 0 and not zero):
        raise UsageError(f"{name} {value!r}: expected a number {'>=' if zero else '>'} 0")


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    expected = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} {value!r}: expected {expected}")
    if value < low or (high is not None and value > high):
        raise UsageError(f"{name} {value}: expected {expected}")


def check_range(name: str, values: Tensor, low: int, high: int, also: str = "") -> None:
    bad = values[(values < low) | (values > high)]
    if len(bad):
        raise UsageError(f"{name} {int(bad[0])}: expected integers from {low} to {high}{also}")


def integers(
    name: str, values: Tensor, shape: tuple[int | None, ...], device: torch.device
) -> Tensor:
    """The values as int64 on the device, if they are integers of that shape (None: any length)."""
    values = torch.as_tensor(values)
    wanted = str(shape).replace("None", "B")
    fits = values.ndim == len(shape) and all(
        size in (None, got) for size, got in zip(shape, values.shape, strict=True)
    )
    if not fits or values.is_floating_point() or values.dtype in (torch.bool, torch.complex64):
        got = f"{tuple(values.shape)} {values.dtype}"
        raise UsageError(f"{name} {got}: expected integers of shape {wanted}")
    return values.to(device=device, dtype=torch.int64)
