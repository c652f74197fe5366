"""Readers of sets of images: of a folder, a zip, an array in a file or in memory.

Each reader gives an item's bytes, which identify it, and the pixels in those bytes. Callers use
`eval.images.source.ImageSource` to measure and `maskgit.data.images` to train.
"""

from __future__ import annotations

import math
import os
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import PIL

from maskgit.common.errors import UsageError, one_line
from maskgit.common.idx import read_idx
from maskgit.common.image_file import MAX_BYTES, SUFFIXES, decode_image, read_bytes
from maskgit.common.image_folder import class_labels, class_order, files_below, is_hidden

IMAGE_KEYS = ("arr_0", "images")  # ADM's sample files; the samples of our own runs
LABEL_KEYS = ("arr_1", "labels")
TARS = (".tar", ".tar.gz", ".tgz")


class Files:
    """Image files, in the order of their paths; the first part of a path is the class.

    Attributes:
        decoder: what turns bytes into pixels: part of a set's identity, as the bytes are.
        notes: which files were left out, and why.
        labels, class_names: int64 (n,) and their names, if the images have classes.
    """

    labels: np.ndarray | None = None
    class_names: list[str] | None = None

    def __init__(self, where: Path, paths: list[str]) -> None:
        self.where = where
        self.decoder = f"Pillow {PIL.__version__}"
        self.notes: list[str] = []
        self.paths = sorted(paths)
        self._leave_out([path for path in self.paths if is_hidden(path)], "hidden")
        others = [x for x in self.paths if PurePosixPath(x).suffix.lower() not in SUFFIXES]
        self._leave_out(others, "not image files by their names")
        if not self.paths:
            notes = f"; {'; '.join(self.notes)}" if self.notes else ""
            raise UsageError(f"{where}: no images there (looked for {', '.join(SUFFIXES)}){notes}")
        self._find_classes()

    def _leave_out(self, paths: Sequence[str], why: str) -> None:
        if paths:
            out = set(paths)
            self.paths = [path for path in self.paths if path not in out]
            shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
            self.notes.append(f"left out {len(paths)} of {self.where.name}: {why} ({shown})")

    def _find_classes(self) -> None:
        folders = [PurePosixPath(path).parts[:-1] for path in self.paths]
        low, high = min(folders), max(folders)
        shared = 0  # a zip often has one folder around all
        while shared < min(len(low), len(high)) and low[shared] == high[shared]:
            shared += 1
        classes = [parts[shared] if len(parts) > shared else "" for parts in folders]
        names = class_order(classes)
        if len(names) > 1 and "" not in names:
            self.class_names, self.labels = names, class_labels(names, classes)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The name of an item in messages."""
        return str(self.where / self.paths[index])

    def raw(self, index: int) -> bytes:
        """The bytes of an item; reading in rising order is fastest."""
        raise NotImplementedError

    def pixels(self, index: int, raw: bytes) -> np.ndarray:
        """The pixels of an item, uint8 (H, W, C), from its bytes."""
        return decode_image(raw, self.name(index))


class Folder(Files):
    """Images below a folder. Links are followed; a folder reached twice is read once."""

    def __init__(self, where: Path) -> None:
        paths, twice = files_below(where)
        super().__init__(where, paths)
        self._leave_out(twice, "links to folders that are read anyway")

    def raw(self, index: int) -> bytes:
        path = self.where / self.paths[index]
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path}: not a file")  # reading a pipe would wait for ever
        return read_bytes(path)


class Zip(Files):
    """Images in a zip. They are read in memory: whatever paths it holds, nothing is written."""

    def __init__(self, where: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(where)
        except Exception as error:  # zipfile raises whatever the broken bytes lead it to
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
                # Without a size it would unpack all there is, whatever the header says.
                return member.read(info.file_size)
        except Exception as error:  # damaged, encrypted, an odd compression
            raise UsageError(f"{name}: not readable ({one_line(error)})") from error


class Tar(Files):
    """Images in a tar, which is not compressed or is read anew for every image; nothing is
    written, and links in it are left out."""

    def __init__(self, where: Path) -> None:
        try:
            self._archive = tarfile.open(where)  # noqa: SIM115  # as long as the set is read
            members = [member for member in self._archive.getmembers() if member.isreg()]
        except Exception as error:  # tarfile raises whatever the broken bytes lead it to
            raise UsageError(f"{where}: not a readable tar ({one_line(error)})") from error
        self._members = {member.name: member for member in members}
        super().__init__(where, list(self._members))

    def raw(self, index: int) -> bytes:
        member, name = self._members[self.paths[index]], self.name(index)
        if member.size > MAX_BYTES:
            raise UsageError(f"{name}: more than {MAX_BYTES >> 20} MiB, expected an image")
        try:
            file = self._archive.extractfile(member)
            return b"" if file is None else file.read()
        except Exception as error:
            raise UsageError(f"{name}: not readable ({one_line(error)})") from error


class Array:
    """uint8 (n, H, W, C) or (n, H, W), in memory or mapped; attributes and methods as of Files."""

    def __init__(self, images: np.ndarray, where: str, labels: Any = None) -> None:
        check_image_array(images.dtype, images.shape, where)
        self._images = images
        self._describe(images.shape, where, labels)

    def _describe(self, shape: tuple[int, ...], where: str, labels: Any) -> None:
        self.where, self.count = where, shape[0]
        self._shape = shape[1:] if len(shape) == 4 else (*shape[1:], 1)
        self.decoder = f"uint8 {list(self._shape)}"
        self.notes: list[str] = []
        self.class_names: list[str] | None = None
        self.labels = check_labels(labels, self.count, where)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.where}[{index}]"

    def raw(self, index: int) -> bytes:
        return self._images[index].tobytes()

    def pixels(self, _index: int, raw: bytes) -> np.ndarray:
        return np.frombuffer(raw, np.uint8).reshape(self._shape)


class ZippedArray(Array):
    """The images of an npz, read row by row: ADM's files of 50,000 images do not fit into many
    machines' memory."""

    def __init__(self, where: Path) -> None:
        try:
            archive = zipfile.ZipFile(where)
            names = [n.removesuffix(".npy") for n in archive.namelist()]
            keys = [key for key in IMAGE_KEYS if key in names]
            if not keys:
                raise UsageError(f"{where}: has {', '.join(names) or 'no arrays'}, expected arr_0")
            size = archive.getinfo(f"{keys[0]}.npy").file_size
            self._member = archive.open(f"{keys[0]}.npy")
            shape, fortran = _npy_header(self._member, size, str(where))
            labels = None
            if found := [key for key in LABEL_KEYS if key in names]:
                with archive.open(f"{found[0]}.npy") as file:
                    labels = np.lib.format.read_array(file, allow_pickle=False)
        except UsageError:
            raise
        except Exception as error:  # damaged, encrypted, an odd compression, a header of nonsense
            raise UsageError(f"{where}: not a readable array file ({one_line(error)})") from error
        if fortran:
            raise UsageError(
                f"{where}: an array in Fortran's order, save it in C's (numpy.ascontiguousarray)"
            )
        self._start, self._row = self._member.tell(), math.prod(shape[1:])
        self._describe(shape, str(where), labels)

    def raw(self, index: int) -> bytes:
        try:
            self._member.seek(self._start + index * self._row)
            raw = self._member.read(self._row)
        except Exception as error:  # zipfile raises whatever the broken bytes lead it to
            raise UsageError(f"{self.name(index)}: not readable ({one_line(error)})") from error
        if len(raw) < self._row:
            raise UsageError(f"{self.name(index)}: not readable (the array is cut short)")
        return raw


def open_set(where: Path) -> Files | Array:
    """The set of images at a path.

    Raises:
        UsageError: nothing there, another kind of file, broken, or without images.
    """
    # os.path says no where pathlib raises: at names that are too long, or hold a null.
    suffix, is_file = where.suffix.lower(), os.path.isfile(where)
    if os.path.isdir(where):
        return Folder(where)
    if is_file and suffix == ".zip":
        return Zip(where)
    if is_file and where.name.lower().endswith(TARS):
        return Tar(where)
    if is_file and suffix == ".npz":
        return ZippedArray(where)
    if is_file and suffix == ".npy":
        try:
            with where.open("rb") as file:
                _npy_header(file, where.stat().st_size, str(where))
            return Array(np.load(where, mmap_mode="r", allow_pickle=False), str(where))
        except UsageError:
            raise
        except Exception as error:  # numpy raises whatever the broken bytes lead it to
            raise UsageError(f"{where}: not a readable array file ({one_line(error)})") from error
    if is_file and (suffix in (".gz", ".idx3") or where.name.endswith("-ubyte")):
        labels = where.with_name(where.name.replace("images", "labels").replace("idx3", "idx1"))
        found = read_idx(labels, 1) if labels != where and labels.is_file() else None
        return Array(read_idx(where, 3), str(where), found)
    found_here = "another kind of file" if os.path.exists(where) else "does not exist"
    raise UsageError(
        f"{where}: {found_here}, expected a folder of images, a .zip, .tar, .npz, .npy or IDX file"
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
    if any(type(size) is not int or size < 1 for size in shape):  # a header may say True, or -3
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


def _npy_header(file: IO[bytes], size: int, where: str) -> tuple[tuple[int, ...], bool]:
    """Shape of the images in an npy file of `size` bytes, and whether Fortran's order is theirs;
    reads up to the first pixel."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"npy format {version} holds no images")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    check_image_array(dtype, shape, where)
    if math.prod(shape) > size - file.tell():
        raise ValueError(f"the array is cut short, {shape} does not fit into {size} bytes")
    return shape, fortran
