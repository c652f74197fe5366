"""Filling a hidden part of held-out images: the masks, the samplers and the plain baselines.

Hidden pixels never reach a filling: the tokenizer sees their place at the mean of the known pixels,
and the composite takes nothing of the input there. (`maskgit.sampling.editing.edit` blends with
the input it was given, on both sides of the edge; here the blur reaches outwards only.)
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from experiments.sampler.imaging import as_bytes, as_tensor, chunk_size
from experiments.sampler.worker import Worker
from maskgit.common.errors import UsageError
from maskgit.sampling.editing import (
    blend_weights,
    center_mask,
    composite,
    hide,
    latent_mask,
    side_mask,
)


def _surround(height: int, width: int, share: float) -> np.ndarray:
    return ~center_mask(height, width, share)


def _strip(height: int, width: int) -> np.ndarray:
    mask = np.ones((height, width), bool)
    known = max(1, width // 4)
    mask[:, (width - known) // 2 : (width + known) // 2] = False
    return mask


# Name -> pixels (H, W) bool to fill, of images of that size. The paper's tasks: Table 2 and Figure
# 7 (the first two), Figures 16 and 17 (top, bottom), Figure 20 (surround).
TASKS: dict[str, Callable[[int, int], np.ndarray]] = {
    "outpaint-right": lambda h, w: side_mask("right", h, w),
    "inpaint-center": lambda h, w: center_mask(h, w),
    "outpaint-left": lambda h, w: side_mask("left", h, w),
    "outpaint-top": lambda h, w: side_mask("top", h, w),
    "outpaint-bottom": lambda h, w: side_mask("bottom", h, w),
    "inpaint-large": lambda h, w: center_mask(h, w, 0.75),
    "surround-50": lambda h, w: _surround(h, w, 0.5),
    "surround-31": lambda h, w: _surround(h, w, 0.3125),
    "strip": _strip,
}
# The baseline draws tokens in raster order, so what it is to fill must come last.
AUTOREGRESSIVE_TASKS = ("outpaint-bottom",)
PACKAGE = "scikit-image"
NO_PACKAGE = f"{PACKAGE} is not installed: pip install -e '.[inpainting]'"


def library() -> str:
    """The library of the biharmonic baseline with its version, or "missing": part of a cell."""
    there = importlib.util.find_spec("skimage") is not None
    return f"{PACKAGE} {version(PACKAGE)}" if there else "missing"


def fill(
    worker: Worker,
    cell: dict[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
) -> np.ndarray:
    """Images uint8 (n, H, W, C) with the task's pixels filled by the method.

    cell: has task and method, and for samplers seed, steps and start. labels: the classes that
    samplers are told, int64 (n,). ids: which noise each image takes, int64 (n,).

    Raises:
        UsageError: the biharmonic baseline's library is not here, or a mask that does not fit.
    """
    method = cell["method"]
    if method == "real":
        return images
    if method == "tokenizer":
        return reconstruct(worker, images)
    mask = TASKS[cell["task"]](*images.shape[1:3])
    if method == "mean":
        return mean_fill(images, mask)
    if method == "biharmonic":
        return biharmonic_fill(images, mask)
    parts = [
        _sampled(worker, cell, mask, images[rows], labels[rows], ids[rows])
        for rows in chunks(worker, len(images))
    ]
    return np.concatenate(parts)


def mean_fill(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of each image's known pixels, a channel: what the tokenizer is shown."""
    return as_bytes(hide(as_tensor(images, "cpu"), mask))


def biharmonic_fill(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The smoothest surface over the hole, by scikit-image.

    Images stand as the channels of one: they share the mask, and the library then sets up its
    equations once.

    Raises:
        UsageError: scikit-image is not installed.
    """
    if library() == "missing":
        raise UsageError(NO_PACKAGE)
    restoration = importlib.import_module("skimage.restoration")
    count, height, width, channels = images.shape
    stacked = np.moveaxis(images, 0, 2).reshape(height, width, count * channels) / 255.0
    filled = restoration.inpaint_biharmonic(stacked, mask, channel_axis=-1)
    filled = np.moveaxis(filled.reshape(height, width, count, channels), 2, 0)
    rounded = np.rint(np.clip(filled, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.where(mask[None, :, :, None], rounded, images)


def reconstruct(worker: Worker, images: np.ndarray) -> np.ndarray:
    """Images through the tokenizer and back, uint8 (n, H, W, C)."""
    with torch.inference_mode():
        parts = []
        for rows in chunks(worker, len(images)):
            seen = as_tensor(images[rows], worker.device)
            parts.append(as_bytes(worker.tokenizer.decode(worker.tokenizer.encode(seen))))
    return np.concatenate(parts)


def _sampled(
    worker: Worker,
    cell: dict[str, Any],
    mask: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
) -> np.ndarray:
    tokenizer = worker.tokenizer
    latent = latent_mask(mask, tokenizer.config.downsampling)
    known, settings = as_tensor(images, worker.device), worker.settings(cell, cell["method"])
    with torch.inference_mode():
        codes = tokenizer.encode(hide(known, mask)).flatten(1)
        unknown = torch.from_numpy(latent.reshape(-1)).to(codes.device)
        grid = codes.masked_fill(unknown, worker.mask_id)
        start = cell.get("start", 0)
        tokens = worker.draw(settings, labels, sample_ids=ids, tokens=grid, start=start)
        decoded = tokenizer.decode(tokens.view(-1, *latent.shape)).clamp(0.0, 1.0)
        # The blur of the latent mask outwards; inside, nothing of the input (see the top).
        weights = np.maximum(blend_weights(latent, mask.shape), mask.astype(np.float32))
        return as_bytes(composite(known, decoded, weights))


def chunks(worker: Worker, count: int) -> list[slice]:
    """Images in one forward of the tokenizer: a fixed number, so that no flag changes a pixel."""
    step = chunk_size(math.prod(worker.preset.size), worker.device.partition(":")[0])
    return [slice(start, start + step) for start in range(0, count, step)]
