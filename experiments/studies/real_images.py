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
    """Images to train a classifier on: the training split, or what stands in for it.

    Whatever the preset's training does, photos are cropped centrally here.
    """
    known, data = data_set(preset), data or preset.path
    if data is None and not known.ships:
        why = f"training images of {preset.name} do not ship: give --data FOLDER with train/CLASS/*"
        return ImageSelection("none", MISSING, why)
    if known.is_here(data, "train") or not known.ships:
        try:
            source = open_split(preset, data, "train")
        except UsageError as error:
            return ImageSelection("none", MISSING, plain_reason(error))
        crops = "" if len(source.files) < len(source) else ", centre crops"
        return _rows(preset, f"{len(source)} training images{crops}", source, 0, len(source))
    source = open_split(preset, data, "val")
    words = f"test images {VALIDATION} to {len(source) - 1} (the training images are not here)"
    return _rows(preset, words, source, VALIDATION, len(source))


def _rows(preset: Preset, words: str, source: ImageSource, first: int, last: int) -> ImageSelection:
    rows = np.arange(first, last)
    # Too many files to read them all: names and sizes, which the settings have, tell most changes.
    one_file = len(source.files) < len(source)
    files = [sha256_of(path) for path in source.files if one_file and path.is_file()]
    sha256 = digest([files, first, last, source.settings()])
    return ImageSelection(words, sha256, "", source.labels[rows], source, rows, max(preset.size))


def validation_images(preset: Preset, data: Path | None, count: int | None) -> ImageSelection:
    """The first `count` held-out images, or all, that no classifier here is trained on.

    Of a val split that ships never beyond VALIDATION: what follows stands in for training images.
    """
    if data_set(preset).ships:
        count = min(count or VALIDATION, VALIDATION)
    return find_held_out(preset, data, count)
