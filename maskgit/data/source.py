"""Images as training and measuring read them: a protocol, and images in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class ImageSource(Protocol):
    """One split of a data set; maskgit.data.image_folder.ImageFolder is another one."""

    name: str  # for messages
    labels: np.ndarray  # int64 (n,)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the class folders; none where the split has no folders."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """What the images and their labels are read from."""
        ...

    def __len__(self) -> int: ...

    def batch(self, picked: np.ndarray, epoch: np.ndarray | int) -> np.ndarray:
        """Rows `picked` int64 (b,) in their epoch -> uint8 (b, H, W, C)."""
        ...

    def some(self, count: int) -> np.ndarray:
        """Rows, int64, of at most `count` images that stand for all of them."""
        ...

    def settings(self) -> dict[str, Any]:
        """What the images depend on, as JSON, for a file of their tokens."""
        ...


class ArrayImages:
    """Images in memory, in an order that mixes the classes, without augmentation."""

    name = "images in memory"
    classes: Sequence[str] = ()

    def __init__(
        self, images: np.ndarray, labels: np.ndarray | None = None, files: Sequence[Path] = ()
    ):
        """images: uint8 (n, H, W, C). labels: int64 (n,); None stands for zeros."""
        self.images, self.files = images, files
        self.labels = np.zeros(len(images), np.int64) if labels is None else labels

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, picked: np.ndarray, epoch: np.ndarray | int) -> np.ndarray:
        """See ImageSource; every epoch is the same."""
        return self.images[picked]

    def some(self, count: int) -> np.ndarray:
        """The first ones."""
        return np.arange(min(count, len(self.images)))

    def settings(self) -> dict[str, Any]:
        """See ImageSource."""
        return {"augmentation": None}


def in_turn(labels: np.ndarray) -> np.ndarray:
    """An order of images: the first of each class, then the second of each, and so on."""
    by_class = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.empty(len(labels), np.int64)  # among the images of its class
    place[by_class] = np.arange(len(labels)) - np.repeat(first, counts)
    return np.lexsort((labels, place))


def spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` of `count` images, int64, at even distances."""
    return np.arange(min(count, limit)) * count // min(count, limit)
