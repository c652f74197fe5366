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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.keys import digest
from experiments.engine.store.lease import Leases
from experiments.engine.store.store import atomic_write


class Stages:
    """RUN/stages."""

    def __init__(self, run: Path, leases: Leases | None = None):
        self.root = Path(run) / "stages"
        self._leases = leases or Leases()

    def has(self, kind: str, key: str) -> bool:
        """Whether there is a file of that kind and key (it may prove damaged when it is read)."""
        return any(
            (self.root / kind / f"{key}{end}").is_file() for end in (".npy", ".npz", ".json")
        )

    def tokens(self, key: str, count: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Tokens uint16 (count, N): from the file, else made and kept."""
        path = self.root / "tokens" / f"{key}.npy"
        kept = _read_tokens(path, count)
        if kept is not None:
            return kept
        tokens = make()
        _write_array(path, tokens)
        return tokens

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
        tokens = make(ids)
        # Another process that makes the same tokens may have finished, and taken the folder away.
        with contextlib.suppress(FileNotFoundError):
            _write_array(path, tokens)
        return tokens

    def arrays(
        self, kind: str, key: str, count: int, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Named arrays of `count` rows each: from stages/KIND/KEY.npz, else made and kept."""
        path = self.root / kind / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:  # its CRC finds damaged bytes
                kept = {name: file[name] for name in file.files}
            if kept and all(len(array) == count for array in kept.values()):
                return kept
            _complain(path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            _complain(path)
        arrays = make()
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        _write(path, buffer)
        return arrays

    def value(self, kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Plain data: from stages/KIND/KEY.json, else made once, whoever else wants it waits."""
        path = self.root / kind / f"{key}.json"
        lease_path = path.with_suffix(".lease")
        while True:
            kept = _read_value(path)
            if kept is not None:
                return kept
            lease = self._leases.acquire(lease_path)
            if lease is None:
                time.sleep(0.1)
                continue
            with lease:
                kept = _read_value(path)
                if kept is not None:
                    return kept
                if path.exists():
                    _complain(path)
                value = make()
                text = json.dumps({"value": value, "checksum": digest(value)}, sort_keys=True)
                _write(path, io.BytesIO(text.encode("ascii")))
                return value


def _read_tokens(path: Path, count: int) -> np.ndarray | None:
    try:
        kept = np.load(path, allow_pickle=False)
        if kept.dtype == np.uint16 and kept.ndim == 2 and len(kept) == count:
            return kept
        _complain(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError):
        _complain(path)
    return None


def _read_value(path: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_bytes())
        return kept["value"] if kept["checksum"] == digest(kept["value"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    _write(path, buffer)


def _write(path: Path, buffer: io.BytesIO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())


def _complain(path: Path) -> None:
    print(f"warning: {path} is damaged; it will be made again", file=sys.stderr, flush=True)
