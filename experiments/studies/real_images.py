"""Real images with their classes, for the Classification Accuracy Score and for references.

Training images where they are on this machine; where they are not and the data set ships its test
images, the second half of those. Validation images are the first held-out ones, never the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.engine.cells import plain_reason
from experiments.engine.keys import MISSING, digest
from experiments.sampler.held_out import ImageSelection, find_held_out
from maskgit.common.errors import UsageError
from maskgit.common.files import sha256_of
from maskgit.data.registry import data_set, open_split
from maskgit.data.source import ImageSource
from maskgit.presets import Preset

VALIDATION = 5000  # shipped test images that are never trained on


def real_images(preset: Preset, data: Path | None) -> ImageSelection:
    """Images to train on: the training split, or what stands in for it."""
    known = data_set(preset)
    if data is None and not known.ships:
        why = f"training images of {preset.name} do not ship: give --data FOLDER with train/CLASS/*"
        return ImageSelection("none", MISSING, why)
    if known.is_here(data, "train") or not known.ships:
        try:
            source = open_split(preset, data, "train")
        except UsageError as error:
            return ImageSelection("none", MISSING, plain_reason(error))
        crops = "" if len(source.files) < len(source) else ", centre crops"
        words = f"{len(source)} training images{crops}"
        return ImageSelection(
            words, _sha256(source), "", source.labels, source, np.arange(len(source))
        )
    source = open_split(preset, data, "val")
    return ImageSelection(
        f"test images {VALIDATION} to {len(source) - 1} (the training images are not here)",
        digest([_sha256(source), VALIDATION]),
        "",
        source.labels[VALIDATION:],
        source,
        np.arange(VALIDATION, len(source)),
    )


def _sha256(source: ImageSource) -> str:
    if len(source.files) < len(source):
        return digest([sha256_of(path) for path in source.files])
    pairs = zip(source.labels, source.files, strict=True)
    return digest([f"{label} {path.name}" for label, path in pairs])


def validation_images(
    preset: Preset, data: Path | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, H, W, C) uint8 and labels int64 (n,): the first `count` images of a val split that
    ships, never beyond VALIDATION, or the first held-out ones of a folder."""
    if data_set(preset).ships:
        source = open_split(preset, data, "val")
        rows = np.arange(min(count, VALIDATION, len(source)))
        return source.batch(rows, 0), source.labels[rows]
    held_out = find_held_out(preset, data)
    images, labels, _ = held_out.pick(range(min(count, len(held_out))))
    return images, labels
