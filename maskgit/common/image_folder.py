"""Folders of images, read alike for training and for measuring: which files count, which are left
out, and which class a folder is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from maskgit.common.errors import UsageError, one_line


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """Relative paths of all files below a folder, in any order, and of links not followed.

    Links are followed, but a folder that is reached twice is read once.

    Raises:
        UsageError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    found: list[str] = []
    twice: list[str] = []

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename}: not a readable folder ({one_line(error)})")

    for root, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        status, below = os.stat(root), Path(root).relative_to(folder)
        if (status.st_dev, status.st_ino) in seen:
            twice.append(below.as_posix())
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        found += [(below / file).as_posix() for file in files]
    return found, twice


def is_hidden(path: str) -> bool:
    """Whether a relative path belongs to a program and not to the user: `._x.png`,
    `.ipynb_checkpoints/x.png`, what macOS adds to archives."""
    parts = PurePosixPath(path).parts
    return "__MACOSX" in parts or any(p.startswith(".") and p not in (".", "..") for p in parts)


def class_order(names: Sequence[str]) -> list[str]:
    """Each name once, in the order that numbers the classes: 0, 1, ..., 9, 10 if all names are
    whole numbers, by text otherwise."""
    every = sorted(set(names))
    if all(name.isascii() and name.isdigit() for name in every):
        every.sort(key=lambda name: (len(name.lstrip("0")), name.lstrip("0")))
    return every


def class_labels(classes: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The number of each name in `classes`, which `class_order` gave; int64 (n,)."""
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in names], np.int64)
