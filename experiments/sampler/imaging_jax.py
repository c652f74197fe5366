"""Second stage of a cell with the JAX backend: as `imaging`, with JAX's decoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from maskgit.jax import Tokenizer, load_tokenizer

# Images in one program on each device: as many as have this many pixels, from 1 to 64. All programs
# have one shape, so one compilation serves them.
CHUNK_PIXELS = 2**17
MOST = 64


def load(path: Path, device: str) -> Tokenizer:
    """The tokenizer of a folder or an official file. device: "cpu" keeps JAX off accelerators."""
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    return load_tokenizer(path)


def decode_batches(
    tokenizer: Tokenizer, tokens: np.ndarray, grid: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Tokens (n, N) -> images uint8 (m, H, W, C) in order, rounded as imaging.ROUNDING says."""
    pixels = grid[0] * grid[1] * tokenizer.config.downsampling**2
    chunk = max(1, min(MOST, CHUNK_PIXELS // pixels)) * len(jax.local_devices())
    for start in range(0, len(tokens), chunk):
        part = tokens[start : start + chunk].astype(np.int64)
        full = np.concatenate([part, np.repeat(part[-1:], chunk - len(part), axis=0)])
        decoded = np.asarray(tokenizer.decode(full.reshape(chunk, *grid)))[: len(part)]
        rounded = np.rint(np.clip(decoded, 0.0, 1.0) * np.float32(255.0)).astype(np.uint8)
        yield rounded.transpose(0, 2, 3, 1)
