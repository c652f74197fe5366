"""Fashion-MNIST for the embedded benchmark, padded from 28x28 to 32x32 so that it halves evenly.

The data are looked for in this order: the folder the user names (`--data`), Debian's package
`dataset-fashion-mnist`, torchvision's download (once, kept in the user's cache). The test images
travel with the package (maskgit/zoo/fashion-mnist, MIT licence, Zalando SE), so that everything
but training works offline.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from maskgit.common.errors import UsageError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SHIPPED_FOLDER = Path(__file__).parents[1] / "zoo" / "fashion-mnist"
CACHE_FOLDER = Path("~/.cache/maskgit-bench").expanduser()
PREFIX = {"train": "train", "test": "t10k"}
CLASS_NAMES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes (plain or gzipped), the format of MNIST.

    Returns:
        uint8 array with the shape the header declares.

    Raises:
        UsageError: the file is not IDX, is cut short, or does not hold unsigned bytes.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        zero, kind, dims = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UsageError(f"{path}: not a readable IDX file ({error})") from error
    body = raw[4 + 4 * dims :]
    if zero != 0 or kind != 8 or len(body) != int(np.prod(shape)):
        raise UsageError(f"{path}: expected an IDX file of unsigned bytes, complete")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _files_in(folder: Path, split: str) -> tuple[Path, Path] | None:
    """The image and the label file of a split, gzipped or plain, or None if one is missing."""
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        stem = f"{PREFIX[split]}-{kind}-ubyte"
        hits = [p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()]
        if not hits:
            return None
        found.append(hits[0])
    return found[0], found[1]


def _download(split: str) -> tuple[Path, Path]:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(CACHE_FOLDER), train=split == "train", download=True)
    except Exception as error:  # the reasons differ with the torchvision version
        raise UsageError(
            "Fashion-MNIST not found: give --data FOLDER with the four IDX files, install the "
            f"Debian package dataset-fashion-mnist, or go online (download failed: {error})"
        ) from error
    files = _files_in(CACHE_FOLDER / "FashionMNIST" / "raw", split)
    if files is None:
        raise UsageError(f"{CACHE_FOLDER}: the download left no IDX files there")
    return files


def find_files(split: str, data: str | Path | None = None) -> tuple[Path, Path]:
    """Where the images and labels of a split are, by the order in the module's docstring.

    Raises:
        UsageError: `--data` names a folder without the files, or they are nowhere.
    """
    if data is not None:
        files = _files_in(Path(data).expanduser(), split)
        if files is None:
            raise UsageError(
                f"--data {data}: expected {PREFIX[split]}-images-idx3-ubyte[.gz] and "
                f"{PREFIX[split]}-labels-idx1-ubyte[.gz] in that folder"
            )
        return files
    shipped = [SHIPPED_FOLDER] if split == "test" else []
    for folder in (*shipped, DEBIAN_FOLDER, CACHE_FOLDER / "FashionMNIST" / "raw"):
        files = _files_in(folder, split)
        if files is not None:
            return files
    return _download(split)


def load_split(split: str, data: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Load Fashion-MNIST, zero-padded by 2 pixels a side.

    Args:
        split: "train" (60,000 images) or "test" (10,000; ships with the package).
        data: folder with the IDX files; None looks in the known places.

    Returns:
        images uint8 (n, 32, 32, 1) and labels int64 (n,), in the data set's order.

    Raises:
        UsageError: unknown split, or the files are missing or broken.
    """
    if split not in PREFIX:
        raise UsageError(f"split {split!r}: expected train or test")
    image_file, label_file = find_files(split, data)
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise UsageError(f"{image_file}: {images.shape} images do not fit {labels.shape} labels")
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]
    return padded, labels.astype(np.int64)
