"""IDX files, the format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from maskgit.common.errors import UsageError, one_line


def read_idx(path: Path, dims: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped, with `dims` dimensions.

    Returns:
        uint8 array with the shape that the header declares.

    Raises:
        UsageError: the file is missing, is no such file, or is cut short.
    """
    try:
        with path.open("rb") as start:
            zipped = start.read(2) == b"\x1f\x8b"
        opener: Any = gzip.open if zipped else open
        with opener(path, "rb") as opened:
            magic = opened.read(4)
            shape = struct.unpack(f">{dims}I", opened.read(4 * dims))
            if magic != bytes([0, 0, 8, dims]):
                raise UsageError(f"{path}: expected an IDX file of bytes with {dims} dimensions")
            size = math.prod(shape)
            body = opened.read(size + 1)  # not more: a bomb's header must not fill the memory
    except (OSError, EOFError, zlib.error, struct.error, OverflowError, MemoryError) as error:
        raise UsageError(f"{path}: not a readable IDX file ({one_line(error)})") from error
    if len(body) != size:
        raise UsageError(f"{path}: not a readable IDX file (its size is not the header's {shape})")
    return np.frombuffer(body, np.uint8).reshape(shape)
