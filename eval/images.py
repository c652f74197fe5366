"""Images from anywhere: a folder (nested or not), an npz in ADM's layout, an npy; out come uint8
batches.

A folder is read as it goes, so 50,000 images never lie in memory; its order is that of the sorted
relative paths.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.errors import UsageError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
ARRAY_KEYS = ("arr_0", "images")  # ADM's sample files; the samples of our own runs
SUBSET_SEED = 0


class ImageSource:
    """A set of images of one size. `len()` is their number, `batches` reads them.

    Args:
        where: folder, .npz or .npy.
        num_images: use this many, drawn at random (seed 0) and kept in order, because the first
            ones of a folder sorted by class would be of one class; None uses all.

    Raises:
        UsageError: nothing there, another kind of file, no images, or fewer than num_images.
    """

    def __init__(self, where: str | Path, num_images: int | None = None) -> None:
        self.where = Path(where)
        self._size: tuple[int, int] | None = None
        self._items: np.ndarray | list[Path]
        if self.where.is_dir():
            self._items = sorted(
                (p for p in self.where.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()),
                key=lambda p: p.relative_to(self.where).as_posix(),
            )
            if not self._items:
                raise UsageError(f"{where}: no images there (looked for {', '.join(SUFFIXES)})")
        elif self.where.is_file() and self.where.suffix in (".npz", ".npy"):
            self._items = _read_array(self.where)
        else:
            found = "another kind of file" if self.where.exists() else "does not exist"
            raise UsageError(f"{where}: {found}, expected a folder of images, an .npz or an .npy")
        count = len(self._items)
        if num_images is not None and not 1 <= num_images <= count:
            raise UsageError(f"--num-images {num_images}: expected 1 to {count}, as {where} has")
        self._chosen = np.arange(count)
        if num_images is not None:
            rng = np.random.default_rng(SUBSET_SEED)
            self._chosen = np.sort(rng.permutation(count)[:num_images])

    def __len__(self) -> int:
        return len(self._chosen)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Batches uint8 (b, H, W, C), b <= batch_size, C of 1 (all grey) or 3.

        Raises:
            UsageError: a file that is broken, transparent, or not of the first one's size.
        """
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: at least 1 is needed")
        for start in range(0, len(self), batch_size):
            chosen = self._chosen[start : start + batch_size]
            if isinstance(self._items, np.ndarray):
                yield np.ascontiguousarray(self._items[chosen])
            else:
                yield self._stack([self._items[i] for i in chosen])

    def _stack(self, paths: list[Path]) -> np.ndarray:
        images = []
        for path in paths:
            image = read_image(path)
            size = image.shape[1], image.shape[0]
            self._size = self._size or size
            if size != self._size:
                raise UsageError(
                    f"{path}: {size[0]}x{size[1]} pixels, the images before it have "
                    f"{self._size[0]}x{self._size[1]}: all must have one size"
                )
            images.append(image)
        if len({image.shape[2] for image in images}) > 1:  # grey files among colour ones
            images = [np.repeat(x, 3, axis=2) if x.shape[2] == 1 else x for x in images]
        return np.stack(images)


def read_image(path: str | Path) -> np.ndarray:
    """Read one image file as uint8 (H, W, 1) if it is grey, else (H, W, 3).

    16-bit grey is scaled to 8 bits; palettes and CMYK become RGB; an alpha channel may be there
    if it hides nothing.

    Raises:
        UsageError: not a readable image, transparent, or floating point.
    """
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            image.load()
            return _to_uint8(image, path)
    except UsageError:
        raise
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a readable image ({one_line(error)})") from error


def _to_uint8(image: Image, path: str | Path) -> np.ndarray:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UsageError(f"{path}: grey values beyond 16 bits, expected 8 or 16 bits")
        return np.round(values / 257).astype(np.uint8)[..., None]
    if image.mode == "F":
        raise UsageError(f"{path}: a floating-point image, expected 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            raise UsageError(f"{path}: has transparent pixels, put it on a background first")
        grey = image.mode in ("L", "LA", "La", "1")
        return np.asarray(rgba.convert("RGB"))[..., : 1 if grey else 3]
    if image.mode in ("L", "1"):
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def _read_array(path: Path) -> np.ndarray:
    """The images of an npz or npy: uint8 (n, H, W, C), or (n, H, W) for grey ones."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                keys = [key for key in ARRAY_KEYS if key in loaded.files]
                if not keys:
                    raise UsageError(
                        f"{path}: has {', '.join(loaded.files) or 'no arrays'}, expected arr_0"
                    )
                loaded = loaded[keys[0]]
    except UsageError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not a readable array file ({one_line(error)})") from error
    images = loaded[..., None] if loaded.ndim == 3 else loaded
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UsageError(
            f"{path}: {images.dtype} {images.shape}, expected uint8 (n, H, W, C) with C of 1 or 3"
        )
    if 0 in images.shape:
        raise UsageError(f"{path}: an empty array {images.shape}")
    return images
