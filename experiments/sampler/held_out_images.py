"""Which images are held out, and how they are read: Fashion-MNIST's test set, or DATA/val/CLASS/*.

Only Fashion-MNIST's ship; an image folder is read by `maskgit.data.image_folder`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.engine.keys import digest, file_sha256
from experiments.engine.reasons import MISSING

if TYPE_CHECKING:
    from maskgit.data.image_folder import ImageFolder
    from maskgit.presets import Preset

IMAGES = 2000
# Images in one batch: at most CHUNK, and fewer where they have many pixels. Fixed, so that no flag
# changes a number.
CHUNK = 100
CHUNK_PIXELS = 2**17


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, in a fixed order, or why there are none.

    Attributes:
        sha256: of their files, or MISSING.
        words: which images these are, for the protocol.
        why: the reason when there are none.
        labels: class of each image.
        size: pixels a side.
        folder: the images of a folder; None for Fashion-MNIST.
        data: folder of Fashion-MNIST's files, if not the shipped ones.
    """

    sha256: str
    words: str
    why: str = ""
    labels: tuple[int, ...] = ()
    size: int = 1
    folder: ImageFolder | None = None
    data: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self) -> Iterator[np.ndarray]:
        """The images, uint8 (m, H, W, C) each.

        Raises:
            UsageError: (of maskgit) a file of a folder cannot be read as an image.
        """
        chunk = max(1, min(CHUNK, CHUNK_PIXELS // self.size**2))
        if self.folder is None:
            from maskgit.data.fashion_mnist import load_split

            images = load_split("test", self.data)[0]
        for start in range(0, len(self), chunk):
            picked = np.arange(start, min(start + chunk, len(self)))
            yield images[picked] if self.folder is None else self.folder.batch(picked, 0)


def find_held_out(preset: Preset, data: Path | None) -> HeldOut:
    """The held-out images of a preset.

    data: --data; None takes those that ship, if any do.

    Raises:
        UsageError: (of maskgit) `data` does not hold what it should.
    """
    if preset.data == "fashion-mnist":
        from maskgit.data.fashion_mnist import find_files, load_split

        images, labels = find_files("test", data)
        classes = tuple(load_split("test", data)[1][:IMAGES].tolist())
        return HeldOut(
            digest([file_sha256(images), file_sha256(labels)]),
            f"first {len(classes)} test images",
            labels=classes,
            size=preset.image_size,
            data=data,
        )
    if data is None:
        why = f"held-out images of {preset.name} do not ship: give --data FOLDER with val/CLASS/*"
        return HeldOut(MISSING, "no held-out images", why)
    from maskgit.data.image_folder import open_split

    size = preset.image_size
    folder = open_split(preset, data, "val", size=size)
    chosen = _in_turn(folder.labels)[:IMAGES]
    folder.paths, folder.labels = [folder.paths[i] for i in chosen], folder.labels[chosen]
    sha = hashlib.sha256()
    for path, label in zip(folder.paths, folder.labels, strict=True):
        sha.update(f"{label} {file_sha256(Path(path))}\n".encode())
    return HeldOut(
        sha.hexdigest(),
        f"{len(chosen)} validation images, of one class after the other in turn, shorter side "
        f"resized to {size} (bilinear, antialiased), centre crop {size}x{size}",
        labels=tuple(folder.labels.tolist()),
        size=size,
        folder=folder,
    )


def _in_turn(labels: np.ndarray) -> np.ndarray:
    """An order of images: the first of each class, then the second of each, and so on."""
    by_class = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.empty(len(labels), np.int64)  # among the images of its class
    place[by_class] = np.arange(len(labels)) - np.repeat(first, counts)
    return np.lexsort((labels, place))
