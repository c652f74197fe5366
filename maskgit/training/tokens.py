"""The training images as code indices: written by `tokenize`, read by stage 2.

Stage 2 takes any token source. `ArrayTokens` holds one small data set in memory (the .npz file of
the embedded benchmark); `maskgit.training.shards.ShardTokens` maps a folder of shards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import output_file


class TokenSource(Protocol):
    """What stage 2 asks of its data."""

    num_tokens: int  # N
    crops: int  # of each image

    def __len__(self) -> int:
        """Images."""
        ...

    def batch(self, picked: np.ndarray, epoch: np.ndarray | int) -> tuple[Tensor, Tensor]:
        """Rows `picked` int64 (b,) in their epoch, an int or int64 (b,); the epoch picks the crop.

        Returns tokens int64 (b, N) and labels int64 (b,), on the CPU.
        """
        ...


class ArrayTokens:
    """Tokens in memory, with one crop an image or several: epoch e shows crop e % crops."""

    def __init__(self, tokens: np.ndarray, labels: np.ndarray):
        """tokens: integers (n, N) or (n, crops, N); labels: integers (n,).

        Raises:
            UsageError: other shapes, or no images.
        """
        if tokens.ndim not in (2, 3) or labels.shape != tokens.shape[:1] or not len(tokens):
            raise UsageError(
                f"tokens {tokens.shape} and labels {labels.shape}: expected (n, N) or "
                "(n, crops, N), and (n,), of at least one image"
            )
        self.tokens = tokens if tokens.ndim == 3 else tokens[:, None]
        self.labels = labels
        self.crops, self.num_tokens = self.tokens.shape[1:]

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, picked: np.ndarray, epoch: np.ndarray | int) -> tuple[Tensor, Tensor]:
        """See TokenSource."""
        tokens = self.tokens[picked, np.asarray(epoch) % self.crops].astype(np.int64)
        return torch.from_numpy(tokens), torch.from_numpy(self.labels[picked].astype(np.int64))


def save_tokens(path: Path, tokens: np.ndarray, labels: np.ndarray, tokenizer_sha256: str) -> None:
    """Write tokens uint16 (n, N), labels (n,) and the tokenizer's hash, whole or not at all."""
    with output_file(path, "--out") as file:
        np.savez(file, tokens=tokens, labels=labels, tokenizer=np.array(tokenizer_sha256))


def load_tokens(path: Path, tokenizer_sha256: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Tokens uint16 (n, N) and labels int64 (n,); tokenizer_sha256=None takes any tokenizer's.

    Raises:
        UsageError: the file is missing or broken, or another tokenizer wrote the tokens.
    """
    if not path.is_file():
        raise UsageError(
            f"--tokens {path}: no such file or folder; `python -m maskgit.training tokenize` "
            "makes it"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            tokens, labels, sha = archive["tokens"], archive["labels"], str(archive["tokenizer"])
    except Exception as error:  # numpy and zipfile raise whatever damaged bytes lead them to
        raise UsageError(f"--tokens {path}: not a token file ({one_line(error)})") from error
    if tokenizer_sha256 not in (None, sha):
        raise UsageError(
            f"--tokens {path}: made with tokenizer {sha[:12]}, --tokenizer has "
            f"{str(tokenizer_sha256)[:12]}; run tokenize again"
        )
    return tokens, labels.astype(np.int64)
