"""Panoramas (paper, Figure 15): outpainting sideways, again and again, with overlapping windows.

The canvas is a row of tokens. A window of the transformer's own width slides outwards; its part on
the canvas is known, the rest is decoded. The pixels are decoded window by window too, each in the
size the tokenizer was trained at, and cross-faded where windows overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit.common.errors import UsageError
from maskgit.decoding import generate
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from maskgit.sampling.editing import START, STEPS

SEED_STRIDE = 0x9E3779B1  # window k draws with seed + k * this, modulo 2^32


@dataclass(frozen=True)
class Panorama:
    """What `extend` returns; left is where the input begins, in pixels."""

    images: Tensor  # (B, C, H, width) float32 in [0, 1]
    tokens: Tensor  # (B, h, columns) int64
    left: int


@torch.inference_mode()
def extend(
    transformer: Transformer,
    tokenizer: Tokenizer,
    images: Tensor,
    labels: Tensor,
    width: int,
    *,
    overlap: float = 0.5,
    steps: int = STEPS,
    start: int = START,
    seed: int = 0,
    **settings: Any,
) -> Panorama:
    """Outpaint images to both sides until they are `width` pixels wide.

    images: (B, C, H, W) float32 in [0, 1], of the transformer's size; labels: (B,) class ids.
    width: in pixels, at least W; the surplus of the last token is cut off at the right.
    overlap: share of a window that is known when it is decoded, in (0, 1).

    The input's pixels are kept, but for a cross-fade of one token at each of its edges.

    Raises:
        UsageError: a width or an overlap outside these ranges, or an image of another size.
    """
    cell = tokenizer.config.downsampling
    height, side = images.shape[2:]
    rows, window = height // cell, side // cell
    if rows * window != transformer.config.num_tokens or height % cell or side % cell:
        raise UsageError(
            f"image of {height}x{side}: expected one of {transformer.config.num_tokens} tokens of "
            f"{cell}x{cell} pixels"
        )
    if width < side:
        raise UsageError(f"--width {width}: expected at least the image's own {side} pixels")
    known = round(overlap * window)
    if not 1 <= known < window:
        raise UsageError(
            f"--overlap {overlap}: expected a share that is at least one and not all of the "
            f"{window} columns of tokens"
        )
    missing = -(-(width - side) // cell)
    before = missing // 2
    canvas = torch.full(
        (len(images), rows, missing + window), transformer.config.mask_id, device=images.device
    )
    canvas[:, :, before : before + window] = tokenizer.encode(images)
    # Outwards in turns, so that neither end gets far ahead of the other.
    lefts = _outward(before, window, missing + window, window - known)
    for number, left in enumerate(lefts):
        part = canvas[:, :, left : left + window]
        filled = generate(
            transformer,
            labels,
            steps=steps,
            start=start,
            seed=(seed + number * SEED_STRIDE) % 2**32,
            tokens=part.reshape(len(images), -1),
            **settings,
        )
        canvas[:, :, left : left + window] = filled.view(part.shape)
    pixels = decode_row(tokenizer, canvas, window)
    share = torch.from_numpy(_fade(side, cell, before > 0, missing > before)).to(images.device)
    inner = slice(before * cell, before * cell + side)
    pixels[..., inner] = torch.where(
        share == 1, images, images * share + pixels[..., inner] * (1 - share)
    )
    return Panorama(pixels[..., :width].clamp(0.0, 1.0), canvas, before * cell)


def decode_row(tokenizer: Tokenizer, canvas: Tensor, window: int) -> Tensor:
    """Pixels (B, C, H, cell * columns) of tokens (B, h, columns), in windows `window` wide."""
    cell, columns = tokenizer.config.downsampling, canvas.shape[2]
    starts = sorted({*range(0, columns - window, max(1, window // 2)), columns - window})
    total: Tensor | None = None
    weight = torch.zeros(columns * cell, device=canvas.device)
    for start in starts:
        decoded = tokenizer.decode(canvas[:, :, start : start + window])
        share = torch.from_numpy(
            _fade(window * cell, window * cell // 2, start > 0, start < columns - window)
        ).to(canvas.device)
        if total is None:
            total = torch.zeros(*decoded.shape[:3], columns * cell, device=canvas.device)
        where = slice(start * cell, (start + window) * cell)
        total[..., where] += decoded * share
        weight[where] += share
    assert total is not None
    return total / weight


def _outward(before: int, window: int, columns: int, step: int) -> list[int]:
    """First columns of the windows, right and left in turns, from the input at `before`."""
    lefts, low, high = [], before, before + window
    while low > 0 or high < columns:
        if high < columns:
            high = min(columns, high + step)
            lefts.append(high - window)
        if low > 0:
            low = max(0, low - step)
            lefts.append(low)
    return lefts


def _fade(size: int, ramp: int, left: bool, right: bool) -> np.ndarray:
    """Weights (size,) float32: 1, but rising (falling) over `ramp` pixels at a faded end."""
    weights = np.ones(size, np.float32)
    slope = ((np.arange(ramp) + 0.5) / ramp).astype(np.float32)
    if left:
        weights[:ramp] *= slope
    if right:
        weights[size - ramp :] *= slope[::-1]
    return weights
