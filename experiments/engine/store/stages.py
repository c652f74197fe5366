"""Staged intermediates: tokens, features and likelihoods, each under the key of what made it.

A cell with another metric finds its features here, one with another feature network its tokens, and
all cells of a transformer one likelihood. Tokens and features lie in blocks, see `store.blocks`.
Each file has a checksum of its content and its name, which has the key: one that is damaged, or was
made for another key, is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from experiments.engine.keys import digest
from experiments.engine.store.lease import Lease, Leases
from maskgit.common.files import atomic_write, json_bytes, make_way, open_regular

T = TypeVar("T")
SEAL = 64  # bytes at the end of a file of arrays: its checksum
ENDS = {"tokens": ".npy", "features": ".npz", "likelihood": ".json"}  # of the files of each kind
PATIENCE = 60.0  # seconds of silent waiting for a file that another process makes


class Stages:
    """RUN/stages. Of several processes that want the same file one makes it and the others wait."""

    def __init__(self, run: Path, leases: Leases | None = None):
        self.root = Path(run) / "stages"
        self.leases = leases or Leases()

    def path(self, kind: str, name: str) -> Path:
        """The file of that kind (one of ENDS) and name, which is a key, or KEY/NUMBER."""
        return self.root / kind / f"{name}{ENDS[kind]}"

    def has(self, kind: str, key: str) -> bool:
        """Whether there is a file of that kind and key (it may prove damaged when it is read)."""
        return self.path(kind, key).is_file()

    def kept(self, kind: str, key: str, make: Callable[[], T], count: int | None = None) -> T:
        """What the file of a kind and key holds, else what `make` makes, which is then kept there:
        an array, named arrays or plain data, as ENDS has it. count: rows that arrays must have.
        """
        path = self.path(kind, key)
        kept = self.read(path, count)
        if kept is not None:
            return kept
        with self.alone(kind, key) as lease:
            kept = self.read(path, count)  # somebody else may have made it meanwhile
            if kept is None:
                make_room(path)
                kept = make()
                if lease.is_mine():
                    self.write(path, kept)
        return kept

    @contextmanager
    def alone(self, kind: str, key: str) -> Iterator[Lease]:
        """Only one process at a time is in a block of this kind and key: the others wait."""
        path = self.root / kind / f"{key}.lease"
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.leases.wait(path, PATIENCE) as lease:
            yield lease

    def read(self, path: Path, count: int | None = None) -> Any:
        """What a stage file holds: an array, named arrays or plain data. None if it is not there,
        not whole, or made for another key; nothing that a file holds raises.

        count: rows that arrays must have.
        """
        try:
            with open_regular(path) as file:
                if path.suffix == ".json":
                    kept = json.loads(file.read())
                    whole = kept["checksum"] == digest([self._name(path), kept["value"]])
                    return kept["value"] if whole else None
                size = os.fstat(file.fileno()).st_size - SEAL
                if self._seal(path, file, size) != file.read():
                    return None
                file.seek(0)
                kept = np.load(file, allow_pickle=False)
                if path.suffix == ".npz":
                    kept = dict(kept.items())
            rows = [len(array) for array in (kept.values() if isinstance(kept, dict) else [kept])]
            return kept if count is None or set(rows) == {count} else None
        except Exception:  # numpy, zipfile and json raise whatever damaged bytes lead them to
            return None

    def write(self, path: Path, kept: Any) -> None:
        """Keep what `read` will return; raises OSError."""
        if path.suffix == ".json":
            checksum = digest([self._name(path), kept])
            atomic_write(path, json_bytes({"value": kept, "checksum": checksum}))
            return
        file = io.BytesIO()
        if path.suffix == ".npz":
            np.savez(file, **kept)
        else:
            np.save(file, kept, allow_pickle=False)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        file.write(self._seal(path, file, size))
        atomic_write(path, file.getbuffer())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).with_suffix("").as_posix()

    def _seal(self, path: Path, file: IO[bytes], size: int) -> bytes:
        """sha256 in hexadecimal of a file's name and of its next `size` bytes."""
        found = hashlib.sha256(self._name(path).encode() + b"\n")
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            found.update(block)
            size -= len(block)
        return found.hexdigest().encode()


def make_room(path: Path) -> None:
    """Before a file is written: what lies there is damaged, which is said."""
    if os.path.lexists(path):
        print(f"warning: {path} is damaged; it is made again", file=sys.stderr, flush=True)
        make_way(path)
