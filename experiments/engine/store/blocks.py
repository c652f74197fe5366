"""Samples that add up: a pool of rows in files of one block each, which several processes fill.

stages/KIND/KEY/00000.npz holds the first `size` rows, 00001.npz the next ones. Row i depends on the
key and on i only, so whoever wants n rows takes the first n of the pool: what is there is read, and
what is not is made. Of several processes each makes the blocks that no other is at. The last block
of a pool may hold fewer rows; those that are wanted later are added to it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.store.lease import POLL, Lease, say_waiting
from experiments.engine.store.stages import PATIENCE, Stages, make_room
from experiments.engine.store.store import sweep

IN_MEMORY = 2**31  # bytes; a larger array lies in a file without a name, mapped into memory


@dataclass(frozen=True)
class Blocks:
    """The first `count` rows of a pool: an array, or named arrays.

    Attributes:
        stages: where they are kept.
        kind, key: folder of the pool below that.
        count: rows wanted.
        size: rows of a block.
        make: numbers of rows int64 (n,), consecutive and of one block -> these rows.
    """

    stages: Stages
    kind: str
    key: str
    count: int
    size: int
    make: Callable[[np.ndarray], Any]

    @property
    def indices(self) -> range:
        """Numbers of the blocks."""
        return range(-(-self.count // self.size))

    def read(self) -> Any:
        """All rows: those that are kept, and those that are made here or by others meanwhile."""
        whole: dict[str, np.ndarray] = {}
        for index, part in self._each(self.indices):
            for name, rows in _named(part).items():
                if name not in whole:
                    shape = (self.count, *rows.shape[1:])
                    whole[name] = _room(shape, rows.dtype, self.stages.root)
                start = index * self.size
                whole[name][start : start + self._rows(index)] = rows[: self._rows(index)]
        return whole.get("", whole)

    def of(self, ids: np.ndarray) -> Any:
        """The rows with these numbers, which are consecutive and of one block."""
        index, end = int(ids[0]) // self.size, int(ids[-1]) + 1
        (found,) = replace(self, count=end)._each([index])
        start = int(ids[0]) - index * self.size
        part = {name: rows[start : start + len(ids)] for name, rows in _named(found[1]).items()}
        return part.get("", part)

    def help(self) -> bool:
        """Make one block that is not there and that no other process is at; whether there was."""
        for index in self.indices:
            if not self._path(index).exists() and (lease := self._lease(index)) is not None:
                with lease:
                    self._completed(index, lease)
                return True
        return False

    def missing(self) -> int:
        """Rows of blocks that have no file yet."""
        return sum(self._rows(index) for index in self.indices if not self._path(index).exists())

    def _each(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """(number, rows) of each block, as they become available."""
        left, began = list(indices), time.monotonic()
        while left:
            busy = []
            for index in left:
                part = self._kept(index)
                if part is None and (lease := self._lease(index)) is not None:
                    with lease:
                        part = self._completed(index, lease)
                if part is None:
                    busy.append(index)
                else:
                    yield index, part
            if busy == left:
                time.sleep(POLL)
                if time.monotonic() - began >= PATIENCE:
                    say_waiting(self._lease_path(busy[0]))
                    began = math.inf
            left = busy

    def _rows(self, index: int) -> int:
        return min(self.size, self.count - index * self.size)

    def _path(self, index: int) -> Path:
        return self.stages.path(self.kind, f"{self.key}/{index:05d}")

    def _lease_path(self, index: int) -> Path:
        return self._path(index).with_suffix(".lease")

    def _lease(self, index: int) -> Lease | None:
        return self.stages.leases.acquire(self._lease_path(index))

    def _kept(self, index: int) -> Any:
        """A block that has all rows that are wanted of it, else None."""
        part = self.stages.read(self._path(index))
        return part if part is not None and _length(part) >= self._rows(index) else None

    def _completed(self, index: int, lease: Lease) -> Any:
        """A block; what it lacks is made, and kept if the lease still is ours then."""
        path, start = self._path(index), index * self.size
        part = self.stages.read(path)
        have = 0 if part is None else _length(part)
        if have < self._rows(index):
            if part is None:
                make_room(path)
            more = self.make(np.arange(start + have, start + self._rows(index)))
            part = more if part is None else _joined(part, more)
            if lease.is_mine():
                self.stages.write(path, part)
                sweep(path.parent.glob(".*-*"), path.stat().st_mtime)
        return part


def _named(rows: Any) -> dict[str, np.ndarray]:
    return rows if isinstance(rows, dict) else {"": rows}


def _length(rows: Any) -> int:
    return min(len(array) for array in _named(rows).values())


def _joined(first: Any, second: Any) -> Any:
    more = _named(second)
    whole = {name: np.concatenate([rows, more[name]]) for name, rows in _named(first).items()}
    return whole.get("", whole)


def _room(shape: tuple[int, ...], dtype: np.dtype, folder: Path) -> np.ndarray:
    if math.prod(shape) * dtype.itemsize < IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)
