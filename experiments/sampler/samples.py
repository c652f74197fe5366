"""Which class a sample has, and which samples are kept as pictures."""

from __future__ import annotations

import numpy as np

SHOWN = 20  # about so many pictures of a cell
SHOWN_CLASSES = 10  # of at most so many classes


def labels_of(count: int, num_classes: int) -> np.ndarray:
    """Class of each of `count` samples, int64 (count,): sample i is of class i % num_classes."""
    return np.arange(count, dtype=np.int64) % num_classes


def shown_samples(count: int, num_classes: int) -> np.ndarray:
    """Numbers of the samples that are kept as pictures, int64, in order.

    The first few of up to SHOWN_CLASSES classes, which lie evenly spread among those that `count`
    samples reach: the first ten of ImageNet's would be fish and birds.
    """
    reached = min(count, num_classes)
    classes = np.unique(np.arange(SHOWN_CLASSES) * reached // SHOWN_CLASSES)
    rounds = np.arange(SHOWN // len(classes))[:, None]
    ids = (classes + num_classes * rounds).ravel()
    return np.sort(ids[ids < count]).astype(np.int64)
