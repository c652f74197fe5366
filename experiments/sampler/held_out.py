"""Which images are held out, and how they are read: the val split of the preset's data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.engine.grid import parse_integers
from experiments.engine.keys import MISSING, digest
from maskgit.common.errors import UsageError
from maskgit.common.files import sha256_of
from maskgit.data.registry import data_set, open_split
from maskgit.data.source import ArrayImages, ImageSource
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
        rows: numbers of the images in `source`.
        source: the split.
    """

    sha256: str
    words: str
    why: str = ""
    labels: tuple[int, ...] = ()
    size: int = 1
    rows: tuple[int, ...] = ()
    source: ImageSource | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self) -> Iterator[np.ndarray]:
        """The images, uint8 (m, H, W, C) each.

        Raises:
            UsageError: a file of a folder cannot be read as an image.
        """
        chunk = max(1, min(CHUNK, CHUNK_PIXELS // self.size**2))
        for start in range(0, len(self), chunk):
            if self.source is not None:
                yield self.source.batch(np.array(self.rows[start : start + chunk], np.int64), 0)

    def numbered(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The first `count` images in batches, each with classes and numbers, int64 (m,)."""
        start = 0
        for batch in self.batches():
            ids = np.arange(start, min(start + len(batch), count))
            if not len(ids):
                return
            yield batch[: len(ids)], np.array([self.labels[i] for i in ids], np.int64), ids
            start += len(ids)

    def first(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` images, or all, uint8 (n, H, W, C), and their classes int64 (n,)."""
        images, labels, _ = zip(*self.numbered(count), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def pick(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images by number: uint8 (k, H, W, C), classes int64 (k,), numbers int64 (k,)."""
        found = {
            int(i): (image, label)
            for images, labels, ids in self.numbered(max(numbers) + 1)
            for image, label, i in zip(images, labels, ids, strict=True)
            if i in numbers
        }
        images = np.stack([found[i][0] for i in numbers])
        labels = np.array([found[i][1] for i in numbers], np.int64)
        return images, labels, np.array(numbers, np.int64)

    def first_of_classes(self, preset: Preset, flag: str, text: str) -> list[int]:
        """Numbers of the first image of each class in `text`, the value of `flag`.

        A preset without classes: as many images from the first on.

        Raises:
            UsageError: no such class, or no image of it.
        """
        if not preset.conditional:
            return list(range(len(text.split(","))))
        classes = parse_integers(text, flag, 0, preset.num_classes - 1)
        absent = [c for c in classes if c not in self.labels]
        if absent:
            raise UsageError(f"{flag} {text}: no held-out image is of class {absent[0]}")
        return [self.labels.index(c) for c in classes]


NOT_ASKED_FOR = HeldOut(MISSING, "not asked for")


def find_held_out(preset: Preset, data: Path | None) -> HeldOut:
    """The held-out images of a preset.

    data: --data; None takes those that ship, if any do.

    Raises:
        UsageError: `data` does not hold what it should.
    """
    if data is None and "val" not in data_set(preset).ships:
        why = f"held-out images of {preset.name} do not ship: give --data FOLDER with val/CLASS/*"
        return HeldOut(MISSING, "no held-out images", why)
    size = preset.image_size
    source: ImageSource = open_split(preset, data, "val", size=size)
    rows = np.arange(min(IMAGES, len(source)))
    words = f"first {len(rows)} test images"
    files = [sha256_of(path) for path in source.files] if _in_one_file(source) else []
    if not files:  # a file for each image
        rows = _in_turn(source.labels)[:IMAGES]
        files = [f"{source.labels[i]} {sha256_of(source.files[i])}" for i in rows.tolist()]
        words = (
            f"{len(rows)} validation images, of one class after the other in turn, shorter side "
            f"resized to {size} (bilinear, antialiased), centre crop {size}x{size}"
        )
    labels = tuple(source.labels[rows].tolist())
    if isinstance(source, ArrayImages):  # the workers get what they need, and no more
        source = ArrayImages(source.images[rows], source.labels[rows], source.files)
        rows = np.arange(len(rows))
    return HeldOut(digest(files), words, "", labels, size, tuple(rows.tolist()), source)


def _in_one_file(source: ImageSource) -> bool:
    """Whether all images are in one file, in an order that mixes the classes."""
    return len(source.files) < len(source)


def _in_turn(labels: np.ndarray) -> np.ndarray:
    """An order of images: the first of each class, then the second of each, and so on."""
    by_class = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.empty(len(labels), np.int64)  # among the images of its class
    place[by_class] = np.arange(len(labels)) - np.repeat(first, counts)
    return np.lexsort((labels, place))
