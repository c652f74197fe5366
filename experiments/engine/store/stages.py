"""Staged intermediates: tokens, features and likelihoods, each under the key of what made it.

A cell with another metric finds its features here, one with another feature network its tokens, and
all cells of a transformer one likelihood. Each file has a checksum of its content and its name,
which has the key: one that is damaged, or was made for another key, is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from experiments.engine.keys import digest
from experiments.engine.store.lease import Lease, Leases
from maskgit.common.files import atomic_write, json_bytes, make_way, open_regular

T = TypeVar("T")
SEAL = 64  # bytes at the end of a file of arrays: its checksum
PATIENCE = 60.0  # seconds of silent waiting for a file that another process makes


class Stages:
    """RUN/stages. Of several processes that want the same file one makes it and the others wait."""

    def __init__(self, run: Path, leases: Leases | None = None):
        self.root = Path(run) / "stages"
        self._leases = leases or Leases()

    def has(self, kind: str, key: str) -> bool:
        """Whether there is a file of that kind and key (it may prove damaged when it is read)."""
        return any(
            (self.root / kind / f"{key}{end}").is_file() for end in (".npy", ".npz", ".json")
        )

    def tokens(self, key: str, count: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Tokens uint16 (count, N): from stages/tokens/KEY.npy, else made and kept."""
        return self._kept(self.root / "tokens" / f"{key}.npy", make, count)

    def tokens_in_parts(
        self, key: str, parts: Sequence[np.ndarray], make: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """As `tokens`, made and kept part by part, so that a killed process loses only one.

        parts: numbers of the samples of each, int64; together 0..count-1, each once. make: the
        tokens of one part. The parts lie in tokens/KEY.parts/ until the whole is there.
        """
        folder = self.root / "tokens" / f"{key}.parts"

        def whole() -> np.ndarray:
            made = [self._part(folder, ids, make) for ids in parts]
            tokens = np.concatenate(made)
            tokens[np.concatenate(parts)] = tokens.copy()
            return tokens

        tokens = self.tokens(key, sum(map(len, parts)), whole)
        shutil.rmtree(folder, ignore_errors=True)
        return tokens

    def _part(
        self, folder: Path, ids: np.ndarray, make: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        # Named after its samples, so that other parts, of another version say, are never taken.
        path = folder / f"{hashlib.sha256(ids.astype('<i8').tobytes()).hexdigest()[:16]}.npy"
        kept = self.read(path, len(ids))
        if kept is None:
            _make_room(path)
            kept = make(ids)
            # A process that took over a lease may have finished, and taken the folder away.
            with contextlib.suppress(FileNotFoundError):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._write(path, kept)
        return kept

    def arrays(
        self, kind: str, key: str, count: int, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Named arrays of `count` rows each: from stages/KIND/KEY.npz, else made and kept."""
        return self._kept(self.root / kind / f"{key}.npz", make, count)

    def value(self, kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Plain data: from stages/KIND/KEY.json, else made and kept."""
        return self._kept(self.root / kind / f"{key}.json", make)

    @contextmanager
    def alone(self, kind: str, key: str) -> Iterator[Lease]:
        """Only one process at a time is in a block of this kind and key: the others wait."""
        path = self.root / kind / f"{key}.lease"
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._leases.wait(path, PATIENCE) as lease:
            yield lease

    def _kept(self, path: Path, make: Callable[[], T], count: int | None = None) -> T:
        """What a file holds, else what `make` makes, which is then written there."""
        kept = self.read(path, count)
        if kept is not None:
            return kept
        with self.alone(path.parent.name, path.stem) as lease:
            kept = self.read(path, count)  # somebody else may have made it meanwhile
            if kept is None:
                _make_room(path)
                kept = make()
                if lease.is_mine():
                    self._write(path, kept)
        return kept

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

    def _write(self, path: Path, kept: Any) -> None:
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


def _make_room(path: Path) -> None:
    if os.path.lexists(path):
        print(f"warning: {path} is damaged; it is made again", file=sys.stderr, flush=True)
        make_way(path)
