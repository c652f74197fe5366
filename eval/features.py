"""The registry of feature extractors, and what they have in common.

An extractor turns uint8 images into pooled features (FID, KID, precision/recall) and logits
(Inception Score), and states its protocol: every number that comes from it carries that. To add
one: a file in eval/extractors/ with a subclass of `Extractor`, its weights in eval/weights.py,
one line in EXTRACTORS.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eval.errors import UsageError

if TYPE_CHECKING:
    import torch

EXTRACTORS = {
    "fashion-resnet": "eval.extractors.fashion_resnet:FashionResNetExtractor",
    "efficientnet-lite0": "eval.extractors.efficientnet_lite0:EfficientNetLite0Extractor",
}


class Features(NamedTuple):
    """features float32 (n, D) and logits float32 (n, L) of the same n images."""

    features: np.ndarray
    logits: np.ndarray


def extractor_names() -> list[str]:
    """Names that `get_extractor` accepts."""
    return list(EXTRACTORS)


def get_extractor(
    name: str, weights_dir: str | Path | None = None, device: str = "cpu"
) -> Extractor:
    """Load a feature extractor with its weights.

    Args:
        name: registry name, see EXTRACTORS.
        weights_dir: folder with the weights; None takes the shipped or installed ones.
        device: torch device to compute on.

    Raises:
        UsageError: unknown name or device, missing or broken weights, or a package that is not
            installed.
    """
    if name not in EXTRACTORS:
        raise UsageError(f"features {name!r}: expected one of {', '.join(EXTRACTORS)}")
    module, cls = EXTRACTORS[name].split(":")
    return getattr(importlib.import_module(module), cls)(weights_dir, device)


class Extractor:
    """Base of the extractors. A subclass sets the attributes and implements `prepare` and
    `forward`.

    Attributes:
        name: registry name.
        dim: number D of features.
        num_logits: number L of logits.
        weights_sha256: of the weights file.
        protocol: what a number depends on: input range, resizing, layer, dimension, weights
            (JSON-able).
    """

    name: str
    dim: int
    num_logits: int
    weights_sha256: str
    protocol: dict[str, object]
    # Every forward has exactly this many images (the last is filled up with black ones), so that
    # a feature never depends on how many images come with it: libraries choose their kernels by
    # the batch's shape.
    chunk = 64

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (n, H, W, C) -> the network's input (n, c, h, w)."""
        raise NotImplementedError

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Network input -> features (n, D), logits (n, L)."""
        raise NotImplementedError

    def extract(self, images: np.ndarray, batch_size: int = 256) -> Features:
        """Features and logits of an array of images.

        Args:
            images: uint8 (n, H, W, C) with C of 1 or 3, n >= 1.
            batch_size: images converted and resized at a time; bounds memory, never changes a
                number.

        Raises:
            UsageError: wrong type or shape, or a size this extractor does not take.
        """
        images = check_images(images)
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: at least 1 is needed")
        return self.extract_batches(
            images[start : start + batch_size] for start in range(0, len(images), batch_size)
        )

    def extract_batches(self, batches: Iterable[np.ndarray]) -> Features:
        """Features and logits, in order, of images that come in batches (each as for `extract`)."""
        import torch

        features, logits = [], []

        def compute(inputs: torch.Tensor) -> None:
            for start in range(0, len(inputs), self.chunk):
                chunk = inputs[start : start + self.chunk]
                count = len(chunk)
                if count < self.chunk:
                    black = chunk.new_zeros(self.chunk - count, *chunk.shape[1:])
                    chunk = torch.cat([chunk, black])
                feature, logit = self.forward(chunk)
                features.append(feature[:count].float().cpu().numpy())
                logits.append(logit[:count].float().cpu().numpy())

        with torch.inference_mode():
            waiting = None  # fewer than a chunk, for the next batch to fill up
            for images in batches:
                inputs = self.prepare(check_images(images))
                waiting = inputs if waiting is None else torch.cat([waiting, inputs])
                full = len(waiting) // self.chunk * self.chunk
                compute(waiting[:full])
                waiting = waiting[full:]
            if waiting is None:
                raise UsageError("no images to extract features from")
            compute(waiting)
        return Features(np.concatenate(features), np.concatenate(logits))


def check_images(images: np.ndarray) -> np.ndarray:
    """Return images uint8 (n, H, W, C), or raise a UsageError that says what is wrong with them."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UsageError(
            f"images: expected uint8 (n, H, W, C) with C of 1 or 3, "
            f"got {images.dtype} {images.shape}"
        )
    if 0 in images.shape:
        raise UsageError(f"images: an empty array {images.shape}")
    return images


def check_device(device: str) -> torch.device:
    """A torch device that exists here, or a UsageError."""
    import torch

    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {device}: not available here ({reason})") from error
