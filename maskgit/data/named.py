"""Data sets that have a name: `torchvision:NAME` and `hf:NAME` (a hub's, or a folder of one)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import cache_folder
from maskgit.common.image_sets import Array


def _torchvision(name: str) -> dict[str, Array]:
    from torchvision import datasets

    make = getattr(datasets, name, None)
    if not (isinstance(make, type) and issubclass(make, datasets.VisionDataset)):
        raise UsageError(f"torchvision:{name}: torchvision.datasets has no such data set")
    found = {}
    for split, flags in (("train", (True, "train")), ("val", (False, "test"))):
        try:
            images = _opened(make, cache_folder() / "torchvision", *flags)
        except Exception as error:  # the reasons differ with the data set
            raise UsageError(f"torchvision:{name}: {one_line(error)}") from error
        classes = getattr(images, "classes", None)
        found[split] = _array(f"torchvision:{name}", list(images), classes)
    return found


def _opened(make: Any, root: Path, train: bool, split: str) -> Any:
    """torchvision's data sets name their splits in one of two ways."""
    try:
        return make(root, train=train, download=True)
    except TypeError:
        return make(root, split=split, download=True)


def _hugging_face(name: str) -> dict[str, Array]:
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(f"hf:{name}: needs the extra `hf`: pip install 'maskgit-bench[hf]'")
    import datasets

    try:
        whole: Any = (
            datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
        )
    except Exception as error:  # of the network, of the hub, of the format
        raise UsageError(f"hf:{name}: {one_line(error)}") from error
    splits = whole if isinstance(whole, dict) else {"all": whole}
    names = {"train": "train", "validation": "val", "val": "val", "test": "val", "all": "all"}
    found: dict[str, Array] = {}
    for split, table in splits.items():
        if names.get(split) not in (None, *found):
            kinds = {key: type(kind).__name__ for key, kind in table.features.items()}
            pixels = next((key for key, kind in kinds.items() if kind == "Image"), None)
            if pixels is None:
                raise UsageError(f"hf:{name}: no column of images among {', '.join(kinds)}")
            label = next((key for key, kind in kinds.items() if kind == "ClassLabel"), None)
            pairs = [(row[pixels], row[label] if label else None) for row in table]
            classes = table.features[label].names if label else None
            found[names[split]] = _array(f"hf:{name}", pairs, classes)
    return found


def _array(name: str, pairs: list[tuple[Any, Any]], classes: list[str] | None) -> Array:
    """PIL images of one size with their labels as one array."""
    shapes = {image.size for image, _ in pairs}
    if len(shapes) != 1:
        raise UsageError(f"{name}: images of {len(shapes)} sizes, expected one; save them as files")
    grey = all(image.mode in ("L", "1") for image, _ in pairs)
    images = np.stack([np.asarray(image.convert("L" if grey else "RGB")) for image, _ in pairs])
    labels = None if pairs[0][1] is None else np.array([label for _, label in pairs])
    found = Array(images, name, labels)
    found.class_names = None if classes is None or labels is None else [str(c) for c in classes]
    return found


NAMED: dict[str, Callable[[str], dict[str, Array]]] = {
    "torchvision": _torchvision,
    "hf": _hugging_face,
}


def open_named(kind: str, name: str) -> dict[str, Array]:
    """The splits of a data set that has a name.

    Raises:
        UsageError: there is none of that name, or it cannot be had here.
    """
    return NAMED[kind](name)
