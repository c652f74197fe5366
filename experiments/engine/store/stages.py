"""Staged intermediates: tokens, features and likelihoods, each under the key of what made it.

A cell with another metric finds its features here, one with another feature network its tokens, and
all cells of a transformer one likelihood. A file that cannot be read is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from experiments.engine.keys import digest
from experiments.engine.store.lease import Leases
from maskgit.common.files import atomic_write

T = TypeVar("T")
POLL = 0.1  # seconds between two looks at a file that another process makes


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
        path = self.root / "tokens" / f"{key}.npy"
        return self._kept(path, lambda: _read_tokens(path, count), make, _array_bytes)

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
        kept = _read_tokens(path, len(ids))
        if kept is not None:
            return kept
        if path.exists():
            _complain(path)
        tokens = make(ids)
        # A process that took over a lease may have finished, and taken the folder away.
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, _array_bytes(tokens))
        return tokens

    def arrays(
        self, kind: str, key: str, count: int, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Named arrays of `count` rows each: from stages/KIND/KEY.npz, else made and kept."""
        path = self.root / kind / f"{key}.npz"
        return self._kept(path, lambda: _read_arrays(path, count), make, _arrays_bytes)

    def value(self, kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Plain data: from stages/KIND/KEY.json, else made and kept."""
        path = self.root / kind / f"{key}.json"
        return self._kept(path, lambda: read_value(path), make, _value_bytes)

    @contextmanager
    def alone(self, kind: str, key: str) -> Iterator[None]:
        """Only one process at a time is in a block of this kind and key: the others wait."""
        path = self.root / kind / f"{key}.lease"
        path.parent.mkdir(parents=True, exist_ok=True)
        while (lease := self._leases.acquire(path)) is None:
            time.sleep(POLL)
        with lease:
            yield

    def _kept(
        self,
        path: Path,
        read: Callable[[], T | None],
        make: Callable[[], T],
        as_bytes: Callable[[T], bytes],
    ) -> T:
        """What `read` finds in a file, else what `make` makes, which is then written there."""
        kept = read()
        if kept is not None:
            return kept
        with self.alone(path.parent.name, path.stem):
            kept = read()  # somebody else may have made it meanwhile
            if kept is None:
                if path.exists():
                    _complain(path)
                kept = make()
                atomic_write(path, as_bytes(kept))
        return kept


def _read_tokens(path: Path, count: int) -> np.ndarray | None:
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept = np.load(path, allow_pickle=False)
        if kept.dtype == np.uint16 and kept.ndim == 2 and len(kept) == count:
            return kept
    return None


def _read_arrays(path: Path, count: int) -> dict[str, np.ndarray] | None:
    with (
        contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile),
        np.load(path, allow_pickle=False) as file,  # its CRC finds damaged bytes
    ):
        kept = {name: file[name] for name in file.files}
        if kept and all(len(array) == count for array in kept.values()):
            return kept
    return None


def read_value(path: Path) -> dict[str, Any] | None:
    """The data of a .json stage file; None if there is none that matches its checksum."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_bytes())
        if kept["checksum"] == digest(kept["value"]):
            return kept["value"]
    return None


def _array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _arrays_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _value_bytes(value: dict[str, Any]) -> bytes:
    text = json.dumps({"value": value, "checksum": digest(value)}, sort_keys=True)
    return text.encode("ascii")


def _complain(path: Path) -> None:
    print(f"warning: {path} is damaged; it will be made again", file=sys.stderr, flush=True)
