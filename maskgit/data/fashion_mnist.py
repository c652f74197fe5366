"""Fashion-MNIST for the embedded benchmark, padded from 28x28 to 32x32 so that it halves evenly.

The data are looked for in this order: the folder the user names (`--data`), Debian's package
`dataset-fashion-mnist`, torchvision's download (once, kept in the user's cache). The test images
travel with the package (maskgit/zoo/fashion-mnist, MIT licence, Zalando SE), so that everything
but training works offline.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskgit.common.errors import UsageError
from maskgit.common.files import cache_folder, without_tilde
from maskgit.common.idx import read_idx
from maskgit.data.source import ArrayImages
from maskgit.presets import Preset

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SHIPPED_FOLDER = Path(__file__).parents[1] / "zoo" / "fashion-mnist"
PREFIX = {"train": "train", "test": "t10k"}
PADDING = 2  # pixels a side
_NAMES = {"train": "train", "val": "test"}  # split of the registry -> Fashion-MNIST's own


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


def _downloaded() -> Path:
    return cache_folder() / "FashionMNIST" / "raw"


def _download(split: str) -> tuple[Path, Path]:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(cache_folder()), train=split == "train", download=True)
    except Exception as error:  # the reasons differ with the torchvision version
        raise UsageError(
            "Fashion-MNIST not found: give --data FOLDER with the four IDX files, install the "
            f"Debian package dataset-fashion-mnist, or go online (download failed: {error})"
        ) from error
    files = _files_in(_downloaded(), split)
    if files is None:
        raise UsageError(f"{_downloaded()}: the download left no IDX files there")
    return files


def find_files(
    split: str, data: str | Path | None = None, download: bool = True
) -> tuple[Path, Path]:
    """Where the images and labels of a split are, by the order in the module's docstring.

    Raises:
        UsageError: `--data` names a folder without the files, or they are nowhere.
    """
    if data is not None:
        files = _files_in(without_tilde(data), split)
        if files is None:
            raise UsageError(
                f"--data {data}: expected {PREFIX[split]}-images-idx3-ubyte[.gz] and "
                f"{PREFIX[split]}-labels-idx1-ubyte[.gz] in that folder"
            )
        return files
    shipped = [SHIPPED_FOLDER] if split == "test" else []
    for folder in (*shipped, DEBIAN_FOLDER, _downloaded()):
        files = _files_in(folder, split)
        if files is not None:
            return files
    if not download:
        raise UsageError(f"Fashion-MNIST: the {split} split is not on this machine")
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
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if labels.shape != images.shape[:1]:
        raise UsageError(f"{image_file}: {images.shape} images do not fit {labels.shape} labels")
    sides = (PADDING, PADDING)
    padded = np.pad(images, ((0, 0), sides, sides))[..., None]
    return padded, labels.astype(np.int64)


def open_split(
    preset: Preset, data: Path | None, split: str, *, size: int, seed: int = 0
) -> ArrayImages:
    """See maskgit.data.registry.open_split; "val" is the test split. There is one size only."""
    name = _NAMES[split]
    return ArrayImages(*load_split(name, data), files=find_files(name, data))


def is_here(data: Path | None, split: str) -> bool:
    """See maskgit.data.registry.DataSet."""
    try:
        find_files(_NAMES[split], data, download=False)
    except UsageError:
        return False
    return True


def about(images: int, crops: int | None = None) -> str:
    """What a model card says of the data."""
    return "Fashion-MNIST training split, 60,000 images (MIT licence, Zalando SE)"
