"""Image files: their bytes in, uint8 pixels out.

What every kind becomes: 16 bits are scaled to 8; palettes and CMYK become RGB; grey stays grey;
an alpha channel may be there if it hides nothing. A rotation that EXIF asks for is not done, as no
library of this field does it.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
from PIL.Image import Image

from maskgit.common.errors import UsageError, one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
# What a file may be, whatever its name says. An EPS, for one, would start a program.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
MAX_BYTES = 256 * 2**20  # of a file: more is no image, or a bomb in an archive
MAX_PIXELS = 2**27


def read_image(path: str | Path) -> np.ndarray:
    """The pixels of an image file, as `decode_image`; raises also what `read_bytes` raises."""
    return decode_image(read_bytes(Path(path)), str(path))


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        UsageError: not readable (a link to nowhere, say), or too large for an image.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: not a readable image ({one_line(error)})") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: more than {MAX_BYTES >> 20} MiB, expected an image")
    return raw


def decode_image(raw: bytes, name: str) -> np.ndarray:
    """Pixels of an image file as uint8 (H, W, 1) if it is grey, else (H, W, 3).

    Args:
        raw: the file's bytes.
        name: for messages.

    Raises:
        UsageError: as `open_image` and `to_uint8`.
    """
    return to_uint8(open_image(raw, name), name)


def open_image(raw: bytes, name: str) -> Image:
    """The image in a file's bytes as PIL has it, loaded.

    Raises:
        UsageError: not a readable image, cut short, animated, or beyond MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # MAX_PIXELS
            image = PIL.Image.open(io.BytesIO(raw), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UsageError(
                f"{name}: {image.width}x{image.height} pixels, at most {MAX_PIXELS} are read"
            )
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview behind it
            raise UsageError(f"{name}: {frames} frames (animated?), expected one image")
        image.load()
        return image
    except UsageError:
        raise
    except Exception as error:  # Pillow raises whatever damaged bytes lead it to
        raise UsageError(f"{name}: not a readable image ({one_line(error)})") from error


def center_square(image: Image, size: int | tuple[int, int]) -> Image:
    """The middle of an image: scaled until its shorter side is `size` pixels (bilinear,
    antialiased) and cut; torchvision's Resize(size) and CenterCrop(size).

    size: of the square's side, or height and width, which the scaled image covers.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    width, height = image.size
    if rows == columns:
        short = min(width, height)
        width, height = (int(rows * side / short) for side in (width, height))
    else:
        scale = max(rows / height, columns / width)
        width, height = max(columns, round(width * scale)), max(rows, round(height * scale))
    if (width, height) != image.size:
        image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    return image.crop((left, top, left + columns, top + rows))


def center_square_words(size: int | tuple[int, int]) -> str:
    """`center_square` as a protocol states it."""
    rows, columns = (size, size) if isinstance(size, int) else size
    how = f"shorter side resized to {rows}" if rows == columns else "resized to cover it"
    return f"{how} (bilinear, antialiased), centre crop {rows}x{columns}"


def upright_on_white(image: Image) -> Image:
    """A loaded image turned as its EXIF says, and on white where it is transparent."""
    image = PIL.ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    flat = PIL.Image.alpha_composite(PIL.Image.new("RGBA", layer.size, "white"), layer)
    return flat.convert("L" if image.mode in ("LA", "La", "L") else "RGB")


def to_uint8(image: Image, name: str) -> np.ndarray:
    """Pixels of a loaded image as uint8 (H, W, 1) if it is grey, else (H, W, 3).

    Raises:
        UsageError: transparent, floating point, or beyond 16 bits.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UsageError(f"{name}: grey values beyond 16 bits, expected 8 or 16 bits")
        if image.mode == "I" and image.format == "TIFF":
            raise UsageError(f"{name}: a 32-bit image, expected 8 or 16 bits")
        return np.round(values / 257).astype(np.uint8)[..., None]
    if image.mode == "F":
        raise UsageError(f"{name}: a floating-point image, expected 8 or 16 bits")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            if np.asarray(rgba)[..., 3].min() < 255:
                raise UsageError(f"{name}: has transparent pixels, put it on a background first")
            grey = image.mode in ("L", "LA", "La", "1")
            return np.asarray(rgba.convert("RGB"))[..., : 1 if grey else 3]
        if image.mode in ("L", "1"):
            return np.asarray(image.convert("L"))[..., None]
        return np.asarray(image.convert("RGB"))
    except UsageError:
        raise
    except (OSError, ValueError) as error:  # a mode that PIL cannot convert
        raise UsageError(f"{name}: not a readable image ({one_line(error)})") from error
