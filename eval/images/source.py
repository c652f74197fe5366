"""Batches of images (uint8) from a folder (nested or not), a zip, an npz in ADM's layout, an npy or
IDX file, or an array.

A set is read batch by batch, so that 50,000 images need not fit into memory. The images of a folder
are in the order of their relative paths. `digests` identify the content: they are the sha256 of
every image's bytes, in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskgit.common.errors import UsageError
from maskgit.common.image_file import center_square, center_square_words
from maskgit.common.image_sets import Array, Files, open_set

SUBSET_SEED = 0


class ImageSource:
    """A set of images. `len()` is their number, `batches` reads them.

    Args:
        where: folder, .zip, .npz, .npy, IDX file, or an array uint8 (n, H, W, C) or (n, H, W).
        num_images: use this many, drawn at random (seed 0) and kept in order, because the first
            ones of a folder sorted by class would be of one class; None uses all.
        labels: classes of an array's images.
        skip_broken: leave out files that are no usable images, instead of stopping at the first.
        crop: scale the shorter side of every image to this many pixels and cut out the central
            square, or cover this height and width and cut out their middle; an image that has
            this size stays as it is.
        pad: put every image in the middle of a black square of this many pixels.
        any_size: allow images of different sizes (a batch never mixes them).

    Attributes:
        name: of the set in results; never a whole path.
        available: number of images there, of which num_images may be a part.
        labels: int64 (n,) where the set has classes: the first folders, or arr_1 / labels.
        class_names: of a folder's or zip's classes.
        notes: what was left out before reading, and why.
        skipped: index -> why; filled while reading, with skip_broken.
        sizes: (width, height) seen so far.

    Raises:
        UsageError: nothing there, another kind of file, no images, or fewer than num_images.
    """

    def __init__(
        self,
        where: str | Path | np.ndarray,
        num_images: int | None = None,
        *,
        labels: np.ndarray | None = None,
        skip_broken: bool = False,
        crop: int | tuple[int, int] | None = None,
        pad: int | None = None,
        any_size: bool = False,
    ) -> None:
        self._set: Files | Array
        if isinstance(where, np.ndarray):
            self.where, self._set = None, Array(where, "images", labels)
            self.name = "array"
        elif str(where) == "":
            raise UsageError("an empty path of images: expected a folder or file")
        else:
            self.where, self._set = Path(where), open_set(Path(where))
            self.name = self.where.resolve().name
        sides = crop if isinstance(crop, tuple) else (crop,)
        for flag, side in (("--pad", pad), *(("--size", side) for side in sides)):
            if side is not None and not 1 <= side <= 8192:
                raise UsageError(f"{flag} {side}: expected 1 to 8192 pixels")
        count = len(self._set)
        if num_images is not None and not 1 <= num_images <= count:
            raise UsageError(f"--num-images {num_images}: expected 1 to {count}, as {where} has")
        self.available = count
        self._chosen = np.arange(count)
        if num_images is not None:
            rng = np.random.default_rng(SUBSET_SEED)
            self._chosen = np.sort(rng.permutation(count)[:num_images])
        self.labels = None if self._set.labels is None else self._set.labels[self._chosen]
        self.class_names = self._set.class_names
        self.decoder = self._set.decoder
        self.notes = self._set.notes
        self.skip_broken, self.crop, self.pad, self.any_size = skip_broken, crop, pad, any_size
        self.skipped: dict[int, str] = {}
        self.sizes: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self._chosen)

    def item_name(self, index: int) -> str:
        """The name of image `index` in messages."""
        return self._set.name(int(self._chosen[index]))

    def digests(self, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """sha256 of every image's bytes, uint8 (n, 32); zeros for a file that cannot be read, with
        skip_broken.

        Raises:
            UsageError: a file that cannot be read.
        """
        result = np.zeros((len(self), 32), np.uint8)
        for index in range(len(self)):
            try:
                raw = self._set.raw(int(self._chosen[index]))
            except UsageError:
                if not self.skip_broken:
                    raise
                continue
            result[index] = _digest(raw)
            if progress is not None and (index % 256 == 255 or index == len(self) - 1):
                progress(index + 1)
        return result

    def first(self) -> np.ndarray:
        """The first image that can be read, uint8 (H, W, C).

        Raises:
            UsageError: it is no usable image, or there is none.
        """
        return next(self.batches(1))[0]

    def batches(
        self,
        batch_size: int,
        start: int = 0,
        stop: int | None = None,
        digests: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Batches uint8 (b, H, W, C), b <= batch_size, C of 1 (all grey) or 3, of the images
        `start` to `stop`.

        Args:
            digests: what `digests()` gave; bytes that are others now are an error.

        Raises:
            UsageError: a file that is broken, transparent, animated, not of the first one's size
                (unless any_size), or changed since `digests`.
        """
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: at least 1 is needed")
        stop = len(self) if stop is None else stop
        waiting: list[np.ndarray] = []
        for index in range(start, stop):
            image = self._read(index, digests)
            if image is None:
                continue
            if waiting and (len(waiting) == batch_size or image.shape[:2] != waiting[0].shape[:2]):
                yield _stack(waiting)
                waiting = []
            waiting.append(image)
        if waiting:
            yield _stack(waiting)
        if stop == len(self) and len(self.skipped) == len(self):
            raise UsageError(
                f"{self.where}: none of its {len(self)} images can be used ({self.skipped[0]})"
            )

    def _read(self, index: int, digests: np.ndarray | None) -> np.ndarray | None:
        position = int(self._chosen[index])
        try:
            raw = self._set.raw(position)
            changed = digests is not None and (_digest(raw) != digests[index]).any()
            image = None if changed else self._set.pixels(position, raw)
        except UsageError as error:
            if not self.skip_broken:
                raise
            self.skipped[index] = str(error)
            return None
        if image is None:
            raise UsageError(f"{self.item_name(index)}: changed while the images were being read")
        if self.crop is not None:
            image = _crop(image, self.crop)
        if self.pad is not None:
            image = _pad(image, self.pad, self.item_name(index))
        size = image.shape[1], image.shape[0]
        if self.sizes and size not in self.sizes and not self.any_size:
            width, height = next(iter(self.sizes))
            raise UsageError(
                f"{self.item_name(index)}: {size[0]}x{size[1]} pixels, the images before it have "
                f"{width}x{height}: all must have one size, as these features do not resize"
            )
        self.sizes.add(size)
        return image

    def describe(self) -> dict[str, list[str]]:
        """Notes for a protocol on what was read, and on the files that were left out."""
        notes = list(self.notes)
        if self.skipped:
            some = "; ".join(list(self.skipped.values())[:3])
            notes.append(f"skipped {len(self.skipped)} of {self.name} (--skip-broken): {some}")
        if len(self.sizes) > 1:
            low, high = self.geometry()["sizes"]
            notes.append(
                f"{self.name} has images of {len(self.sizes)} sizes ({low} to {high}), each "
                "resized on its own"
            )
        return {"notes": notes} if notes else {}

    def geometry(self) -> dict[str, Any]:
        """How the images read so far were cut, and their sizes as `WxH`: the only one, or the one
        with the fewest and the one with the most pixels. JSON-able, for a protocol."""
        areas = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        ends = dict.fromkeys(f"{w}x{h}" for w, h in (*areas[:1], *areas[-1:]))
        return {"crop": crop_words(self.crop), "sizes": list(ends)}


def crop_words(crop: int | tuple[int, int] | None) -> str:
    """The argument `crop` as a protocol states it."""
    return "none" if crop is None else center_square_words(crop)


def parse_crop(crop: str, size: int | None) -> int | None:
    """The flags --crop and --size as the argument `crop`.

    Raises:
        UsageError: one without the other.
    """
    if (crop == "center") != (size is not None):
        raise UsageError(
            f"--crop {crop} --size {size}: expected --crop center --size N, or neither"
        )
    return size


def content_sha256(digests: np.ndarray) -> str:
    """One sha256 for a whole set, from `ImageSource.digests`: of contents and order."""
    return hashlib.sha256(np.ascontiguousarray(digests).tobytes()).hexdigest()


def _digest(raw: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(raw).digest(), np.uint8)


def _stack(images: list[np.ndarray]) -> np.ndarray:
    if len({image.shape[2] for image in images}) > 1:  # grey files among colour ones
        images = [np.repeat(x, 3, axis=2) if x.shape[2] == 1 else x for x in images]
    return np.stack(images)


def _crop(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    grey = image.shape[2] == 1
    square = center_square(Image.fromarray(image[..., 0] if grey else image), size)
    return np.asarray(square).reshape(square.height, square.width, -1)


def _pad(image: np.ndarray, size: int, name: str) -> np.ndarray:
    height, width, channels = image.shape
    if max(height, width) > size:
        raise UsageError(f"{name}: {width}x{height} pixels do not fit into --pad {size}")
    result = np.zeros((size, size, channels), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    result[top : top + height, left : left + width] = image
    return result
