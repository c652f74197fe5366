"""What the feature network's classifier says of images, where it knows the preset's classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from experiments.studies.base import Context


def classify(context: Context, images: np.ndarray) -> tuple[np.ndarray | None, str]:
    """(probabilities float64 (n, classes) or None, the reason where there are none).

    images: uint8 (n, H, W, C). The classifier's classes are taken for the preset's where there are
    as many of them.
    """
    name = context.study.features[0]
    extractor = context.extractor(name)
    if extractor is None:
        return None, context.why_missing(name)
    classes = context.preset.num_classes
    if extractor.num_logits != classes:
        return None, (
            f"{name} has {extractor.num_logits} classes, the preset {classes}: it cannot name them"
        )
    return softmax(extractor.extract_batches([images]).logits), ""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 (n, L) of logits (n, L)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return weights / weights.sum(axis=1, keepdims=True)
