"""Grids of samples: one row a cell, one column a class, pixels enlarged without smoothing."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.figures.curves import DPI, FAINT, INK, Figure, house_style, new_canvas
from reports.load import Entry

if TYPE_CHECKING:
    import numpy as np

TARGET = 96  # pixels a side on the page: 32x32 images are shown three times as large
GAP = 4
LEFT, TOP = 178, 30


@dataclass(frozen=True)
class Row:
    """One row of a grid: its label and the first image of each class."""

    label: str
    images: Sequence[np.ndarray]  # each (H, W, C) uint8
    classes: Sequence[int]


def first_of_each_class(entry: Entry) -> tuple[list[np.ndarray], list[int]] | None:
    """The first stored sample of each class, by class; None where samples.npz cannot be used."""
    import numpy as np

    path = entry.folder / "samples.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    whole = images.ndim == 4 and images.dtype == np.uint8 and labels.shape == images.shape[:1]
    if not whole or not len(images):
        return None
    classes = sorted(set(labels.tolist()))
    return [images[int(np.argmax(labels == c))] for c in classes], classes


def sample_grid(
    name: str, alt: str, caption: str, rows: Sequence[Row], class_names: Sequence[str]
) -> Figure:
    """A figure of rows of samples. Grey images are shown inverted: dark on light.

    Every row holds the images of its classes; a class that a row lacks stays white.
    """
    import numpy as np

    classes = sorted({c for row in rows for c in row.classes})
    tile = _enlarged(rows[0].images[0]).shape[0]
    width = LEFT + len(classes) * (tile + GAP)
    height = TOP + len(rows) * (tile + GAP)
    sheet = np.full((height, width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for image, c in zip(row.images, row.classes, strict=True):
            y, x = TOP + i * (tile + GAP), LEFT + classes.index(c) * (tile + GAP)
            shown = _enlarged(image)
            sheet[y : y + tile, x : x + tile] = shown[:tile, :tile]
    with house_style():
        canvas = new_canvas(width / DPI, height / DPI)
        canvas.figimage(sheet, 0, 0)
        for j, c in enumerate(classes):
            label = class_names[c] if c < len(class_names) else f"class {c}"
            canvas.text(
                (LEFT + j * (tile + GAP) + tile / 2) / width,
                1 - (TOP - 9) / height,
                label,
                fontsize=8.5,
                horizontalalignment="center",
                verticalalignment="baseline",
                color=INK,
            )
        for i, row in enumerate(rows):
            y = 1 - (TOP + i * (tile + GAP) + tile / 2) / height
            head, _, rest = row.label.partition("\n")
            look: dict[str, Any] = {"horizontalalignment": "right", "verticalalignment": "center"}
            x, shift = (LEFT - 12) / width, (9 / height if rest else 0)
            canvas.text(x, y + shift, head, fontsize=11, color=INK, **look)
            canvas.text(x, y - shift, rest, fontsize=9, color=FAINT, **look)
    return Figure(name, alt, caption, canvas)


# Whole factors only: pixels are repeated, or averaged where the image is larger than the tile.
def _enlarged(image: np.ndarray) -> np.ndarray:
    import numpy as np

    side = image.shape[0]
    if side > TARGET + TARGET // 2:
        factor = round(side / TARGET)
        h, w = (n // factor * factor for n in image.shape[:2])
        blocks = image[:h, :w].reshape(h // factor, factor, w // factor, factor, -1)
        image = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    else:
        factor = max(1, TARGET // side)
        image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    if image.shape[-1] == 1:
        return np.repeat(255 - image, 3, axis=-1)
    return image[..., :3]
