"""A user's photo as a model's input, and what in it a box or a mask of the user's means."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from maskgit.common.errors import UsageError
from maskgit.common.files import output_file
from maskgit.common.image_file import open_image, read_bytes, to_uint8, upright_on_white
from maskgit.data.registry import data_set
from maskgit.presets import Preset
from maskgit.sampling.editing import Box


@dataclass(frozen=True)
class Photo:
    """A photo cut to a centred square and scaled to the model's size."""

    image: Tensor  # (1, C, S, S) float32 in [0, 1]
    size: tuple[int, int]  # height and width of the file
    offset: tuple[float, float]  # top and left of the square in the file; negative where padded
    scale: float  # the model's pixels per pixel of the file

    def box(self, text: str) -> Box:
        """`TOP,LEFT,HEIGHT,WIDTH` in the file's pixels as a box in the model's.

        Raises:
            UsageError: not four whole numbers, or outside the photo or the square used of it.
        """
        try:
            box = Box(*(int(word) for word in text.split(",")))
        except (TypeError, ValueError):
            raise UsageError(
                f"--box {text}: expected TOP,LEFT,HEIGHT,WIDTH, four whole numbers of pixels"
            ) from None
        box.check(*self.size)
        top, left = (
            round((x - o) * self.scale)
            for x, o in zip((box.top, box.left), self.offset, strict=True)
        )
        height, width = (max(1, round(x * self.scale)) for x in (box.height, box.width))
        side = self.image.shape[2]
        if top < 0 or left < 0 or top + height > side or left + width > side:
            raise UsageError(
                f"--box {text}: reaches beyond the central square of the photo, of which the model "
                f"sees {side}x{side} pixels; crop the photo first"
            )
        return Box(top, left, height, width)

    def mask(self, path: Path) -> np.ndarray:
        """A mask image of the photo's size -> (S, S) bool, True where it is above half of white.

        Raises:
            UsageError: unreadable, or of another size.
        """
        pixels = to_uint8(ImageOps.exif_transpose(_open(path, "--mask")), f"--mask {path}")
        mask = Image.fromarray(pixels.squeeze()).convert("L")
        if (mask.height, mask.width) != self.size:
            raise UsageError(
                f"--mask {path}: {mask.height}x{mask.width}, expected the photo's "
                f"{self.size[0]}x{self.size[1]} pixels"
            )
        side = self.image.shape[2]
        return np.asarray(_square(mask, side, Image.Resampling.NEAREST)[0]) > 127


def load_photo(path: Path, preset: Preset) -> Photo:
    """Read an image file for a preset's tokenizer: turned upright, on white where transparent.

    A photo that is not square is cut to its central square, one of another size is scaled
    (bicubic); a line on stderr says so. Where the preset's data are padded with black, an image of
    their size before that is padded likewise (Fashion-MNIST: 28x28).

    Raises:
        UsageError: missing or not a readable image.
    """
    image = _open(path, "--input")
    if image.has_transparency_data:
        print(f"{path}: transparent pixels are put on white", file=sys.stderr)
    image = upright_on_white(image)
    image = Image.fromarray(to_uint8(image, f"--input {path}").squeeze())
    image = image.convert("L" if preset.channels == 1 else "RGB")
    size = image.height, image.width
    padding = data_set(preset).padding
    if padding and size == (preset.image_size - 2 * padding,) * 2:
        padded, offset, scale = ImageOps.expand(image, padding), (-float(padding),) * 2, 1.0
    else:
        padded, offset, scale = _square(image, preset.image_size, Image.Resampling.BICUBIC)
        if size != padded.size:
            print(
                f"{path}: {size[0]}x{size[1]} pixels, of which the central square is scaled to "
                f"{preset.image_size}x{preset.image_size}",
                file=sys.stderr,
            )
    values = np.array(padded, np.float32).reshape(padded.height, padded.width, preset.channels)
    tensor = torch.from_numpy(values).permute(2, 0, 1)[None].contiguous() / 255.0
    return Photo(tensor, size, offset, scale)


def write_png(image: np.ndarray, path: Path) -> Path:
    """Write uint8 (H, W, C) as a PNG, whole or not at all. Raises UsageError if it cannot be."""
    with output_file(path, "--output") as file:
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "PNG")
    return path


def _open(path: Path, flag: str) -> Image.Image:
    """The image in a file."""
    if not path.exists():
        raise UsageError(f"{flag} {path}: no such file")
    return open_image(read_bytes(path), f"{flag} {path}")


def _square(
    image: Image.Image, side: int, how: Image.Resampling
) -> tuple[Image.Image, tuple[float, float], float]:
    """The central square scaled to `side`, its top and left in the image, and the scale."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    cut = image.crop((left, top, left + edge, top + edge))
    return cut.resize((side, side), how), (float(top), float(left)), side / edge
