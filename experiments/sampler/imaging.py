"""Second stage of a cell: from tokens to uint8 images, which live in memory only, a few at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskgit import checkpoints
from maskgit.common.errors import RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from maskgit.model.tokenizer import Tokenizer

# Images in one forward of the decoder: as many as have this many pixels, from 1 to 64 (on a GPU 16
# times as many). Fixed, so that no flag changes a pixel; few, because the decoder's first and last
# layers hold hundreds of bytes a pixel.
CHUNK_PIXELS = 2**17
MOST = 64
ROUNDING = "clipped to [0, 1], 255 x, to the nearest integer, halves to even"


def load(path: Path, device: str) -> Tokenizer:
    """The tokenizer of a folder or an official file."""
    return checkpoints.load_tokenizer(path).to(device).eval()


def chunk_size(pixels: int, device: str = "cpu") -> int:
    """Images of `pixels` each (height x width) in one forward of the tokenizer."""
    return max(1, min(MOST, CHUNK_PIXELS * (1 if device == "cpu" else 16) // pixels))


def decode_batches(
    tokenizer: Tokenizer, tokens: np.ndarray, grid: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Tokens (n, N) -> images uint8 (m, H, W, C) in order, rounded as ROUNDING says.

    The last chunk is filled up: libraries choose their kernels by the batch's shape, and a pixel
    should not depend on how many images come with it.
    """
    import torch

    device = tokenizer.quantizer.codebook.device
    pixels = grid[0] * grid[1] * tokenizer.config.downsampling**2
    chunk = chunk_size(pixels, device.type)
    for start in range(0, len(tokens), chunk):
        part = torch.from_numpy(tokens[start : start + chunk].astype(np.int64))
        fill = part[-1:].expand(chunk - len(part), -1)
        full = torch.cat([part, fill]).view(chunk, *grid).to(device)
        yield as_bytes(tokenizer.decode(full)[: len(part)])


def as_bytes(images: Tensor) -> np.ndarray:
    """float (n, C, H, W) -> uint8 (n, H, W, C), rounded as ROUNDING says.

    Raises:
        RunError: a pixel is not finite.
    """
    import torch

    if not bool(torch.isfinite(images).all()):
        raise RunError("the tokenizer's pixels are not finite: its weights are damaged")
    scaled = images.clamp(0.0, 1.0).mul(255.0).round_()
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def as_tensor(images: np.ndarray, device: str | torch.device) -> Tensor:
    """uint8 (n, H, W, C) -> float32 (n, C, H, W) in [0, 1]."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.permute(0, 3, 1, 2).contiguous().float() / 255.0
