"""Real images with their classes, for the Classification Accuracy Score and for references.

Training images where they are on this machine; of Fashion-MNIST, whose test images alone ship,
otherwise the second half of those. Validation images are the first held-out ones, never the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.keys import digest, file_sha256
from experiments.engine.reasons import MISSING, plain_reason

if TYPE_CHECKING:
    from maskgit.data.image_folder import ImageFolder
    from maskgit.presets import Preset

VALIDATION = 5000  # test images of Fashion-MNIST that are never trained on


@dataclass(frozen=True)
class RealImages:
    """Images in a fixed order, or why there are none.

    Attributes:
        words: which images these are, for the protocol.
        sha256: of their files (of a folder: of its paths and classes), or MISSING.
        why: the reason when there are none.
        labels: class of each, int64 (n,).
        pixels: uint8 (n, H, W, C), or None for a folder.
        folder: of images that are read as they are needed.
    """

    words: str
    sha256: str
    why: str = ""
    labels: np.ndarray | Sequence[int] = ()
    pixels: np.ndarray | None = None
    folder: ImageFolder | None = None

    def images(self, ids: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, C) of these numbers."""
        if self.pixels is not None:
            return self.pixels[ids]
        if self.folder is None:
            raise ValueError(self.why)
        return self.folder.batch(np.asarray(ids, np.int64), 0)

    def first_of_classes(self, counts: np.ndarray) -> np.ndarray:
        """Numbers of the first counts[c] images of each class c, ascending."""
        labels = np.asarray(self.labels)
        parts = [np.flatnonzero(labels == c)[:count] for c, count in enumerate(counts)]
        return np.sort(np.concatenate(parts)).astype(np.int64)


def real_images(preset: Preset, data: Path | None) -> RealImages:
    """Images to train on: the training split, or what stands in for it."""
    if preset.data == "fashion-mnist":
        return _fashion(data)
    if data is None:
        why = f"training images of {preset.name} do not ship: give --data FOLDER with train/CLASS/*"
        return RealImages("none", MISSING, why)
    from maskgit.common.errors import UsageError
    from maskgit.data.image_folder import open_split

    try:
        folder = open_split(preset, data, "train", size=preset.image_size)
    except UsageError as error:
        return RealImages("none", MISSING, plain_reason(error))
    sha = hashlib.sha256()
    for path, label in zip(folder.paths, folder.labels, strict=True):
        sha.update(f"{label} {Path(path).name}\n".encode())
    words = f"{len(folder.labels)} training images, centre crops"
    return RealImages(words, sha.hexdigest(), labels=folder.labels, folder=folder)


def validation_images(preset: Preset, data: Path | None, count: int) -> dict[str, Any]:
    """Images (n, H, W, C) uint8 and labels int64 (n,): the first `count` test images of
    Fashion-MNIST, never beyond VALIDATION, or the first held-out ones of a folder."""
    from experiments.sampler.held_out_images import find_held_out

    if preset.data == "fashion-mnist":
        from maskgit.data.fashion_mnist import load_split

        images, labels = load_split("test", data)
        count = min(count, VALIDATION)
        return {"images": images[:count], "labels": labels[:count]}
    held_out = find_held_out(preset, data)
    images = np.concatenate(list(held_out.batches()))[:count]
    return {"images": images, "labels": np.array(held_out.labels[:count], np.int64)}


def _fashion(data: Path | None) -> RealImages:
    from maskgit.common.errors import UsageError
    from maskgit.data.fashion_mnist import find_files, load_split

    try:
        files = find_files("train", data, download=False)
    except UsageError:
        pass
    else:
        images, labels = load_split("train", data)
        sha256 = digest([file_sha256(file) for file in files])
        return RealImages(f"{len(labels)} training images", sha256, labels=labels, pixels=images)
    files = find_files("test", data)
    images, labels = load_split("test", data)
    return RealImages(
        f"test images {VALIDATION} to {len(labels) - 1} (the training images are not here)",
        digest([*(file_sha256(file) for file in files), VALIDATION]),
        labels=labels[VALIDATION:],
        pixels=images[VALIDATION:],
    )
