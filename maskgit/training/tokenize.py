"""`python -m maskgit.training tokenize`: the images as code indices, once, for stage 2."""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from maskgit.checkpoints import load_tokenizer, weights_sha256
from maskgit.common.errors import UsageError
from maskgit.data.registry import open_split
from maskgit.data.source import ImageSource
from maskgit.model.tokenizer import Tokenizer
from maskgit.presets import Preset
from maskgit.training.feed import decoded
from maskgit.training.images import to_tensor
from maskgit.training.shards import ShardTokens, ShardWriter
from maskgit.training.tokens import save_tokens


@dataclass(frozen=True)
class TokenizeOptions:
    """How the token set is cut up and who makes what."""

    split: str = "train"
    seed: int = 0
    crops: int | None = None  # of each image; None: 10 where the preset augments, else 1
    shard_images: int = 4096  # 10 crops of 256 tokens: 21 MB a shard
    batch_size: int = 64
    workers: int = 0
    process: int = 0
    processes: int = 1


def share_of_work(part: str | None) -> tuple[int, int]:
    """(process, processes) from --part K/N, or from what torchrun and accelerate launch set."""
    if part is None:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        process, processes = (int(x) for x in part.split("/"))
    except ValueError:
        process = processes = -1
    if not 0 <= process < processes:
        raise UsageError(f"--part {part}: expected K/N with 0 <= K < N, such as 0/8")
    return process, processes


def tokenize(
    preset: Preset,
    data: Path | None,
    tokenizer_path: Path,
    out: Path,
    options: TokenizeOptions | None = None,
) -> None:
    """Encode a split into a folder of shards, or into one file if `out` ends in .npz.

    Raises:
        UsageError: bad options, no images, an image that cannot be read, a tokenizer that does not
            fit the preset, or a folder made with other settings.
    """
    options = options or TokenizeOptions()
    source = open_split(preset, data, options.split, seed=options.seed, augment=True)
    settings = {"preset": preset.name, "split": options.split, **source.settings()}
    augmented = settings["augmentation"] not in (None, "center")
    crops = options.crops or (10 if augmented else 1)
    for name in ("crops", "shard_images", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if crops > 1 and not augmented:
        raise UsageError(f"--crops {crops}: expected 1, these images are not augmented")
    tokenizer = load_tokenizer(tokenizer_path).eval()
    _check_fit(preset, tokenizer, tokenizer_path)
    sha = weights_sha256(tokenizer_path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    tokenizer = tokenizer.to(device).to(memory_format=torch.channels_last)
    if out.suffix == ".npz":
        if crops > 1 or options.processes > 1:
            raise UsageError(f"--out {out}: one file holds one crop and comes from one process")
        tokens = _encode(tokenizer, source, range(len(source)), 1, options)[:, 0]
        save_tokens(out, tokens, source.labels, sha)
        return
    writer = ShardWriter(
        out,
        source.labels,
        {**settings, "tokenizer_sha256": sha, "num_codes": preset.num_codes},
        crops=crops,
        num_tokens=preset.num_tokens,
        shard_images=options.shard_images,
        process=options.process,
        processes=options.processes,
    )
    todo = writer.todo()
    for done, number in enumerate(todo):
        writer.write(number, _encode(tokenizer, source, writer.rows(number), crops, options))
        print(f"{out}: {done + 1} of {len(todo)} shards", file=sys.stderr, flush=True)
    if not writer.finish():
        print(f"{out}: the other processes are not done yet", file=sys.stderr)


def verify_tokens(folder: Path) -> None:
    """Compare every file of a folder of shards with its sha256; raises UsageError."""
    source = ShardTokens(folder)
    count = source.verify()
    print(
        f"{folder}: {len(source)} images, {source.crops} crops, {count} bytes, as recorded",
        file=sys.stderr,
    )


def encode_images(
    tokenizer: Tokenizer, source: ImageSource, rows: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """The images `rows` of a source, without a DataLoader: uint16 (b, N)."""
    device = next(tokenizer.parameters()).device
    parts = []
    for i in range(0, len(rows), batch_size):
        images = to_tensor(source.batch(rows[i : i + batch_size], 0)).to(device)
        parts.append(tokenizer.encode(images).flatten(1).cpu().numpy().astype(np.uint16))
    return np.concatenate(parts)


def _check_fit(preset: Preset, tokenizer: Tokenizer, path: Path) -> None:
    config = tokenizer.config
    for name in ("channels", "num_codes", "downsampling"):
        got, expected = getattr(config, name), getattr(preset.tokenizer, name)
        if got != expected:
            raise UsageError(
                f"--tokenizer {path}: {name} {got}, the preset {preset.name} has {expected}"
            )


def _encode(
    tokenizer: Tokenizer, source: ImageSource, rows: range, crops: int, options: TokenizeOptions
) -> np.ndarray:
    """uint16 (images, crops, N): crop c of an image is that of epoch c."""
    device = next(tokenizer.parameters()).device

    pairs = ((image, crop) for image in rows for crop in range(crops))
    batches = iter(lambda: list(itertools.islice(pairs, options.batch_size)), [])
    parts = []
    for images in decoded(source, batches, options.workers):
        pixels = to_tensor(images).to(device, memory_format=torch.channels_last)
        parts.append(tokenizer.encode(pixels).flatten(1).cpu().numpy().astype(np.uint16))
    return np.concatenate(parts).reshape(len(rows), crops, -1)
