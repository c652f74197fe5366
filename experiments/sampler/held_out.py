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
from maskgit.common.image_file import center_square_words
from maskgit.data.registry import data_set, open_split
from maskgit.data.source import ArrayImages, ImageSource, in_turn
from maskgit.presets import Preset

NLL_IMAGES = 2000  # of a likelihood where no flag says otherwise
# Images in one batch: at most CHUNK, and fewer where they have many pixels. Fixed, so that no flag
# changes a number.
CHUNK = 100
CHUNK_PIXELS = 2**17


@dataclass(frozen=True)
class ImageSelection:
    """Images with their classes in a fixed order, or why there are none.

    Attributes:
        words: which images these are, for the protocol.
        sha256: of their files, or MISSING.
        why: the reason when there are none.
        labels: class of each image, int64 (n,).
        source: the split that they are of.
        rows: the number of each image in it, int64 (n,).
        size: pixels a side; it bounds the images of a batch.
    """

    words: str
    sha256: str
    why: str = ""
    labels: np.ndarray | Sequence[int] = ()
    source: ImageSource | None = None
    rows: np.ndarray | Sequence[int] = ()
    size: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def pick(
        self, numbers: np.ndarray | Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images by number: uint8 (k, H, W, C), classes int64 (k,), numbers int64 (k,).

        Raises:
            UsageError: there are none, or a file of a folder cannot be read as an image.
        """
        if self.source is None:
            raise UsageError(self.why)
        ids = np.asarray(numbers, np.int64)
        images = self.source.batch(np.asarray(self.rows, np.int64)[ids], 0)
        return images, np.asarray(self.labels, np.int64)[ids], ids

    def numbered(
        self, count: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The first `count` images, or all, in batches as `pick` returns them."""
        count = len(self) if count is None else min(count, len(self))
        chunk = max(1, min(CHUNK, CHUNK_PIXELS // self.size**2))
        for start in range(0, count, chunk):
            yield self.pick(np.arange(start, min(start + chunk, count)))

    def first_of_each(self, counts: np.ndarray) -> np.ndarray:
        """Numbers of the first counts[c] images of each class c, int64, ascending."""
        labels = np.asarray(self.labels)
        parts = [np.flatnonzero(labels == c)[:count] for c, count in enumerate(counts)]
        return np.sort(np.concatenate(parts)).astype(np.int64)

    def present(self) -> list[int]:
        """The classes of the images."""
        return sorted({int(label) for label in self.labels})

    def first_of_classes(self, preset: Preset, flag: str, text: str) -> list[int]:
        """Numbers of the first image of each class in `text`, the value of `flag`.

        A preset without classes: as many images from the first on.

        Raises:
            UsageError: no such class, or no image of it.
        """
        if not preset.conditional:
            return list(range(min(len(self), len(text.split(",")))))
        classes = parse_integers(text, flag, 0, preset.num_classes - 1)
        labels = list(self.labels)
        absent = [c for c in classes if c not in labels]
        if absent:
            raise UsageError(f"{flag} {text}: no held-out image is of class {absent[0]}")
        return [labels.index(c) for c in classes]


NOT_ASKED_FOR = ImageSelection("not asked for", MISSING)


def usual_count(preset: Preset, tables: bool) -> int | None:
    """Held-out images that are used where --held-out is silent, for tables or for the NLL alone."""
    return preset.held_out if tables else NLL_IMAGES


def find_held_out(preset: Preset, data: Path | None, count: int | None = None) -> ImageSelection:
    """The first `count` held-out images of a preset, or all.

    data: --data; None takes those that ship, if any do.

    Raises:
        UsageError: `data` does not hold what it should.
    """
    data = data or preset.path
    if data is None and "val" not in data_set(preset).ships:
        why = f"held-out images of {preset.name} do not ship: give --data FOLDER with val/CLASS/*"
        return ImageSelection("no held-out images", MISSING, why)
    source: ImageSource = open_split(preset, data, "val")
    height, width = preset.size
    count = len(source) if count is None else min(count, len(source))
    rows = np.arange(count)
    words = f"first {count} test images" if count < len(source) else f"all {count} test images"
    files = []
    if _in_one_file(source):  # or in none, if the data set has a name only
        files = [sha256_of(path) for path in source.files if path.is_file()]
        files = files or [source.settings()["files_sha256"]]
    else:  # a file for each image
        rows = in_turn(source.labels)[:count]
        files = [f"{source.labels[i]} {sha256_of(source.files[i])}" for i in rows.tolist()]
        words = (
            f"{count} of {len(source)} validation images, of one class after the other in turn, "
            f"{center_square_words((height, width))}"
        )
    labels = source.labels[rows]
    if isinstance(source, ArrayImages):  # the workers get what they need, and no more
        source = ArrayImages(source.images[rows], labels, source.files)
        rows = np.arange(len(rows))
    return ImageSelection(
        words,
        digest([*files, count, [height, width]]),
        "",
        labels,
        source,
        rows,
        max(height, width),
    )


def _in_one_file(source: ImageSource) -> bool:
    """Whether all images are in one file, in an order that mixes the classes."""
    return len(source.files) < len(source)
