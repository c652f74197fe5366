"""Readers of sets of images: of a folder, a zip, an array in a file or in memory.

Each reader gives an item's bytes, which identify it, and the pixels in those bytes. Callers use
`eval.images.source.ImageSource`, which is made of one of them.
"""

from __future__ import annotations

import math
import os
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import PIL

from maskgit.common.errors import UsageError, one_line
from maskgit.common.idx import read_idx
from maskgit.common.image_file import MAX_BYTES, SUFFIXES, decode_image, read_bytes

IMAGE_KEYS = ("arr_0", "images")  # ADM's sample files; the samples of our own runs
LABEL_KEYS = ("arr_1", "labels")


class ImageSet:
    """Items 0..len-1; `notes` say which files were left out, and why.

    `labels` int64 (n,) and `class_names` are set if the images have classes.
    """

    labels: np.ndarray | None = None
    class_names: list[str] | None = None
    decoder: str  # what turns bytes into pixels: part of a set's identity, as the bytes are

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """The name of an item in messages."""
        raise NotImplementedError

    def raw(self, index: int) -> bytes:
        """The bytes of an item; reading in rising order is fastest."""
        raise NotImplementedError

    def pixels(self, index: int, raw: bytes) -> np.ndarray:
        """The pixels of an item, uint8 (H, W, C), from its bytes."""
        raise NotImplementedError


class _Files(ImageSet):
    """Image files, in the order of their paths; the first part of a path is the class."""

    def __init__(self, where: Path, paths: list[str]) -> None:
        super().__init__()
        self.where = where
        self.decoder = f"Pillow {PIL.__version__}"
        hidden, others = [], []
        self.paths: list[str] = []
        for path in sorted(paths):
            parts = PurePosixPath(path).parts
            if any(p.startswith(".") and p not in (".", "..") for p in parts) or (
                "__MACOSX" in parts
            ):
                hidden.append(path)
            elif PurePosixPath(path).suffix.lower() in SUFFIXES:
                self.paths.append(path)
            else:
                others.append(path)
        self._note(hidden, "hidden")
        self._note(others, "not image files by their names")
        if not self.paths:
            left_out = f"; {'; '.join(self.notes)}" if self.notes else ""
            raise UsageError(
                f"{where}: no images there (looked for {', '.join(SUFFIXES)}){left_out}"
            )
        self._find_classes()

    def _note(self, left_out: Sequence[str], why: str) -> None:
        if left_out:
            shown = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
            self.notes.append(f"left out {len(left_out)} of {self.where.name}: {why} ({shown})")

    def _find_classes(self) -> None:
        folders = [PurePosixPath(path).parts[:-1] for path in self.paths]
        low, high = min(folders), max(folders)
        shared = 0  # a zip often has one folder around all
        while shared < min(len(low), len(high)) and low[shared] == high[shared]:
            shared += 1
        classes = [parts[shared] if len(parts) > shared else "" for parts in folders]
        names = sorted(set(classes))
        if len(names) > 1 and "" not in names:
            self.class_names = names
            self.labels = np.searchsorted(names, classes).astype(np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.where / self.paths[index])

    def pixels(self, index: int, raw: bytes) -> np.ndarray:
        return decode_image(raw, self.name(index))


class Folder(_Files):
    """Images below a folder. Links are followed; a folder reached twice is read once."""

    def __init__(self, where: Path) -> None:
        seen: set[tuple[int, int]] = set()
        twice: list[str] = []
        paths: list[str] = []

        def fail(error: OSError) -> None:
            raise UsageError(f"{error.filename}: not a readable folder ({one_line(error)})")

        for root, folders, files in os.walk(where, followlinks=True, onerror=fail):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                twice.append(Path(root).relative_to(where).as_posix())
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            below = Path(root).relative_to(where)
            paths += [(below / file).as_posix() for file in files]
        super().__init__(where, paths)
        self._note(twice, "links to folders that are read anyway")

    def raw(self, index: int) -> bytes:
        path = self.where / self.paths[index]
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path}: not a file")  # reading a pipe would wait for ever
        return read_bytes(path)


class Zip(_Files):
    """Images in a zip. They are read in memory: whatever paths it holds, nothing is written."""

    def __init__(self, where: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(where)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UsageError(f"{where}: not a readable zip ({one_line(error)})") from error
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        self._infos = {info.filename: info for info in infos}
        super().__init__(where, [info.filename for info in infos])
        for first, second in zip(self.paths, self.paths[1:], strict=False):
            if first == second:
                raise UsageError(f"{where}: has {first} twice, expected every name once")

    def raw(self, index: int) -> bytes:
        info = self._infos[self.paths[index]]
        name = self.name(index)
        if info.file_size > MAX_BYTES:
            raise UsageError(f"{name}: more than {MAX_BYTES >> 20} MiB unpacked, expected an image")
        try:
            with self._archive.open(info) as member:
                return member.read()
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UsageError(f"{name}: not readable ({one_line(error)})") from error
        except (RuntimeError, NotImplementedError) as error:  # encrypted; odd compression
            raise UsageError(f"{name}: not readable ({one_line(error)})") from error


class Array(ImageSet):
    """uint8 (n, H, W, C) or (n, H, W), in memory or mapped."""

    def __init__(self, images: np.ndarray, where: str, labels: np.ndarray | None = None) -> None:
        super().__init__()
        check_image_array(images.dtype, images.shape, where)
        self.where = where
        self._images = images[..., None] if images.ndim == 3 else images
        self.labels = check_labels(labels, len(images), where)
        self.decoder = f"uint8 {list(self._images.shape[1:])}"

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"{self.where}[{index}]"

    def raw(self, index: int) -> bytes:
        return self._images[index].tobytes()

    def pixels(self, index: int, raw: bytes) -> np.ndarray:
        return np.frombuffer(raw, np.uint8).reshape(self._images.shape[1:])


class ZippedArray(ImageSet):
    """The images of an npz, read row by row: ADM's files of 50,000 images do not fit into many
    machines' memory."""

    def __init__(self, where: Path) -> None:
        super().__init__()
        self.where = where
        try:
            self._archive = zipfile.ZipFile(where)
            names = [n.removesuffix(".npy") for n in self._archive.namelist()]
            keys = [key for key in IMAGE_KEYS if key in names]
            if not keys:
                raise UsageError(f"{where}: has {', '.join(names) or 'no arrays'}, expected arr_0")
            self._member = self._archive.open(f"{keys[0]}.npy")
            shape, fortran, dtype = _npy_header(self._member)
            self._start = self._member.tell()
            labels = [key for key in LABEL_KEYS if key in names]
            found = None
            if labels:
                with self._archive.open(f"{labels[0]}.npy") as file:
                    found = np.lib.format.read_array(file, allow_pickle=False)
        except UsageError:
            raise
        except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
            raise UsageError(f"{where}: not a readable array file ({one_line(error)})") from error
        check_image_array(dtype, shape, str(where))
        if fortran:
            raise UsageError(
                f"{where}: an array in Fortran's order, save it in C's (numpy.ascontiguousarray)"
            )
        self._shape = shape if len(shape) == 4 else (*shape, 1)
        self._row = math.prod(shape[1:])
        self.decoder = f"uint8 {list(self._shape[1:])}"
        self.labels = check_labels(found, len(self), str(where))

    def __len__(self) -> int:
        return self._shape[0]

    def name(self, index: int) -> str:
        return f"{self.where}[{index}]"

    def raw(self, index: int) -> bytes:
        try:
            self._member.seek(self._start + index * self._row)
            raw = self._member.read(self._row)
        except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
            raise UsageError(f"{self.name(index)}: not readable ({one_line(error)})") from error
        if len(raw) < self._row:
            raise UsageError(f"{self.name(index)}: not readable (the array is cut short)")
        return raw

    def pixels(self, index: int, raw: bytes) -> np.ndarray:
        return np.frombuffer(raw, np.uint8).reshape(self._shape[1:])


def open_set(where: Path) -> ImageSet:
    """The set of images at a path.

    Raises:
        UsageError: nothing there, another kind of file, broken, or without images.
    """
    suffix = where.suffix.lower()
    if where.is_dir():
        return Folder(where)
    if where.is_file() and suffix == ".zip":
        return Zip(where)
    if where.is_file() and suffix == ".npz":
        return ZippedArray(where)
    if where.is_file() and suffix == ".npy":
        try:
            images = np.load(where, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{where}: not a readable array file ({one_line(error)})") from error
        return Array(images, str(where))
    if where.is_file() and (suffix in (".gz", ".idx3") or where.name.endswith("-ubyte")):
        labels = where.with_name(where.name.replace("images", "labels").replace("idx3", "idx1"))
        found = read_idx(labels, 1) if labels != where and labels.is_file() else None
        return Array(read_idx(where, 3), str(where), found)
    found_here = "another kind of file" if where.exists() else "does not exist"
    raise UsageError(
        f"{where}: {found_here}, expected a folder of images, a .zip, .npz, .npy or IDX file"
    )


def check_image_array(dtype: np.dtype, shape: Sequence[int], where: str) -> None:
    """Raise a UsageError that says why an array holds no images."""
    if (
        dtype != np.uint8
        or len(shape) not in (3, 4)
        or (len(shape) == 4 and shape[3] not in (1, 3))
    ):
        swapped = len(shape) == 4 and shape[1] in (1, 3) and dtype == np.uint8
        hint = ": put the channels last (numpy.moveaxis(images, 1, 3))" if swapped else ""
        raise UsageError(
            f"{where}: {dtype} {tuple(shape)}, expected uint8 (n, H, W, C) with C of 1 or 3{hint}"
        )
    if 0 in shape:
        raise UsageError(f"{where}: an empty array {tuple(shape)}")


def check_labels(labels: Any, count: int, where: str) -> np.ndarray | None:
    """Labels int64 (n,), or None if there are none or they are no class numbers."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        return None
    if len(labels) != count:
        raise UsageError(f"{where}: {len(labels)} labels for {count} images")
    return labels.astype(np.int64)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"npy format {version} holds no images")
