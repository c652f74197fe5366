"""Tokens of a large data set as a folder of shards, so that stage 2 reads no images.

    tokens-00000.npy    uint16 (images, crops, N), images 0.. of the data set; memory-mapped
    tokens-00000.json   its sha256 and the settings' digest: written after it, means it is whole
    labels.npy          int32 (n,)
    index.json          written last: counts, settings, the sha256 of every file

Any number of processes write at the same time: process k of w makes every w-th shard, nobody waits,
and whoever finds all shards done writes the index. Files appear under their names only when whole,
so after a kill the same command makes what is missing.

A reader checks at once that every file is there with its size. Contents are checked against their
sha256 by `verify`, which a training run calls before its first step unless it is told not to.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit.common.errors import UsageError
from maskgit.common.files import atomic_write, json_bytes, read_json, sha256_of

FORMAT = 1
INDEX = "index.json"
LABELS = "labels.npy"


def shard_name(number: int) -> str:
    return f"tokens-{number:05d}.npy"


class ShardWriter:
    """Writes the shards of one data set that fall to this process.

    settings: everything the tokens depend on (preset, data, tokenizer's sha256, augmentation, seed,
    crops), as JSON; shards made with other settings are refused, not mixed in.
    """

    def __init__(
        self,
        folder: Path,
        labels: np.ndarray,
        settings: dict[str, Any],
        *,
        crops: int,
        num_tokens: int,
        shard_images: int,
        process: int = 0,
        processes: int = 1,
    ):
        """Raises UsageError: the folder holds tokens made with other settings."""
        self.folder, self.labels = folder, labels.astype(np.int32)
        self.shape = (crops, num_tokens)
        self.shard_images = shard_images
        self.process, self.processes = process, processes
        self.settings = {
            **settings,
            "images": len(labels),
            "crops": crops,
            "num_tokens": num_tokens,
            "shard_images": shard_images,
            "labels_sha256": hashlib.sha256(_npy_bytes(self.labels)).hexdigest(),
        }
        self.digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        self.count = -(-len(labels) // shard_images)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(self.count):
            self._is_done(number)

    def rows(self, number: int) -> range:
        """The images of a shard."""
        first = number * self.shard_images
        return range(first, min(first + self.shard_images, len(self.labels)))

    def todo(self) -> list[int]:
        """This process's shards that are not there yet; what a kill left of them is removed."""
        mine = range(self.process, self.count, self.processes)
        for number in mine:
            for partial in self.folder.glob(f".tmp-{Path(shard_name(number)).stem}.*"):
                partial.unlink(missing_ok=True)
        return [number for number in mine if not self._is_done(number)]

    def write(self, number: int, tokens: np.ndarray) -> None:
        """Write one shard: tokens (images, crops, N), integers in [0, 65536)."""
        expected = (len(self.rows(number)), *self.shape)
        if tokens.shape != expected:
            raise UsageError(f"shard {number}: tokens {tokens.shape}, expected {expected}")
        content = _npy_bytes(tokens.astype(np.uint16))
        path = self.folder / shard_name(number)
        atomic_write(path, content)
        note = {"settings": self.digest, **_identity(content)}
        atomic_write(path.with_suffix(".json"), json_bytes(note))

    def finish(self) -> bool:
        """Write labels and index if all shards are there, whoever made them; returns whether."""
        if not all(self._is_done(number) for number in range(self.count)):
            return False
        labels = _npy_bytes(self.labels)
        atomic_write(self.folder / LABELS, labels)
        files = {LABELS: _identity(labels)}
        for number in range(self.count):
            note = read_json((self.folder / shard_name(number)).with_suffix(".json"))
            files[shard_name(number)] = {"sha256": note["sha256"], "bytes": note["bytes"]}
        index = {"format": FORMAT, "settings": self.settings, "files": files}
        atomic_write(self.folder / INDEX, json_bytes(index))
        return True

    def _is_done(self, number: int) -> bool:
        path = self.folder / shard_name(number)
        note_path = path.with_suffix(".json")
        if not (note_path.is_file() and path.is_file()):
            return False
        note = read_json(note_path)
        if note.get("settings") != self.digest:
            raise UsageError(
                f"--out {self.folder}: {path.name} was made with other settings (data, tokenizer, "
                "crops, seed, ...); give another folder or remove it"
            )
        return path.stat().st_size == note.get("bytes")


class ShardTokens:
    """A token source over such a folder; epoch e shows crop e % crops of every image."""

    def __init__(self, folder: Path, tokenizer_sha256: str | None = None):
        """tokenizer_sha256: of the tokenizer that must have made them; None takes any.

        Raises:
            UsageError: no index, a file is missing or has another size, another tokenizer.
        """
        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise UsageError(
                f"--tokens {folder}: no {INDEX} in it; `python -m maskgit.training tokenize` makes "
                "it, or finishes it after it was stopped"
            )
        index = read_json(self.folder / INDEX)
        try:
            if index["format"] != FORMAT:
                raise UsageError(
                    f"{self.folder / INDEX}: format {index['format']!r}, expected {FORMAT}"
                )
            self.settings, self.files = index["settings"], index["files"]
            made_with = self.settings["tokenizer_sha256"]
            self.shard_images = self.settings["shard_images"]
            self.crops, self.num_tokens = self.settings["crops"], self.settings["num_tokens"]
            images, self.num_codes = self.settings["images"], self.settings["num_codes"]
        except (KeyError, TypeError) as error:
            raise UsageError(f"{self.folder / INDEX}: {error} is missing") from None
        if tokenizer_sha256 not in (None, made_with):
            raise UsageError(
                f"--tokens {folder}: made with tokenizer {made_with[:12]}, --tokenizer has "
                f"{str(tokenizer_sha256)[:12]}; run tokenize again"
            )
        for name, file in self.files.items():
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else None
            if size != file["bytes"]:
                found = "missing" if size is None else f"{size} bytes"
                raise UsageError(f"{path}: {found}, expected {file['bytes']} bytes")
        self.labels = self._open(LABELS, (images,)).astype(np.int64)
        self.shards = [
            self._open(shard_name(i), (min(self.shard_images, images - first), *self._row))
            for i, first in enumerate(range(0, images, self.shard_images))
        ]

    @property
    def _row(self) -> tuple[int, int]:
        return self.crops, self.num_tokens

    def _open(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{path}: not a NumPy file ({error})") from error
        if array.shape != shape or array.dtype.kind not in "iu":
            raise UsageError(f"{path}: {array.dtype} {array.shape}, expected integers {shape}")
        return array

    def __len__(self) -> int:
        return len(self.labels)

    def verify(self, process: int = 0, processes: int = 1) -> int:
        """Compare the sha256 of every file (of every `processes`-th) with the index.

        Returns the number of bytes read. Raises UsageError: a file's content is another.
        """
        total = 0
        for name in sorted(self.files)[process::processes]:
            path = self.folder / name
            if (found := sha256_of(path)) != self.files[name]["sha256"]:
                raise UsageError(
                    f"{path}: sha256 {found[:12]}, expected {self.files[name]['sha256'][:12]}; "
                    "remove it with its .json and run tokenize again"
                )
            total += self.files[name]["bytes"]
        return total

    def batch(self, picked: np.ndarray, epoch: np.ndarray | int) -> tuple[Tensor, Tensor]:
        """See maskgit.training.tokens.TokenSource. Raises UsageError: a token is no code."""
        crops = np.broadcast_to(np.asarray(epoch) % self.crops, picked.shape)
        tokens = np.empty((len(picked), self.num_tokens), np.int64)
        for row, (image, crop) in enumerate(zip(picked.tolist(), crops.tolist(), strict=True)):
            shard, place = divmod(image, self.shard_images)
            tokens[row] = self.shards[shard][place, crop]
        if tokens.size and tokens.max() >= self.num_codes:
            row = int(tokens.max(1).argmax())
            shard = int(picked[row]) // self.shard_images
            raise UsageError(
                f"{self.folder / shard_name(shard)}: token {tokens[row].max()}, expected 0 to "
                f"{self.num_codes - 1}"
            )
        return torch.from_numpy(tokens), torch.from_numpy(self.labels[picked])


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _identity(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
