"""An animated GIF as a block of a page: the same frames give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.figures.curves import Figure

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

COLOURS = 128  # of a frame that is not grey


@dataclass(frozen=True)
class Animation(Figure):
    """A figure whose file is NAME.gif. frames: uint8 (H, W, 3) of one size; milliseconds: of each.

    Make it with `animation`; there is no canvas.
    """

    frames: Sequence[np.ndarray] = ()
    milliseconds: Sequence[int] = ()

    def write(self, folder: Path) -> None:
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
    name: str,
    alt: str,
    caption: str,
    frames: Sequence[np.ndarray],
    milliseconds: Sequence[int],
) -> Animation:
    """An animated figure; see `Animation`."""
    nothing: Any = None
    return Animation(name, alt, caption, nothing, frames=frames, milliseconds=milliseconds)


def _palette(frame: np.ndarray) -> Image.Image:
    from PIL import Image

    if bool((frame == frame[..., :1]).all()):
        return Image.fromarray(frame[..., 0].copy())
    return Image.fromarray(frame).quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
