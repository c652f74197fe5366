"""Files of plain arrays: npz without pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import output_file


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], compression: int = zipfile.ZIP_STORED
) -> None:
    """Write an npz without pickles: whole or not at all, and equal content gives equal bytes.

    Raises:
        UsageError: the file cannot be written.
    """
    with output_file(path) as file, zipfile.ZipFile(file, "w", compression) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # of our own: it carries no time of day
            info.compress_type = compression
            with archive.open(info, "w", force_zip64=array.nbytes > 2**30) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read_arrays(path: Path, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an npz, all or some.

    Raises:
        UsageError: missing, broken, not an npz of plain arrays, or without a key.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in (file.files if keys is None else keys)}
    except Exception as error:  # numpy raises whatever the broken bytes lead it to
        raise UsageError(f"{path}: not a readable npz ({one_line(error)})") from error
