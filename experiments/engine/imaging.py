"""Second stage of a cell: from tokens to uint8 images, which live in memory only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from maskgit.tokenizer import Tokenizer

CHUNK = 64  # images in one forward of the decoder; fixed, so that no flag changes a pixel
ROUNDING = "clipped to [0, 1], 255 x, to the nearest integer, halves to even"


def decode_images(tokenizer: Tokenizer, tokens: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Tokens (n, N) -> images uint8 (n, H, W, C), rounded as ROUNDING says.

    The last chunk is filled up: libraries choose their kernels by the batch's shape, and a pixel
    should not depend on how many images come with it.
    """
    import torch

    device = tokenizer.quantizer.codebook.device
    images = []
    for start in range(0, len(tokens), CHUNK):
        part = torch.from_numpy(tokens[start : start + CHUNK].astype(np.int64))
        fill = part[-1:].expand(CHUNK - len(part), -1)
        full = torch.cat([part, fill]).view(CHUNK, *grid).to(device)
        decoded = tokenizer.decode(full)[: len(part)].clamp(0.0, 1.0).mul(255.0).round_()
        images.append(decoded.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy())
    return np.concatenate(images)
