"""Real images with their classes, for the Classification Accuracy Score and for references.

Training images where they are on this machine; where they are not and the data set ships its test
images, the second half of those. Validation images are the first held-out ones, never the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.cells import plain_reason
from experiments.engine.keys import MISSING, digest
from experiments.sampler.held_out import find_held_out
from maskgit.common.errors import UsageError
from maskgit.common.files import sha256_of
from maskgit.data.registry import data_set, open_split
from maskgit.data.source import ImageSource
from maskgit.presets import Preset

VALIDATION = 5000  # shipped test images that are never trained on


@dataclass(frozen=True)
class RealImages:
    """Images in a fixed order, or why there are none.

    Attributes:
        words: which images these are, for the protocol.
        sha256: of their files (of a folder: of its names and classes), or MISSING.
        why: the reason when there are none.
        labels: class of each, int64 (n,).
        source: the split that they are of.
        first: number of the first of them in it.
    """

    words: str
    sha256: str
    why: str = ""
    labels: np.ndarray | Sequence[int] = ()
    source: ImageSource | None = None
    first: int = 0

    def images(self, ids: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, C) of these numbers."""
        if self.source is None:
            raise ValueError(self.why)
        return self.source.batch(self.first + np.asarray(ids, np.int64), 0)

    def first_of_classes(self, counts: np.ndarray) -> np.ndarray:
        """Numbers of the first counts[c] images of each class c, ascending."""
        labels = np.asarray(self.labels)
        parts = [np.flatnonzero(labels == c)[:count] for c, count in enumerate(counts)]
        return np.sort(np.concatenate(parts)).astype(np.int64)


def real_images(preset: Preset, data: Path | None) -> RealImages:
    """Images to train on: the training split, or what stands in for it."""
    known = data_set(preset)
    if data is None and not known.ships:
        why = f"training images of {preset.name} do not ship: give --data FOLDER with train/CLASS/*"
        return RealImages("none", MISSING, why)
    if known.is_here(data, "train") or not known.ships:
        try:
            source = open_split(preset, data, "train")
        except UsageError as error:
            return RealImages("none", MISSING, plain_reason(error))
        crops = "" if len(source.files) < len(source) else ", centre crops"
        words = f"{len(source)} training images{crops}"
        return RealImages(words, _sha256(source), "", source.labels, source)
    source = open_split(preset, data, "val")
    return RealImages(
        f"test images {VALIDATION} to {len(source) - 1} (the training images are not here)",
        digest([_sha256(source), VALIDATION]),
        "",
        source.labels[VALIDATION:],
        source,
        VALIDATION,
    )


def _sha256(source: ImageSource) -> str:
    if len(source.files) < len(source):
        return digest([sha256_of(path) for path in source.files])
    pairs = zip(source.labels, source.files, strict=True)
    return digest([f"{label} {path.name}" for label, path in pairs])


def validation_images(preset: Preset, data: Path | None, count: int) -> dict[str, Any]:
    """Images (n, H, W, C) uint8 and labels int64 (n,): the first `count` images of a val split that
    ships, never beyond VALIDATION, or the first held-out ones of a folder."""
    if not data_set(preset).ships:
        images, labels = find_held_out(preset, data).first(count)
        return {"images": images, "labels": labels}
    source = open_split(preset, data, "val")
    rows = np.arange(min(count, VALIDATION, len(source)))
    return {"images": source.batch(rows, 0), "labels": source.labels[rows]}
