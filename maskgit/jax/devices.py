"""Batches over the local devices: parameters on each of them, images split between them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


@lru_cache(maxsize=1)
def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("batch",))


def replicate(tree: Any) -> Any:
    """Arrays, a copy on every local device."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def split(tree: Any) -> Any:
    """Arrays, their first dimension spread over the local devices, whose number divides it."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec("batch")))


def program_batch(images: int, most: int) -> int:
    """How many images one program takes, for a call with `images` of them and at most `most`.

    A multiple of the number of devices. Fewer images than `most` are rounded up to a power of two,
    so that calls of many sizes share a few programs.
    """
    devices = len(jax.local_devices())
    fewer = 1 << max(images - 1, 0).bit_length()
    return -(-min(fewer, most) // devices) * devices


def batches(images: int, size: int) -> Iterator[np.ndarray]:
    """Indices (size,) of the images of each batch.

    The last batch is filled with copies of the last image, so that one program serves all.
    """
    for first in range(0, images, size):
        yield np.minimum(np.arange(first, first + size), images - 1)
