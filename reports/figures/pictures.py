"""Grids of single pictures: rows and columns of any meaning, hidden parts hatched, boxes outlined.

Pixels are enlarged without smoothing. Grey images are shown inverted: dark on light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.figures.style import DPI, FAINT, INK, Figure, house_style, new_canvas

TARGET = 96  # pixels a side on the page: 32x32 images are shown three times as large
GAP = 4
UNKNOWN, KNOWN, LINE = (214, 214, 214), (72, 72, 72), (150, 150, 150)
OUTLINE = (213, 94, 0)  # Okabe-Ito's vermilion: dark in grey
HATCH = 6  # pixels between the lines over a hidden part
LETTERS = 14  # pixels of a line of words
LEFT, TOP = 150, 26


@dataclass(frozen=True)
class Tile:
    """One picture.

    image: uint8 (H, W, 1 or 3). hidden: (H, W) bool, hatched, its pixels not shown. box: (H, W)
    bool, outlined. words: one line or two below it.
    """

    image: np.ndarray
    hidden: np.ndarray | None = None
    box: np.ndarray | None = None
    words: str = ""


@dataclass(frozen=True)
class Strip:
    """One row: its label (two lines at most, the second small) and its tiles; None stays white.

    below: pixels of white under it, between groups of rows.
    """

    label: str
    tiles: Sequence[Tile | None]
    below: int = 0


def picture_grid(
    name: str,
    alt: str,
    strips: Sequence[Strip],
    heads: Sequence[str] = (),
    left: int = LEFT,
    gap: int = GAP,
) -> Figure:
    """A figure of rows of tiles. heads: words above the columns, a line break allowed.

    left: pixels for the labels. gap: between columns.
    """
    drawn = [[None if t is None else render(t) for t in strip.tiles] for strip in strips]
    wide = max(t.shape[1] for row in drawn for t in row if t is not None)
    columns = max(len(row) for row in drawn)
    top = TOP + (LETTERS if any("\n" in head for head in heads) else 0) if heads else GAP
    heights, lines = [], []
    for strip, row in zip(strips, drawn, strict=True):
        texts = [t.words for t in strip.tiles if t is not None]
        lines.append(max((text.count("\n") + 1 for text in texts if text), default=0))
        heights.append(max(t.shape[0] for t in row if t is not None))
    width = left + columns * (wide + gap)
    steps = [
        GAP + strip.below + (LETTERS * n + 4 if n else 0)
        for strip, n in zip(strips, lines, strict=True)
    ]
    tall = sum(heights) + sum(steps)
    sheet = np.full((top + tall, width, 3), 255, np.uint8)
    places: list[tuple[int, int, str]] = []
    rows, y = [], top
    for strip, row, height, step in zip(strips, drawn, heights, steps, strict=True):
        for j, (tile, image) in enumerate(zip(strip.tiles, row, strict=True)):
            if tile is None or image is None:
                continue
            x = left + j * (wide + gap)
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
            if tile.words:
                places.append((x + image.shape[1] // 2, y + height + 3, tile.words))
        rows.append(y + height / 2)
        y += height + step
    with house_style():
        canvas = new_canvas(width / DPI, sheet.shape[0] / DPI)
        canvas.figimage(sheet, 0, 0)
        look: dict[str, Any] = {"horizontalalignment": "center", "color": INK}
        tall = sheet.shape[0]
        for j, head in enumerate(heads):
            x = left + j * (wide + gap) + wide / 2
            where = (x / width, 1 - (top - 8) / tall)
            canvas.text(*where, head, fontsize=8.5, verticalalignment="bottom", **look)
        for x, y, words in places:
            where = (x / width, 1 - y / tall)
            canvas.text(*where, words, fontsize=7.5, verticalalignment="top", **look)
        for strip, middle in zip(strips, rows, strict=True):
            _label(canvas, strip.label, (left - 10) / width, 1 - middle / tall, 9 / tall)
    return Figure(name, alt, canvas)


def _label(canvas: Any, label: str, x: float, y: float, shift: float) -> None:
    head, _, rest = label.partition("\n")
    look: dict[str, Any] = {"horizontalalignment": "right", "verticalalignment": "center"}
    shift = shift if rest else 0.0
    canvas.text(x, y + shift, head, fontsize=10.5, color=INK, **look)
    canvas.text(x, y - shift, rest, fontsize=8.5, color=FAINT, **look)


def render(tile: Tile) -> np.ndarray:
    """The tile as it is drawn, uint8 (h, w, 3)."""
    shown = enlarged(tile.image).copy()
    if tile.hidden is not None:
        _hatch(shown, resized(tile.hidden, shown.shape))
    if tile.box is not None:
        _outline(shown, resized(tile.box, shown.shape))
    return shown


def mask_tile(masked: np.ndarray, size: int = TARGET) -> np.ndarray:
    """A grid of tokens (h, w) bool as a picture uint8 (size, size, 3): unknown light, known dark.

    A white line goes around each token where there is room for one.
    """
    cell = max(1, size // masked.shape[0])
    picture = np.where(masked[..., None], np.array(UNKNOWN), np.array(KNOWN)).astype(np.uint8)
    picture = picture.repeat(cell, axis=0).repeat(cell, axis=1)
    if cell >= 4:
        picture[::cell] = 255
        picture[:, ::cell] = 255
    return picture


def resized(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask (H, W) at another size, by the nearest pixel."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, mask.shape, strict=False))
    return mask[np.ix_(rows, columns)]


def _hatch(image: np.ndarray, hidden: np.ndarray) -> None:
    y, x = np.indices(hidden.shape)
    lines = (x + y) % HATCH < 1
    image[hidden] = UNKNOWN
    image[hidden & lines] = LINE


def _outline(image: np.ndarray, box: np.ndarray) -> None:
    inside = np.pad(box, 2)
    shrunk = inside.copy()
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            shrunk &= np.roll(inside, shift, axis)
    image[box & ~shrunk[2:-2, 2:-2]] = OUTLINE


def enlarged(image: np.ndarray) -> np.ndarray:
    """The image at about TARGET pixels a side, uint8 (h, w, 3).

    Whole factors only: pixels are repeated, or averaged where the image is larger than the tile.
    """
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


def first_of_each_class(stored: Mapping[str, np.ndarray], count: int = 1) -> dict[int, np.ndarray]:
    """Class -> its first `count` images, of arrays `images` (N, H, W, C) uint8 and `labels` (N,).

    Empty where the arrays are not there or do not fit each other.
    """
    if not {"images", "labels"} <= set(stored):
        return {}
    images, labels = stored["images"], stored["labels"]
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        return {}
    return {int(c): images[labels == c][:count] for c in np.unique(labels)}
