"""Files of plain arrays (npz without pickles), and the one way this package writes a file: whole
or not at all."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from maskgit.common.errors import UsageError, one_line

# What numpy raises on files that are no npz of plain arrays.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], compression: int = zipfile.ZIP_STORED
) -> None:
    """Write an npz without pickles: whole or not at all, and equal content gives equal bytes."""

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, array in arrays.items():
                info = zipfile.ZipInfo(f"{name}.npy")  # of our own: it carries no time of day
                info.compress_type = compression
                with archive.open(info, "w", force_zip64=array.nbytes > 2**30) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    write_atomically(path, write)


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place.

    Raises:
        UsageError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({one_line(error)})") from error


def read_arrays(path: Path, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an npz: all, or only some.

    Raises:
        UsageError: missing, broken, not an npz of plain arrays, or without a key.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in (file.files if keys is None else keys)}
    except (
        KeyError,
        OSError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise UsageError(f"{path}: not a readable npz ({one_line(error)})") from error
