"""An animated GIF as a block of a page: the same frames give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reports.figures.style import Figure

COLOURS = 128  # of a frame that is not grey


@dataclass(frozen=True)
class Animation(Figure):
    """A figure whose file is NAME.gif. frames: uint8 (H, W, 3) of one size; milliseconds: of each.

    Make it with `animation`; there is no canvas.
    """

    frames: Sequence[np.ndarray] = ()
    milliseconds: Sequence[int] = ()

    def write(self, folder: Path, caption: str = "") -> None:
        """Writes the GIF; it plays for ever."""
        self.files[:] = [f"{self.name}.gif"]
        first, *rest = [_palette(frame) for frame in self.frames]
        first.save(
            folder / self.files[0],
            save_all=True,
            append_images=rest,
            duration=list(self.milliseconds),
            loop=0,
            optimize=False,
        )


def animation(
    name: str, alt: str, frames: Sequence[np.ndarray], milliseconds: Sequence[int]
) -> Animation:
    """An animated figure; see `Animation`."""
    nothing: Any = None
    return Animation(name, alt, nothing, frames=frames, milliseconds=milliseconds)


def _palette(frame: np.ndarray) -> Image.Image:
    if bool((frame == frame[..., :1]).all()):
        return Image.fromarray(frame[..., 0].copy())
    return Image.fromarray(frame).quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
