"""The training images as code indices: written by `tokenize`, read by stage 2."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from maskgit.errors import UsageError


def save_tokens(path: Path, tokens: np.ndarray, labels: np.ndarray, tokenizer_sha256: str) -> None:
    """Write tokens uint16 (n, N), labels (n,) and the tokenizer's hash, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        np.savez(file, tokens=tokens, labels=labels, tokenizer=np.array(tokenizer_sha256))
    os.replace(partial, path)


def load_tokens(path: Path, tokenizer_sha256: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens uint16 (n, N) and labels int64 (n,).

    Raises:
        UsageError: the file is missing or broken, or another tokenizer wrote the tokens.
    """
    if not path.is_file():
        raise UsageError(
            f"--tokens {path}: no such file; `python -m maskgit.training tokenize` makes it"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            tokens, labels, sha = archive["tokens"], archive["labels"], str(archive["tokenizer"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"--tokens {path}: not a token file ({error})") from error
    if sha != tokenizer_sha256:
        raise UsageError(
            f"--tokens {path}: made with tokenizer {sha[:12]}, --tokenizer has "
            f"{tokenizer_sha256[:12]}; run tokenize again"
        )
    return tokens, labels.astype(np.int64)
