"""What the training commands of `python -m maskgit.training` do, without the command line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator

from maskgit.common.errors import UsageError
from maskgit.data.fashion_mnist import load_split
from maskgit.data.image_folder import check_same_classes, open_folder
from maskgit.model.tokenizer import Tokenizer
from maskgit.presets import Preset
from maskgit.training.card import EMBEDDED_DATA, make_card, write_card
from maskgit.training.feed import ArrayImages, ImageSource
from maskgit.training.loop import RunOptions, Trainer
from maskgit.training.shards import ShardTokens
from maskgit.training.token_stage import TokenStage, spread
from maskgit.training.tokenize import encode_images
from maskgit.training.tokens import ArrayTokens, TokenSource, load_tokens


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below the smallest normal one count as zero; outside, as before.

    The quantiser's softmax of -distance / 0.01 underflows, and a CPU can be slow on denormals.
    """
    smallest = torch.finfo(torch.float64).tiny
    before = float(torch.tensor(smallest / 2, dtype=torch.float64) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def make_accelerator(precision: str) -> Accelerator:
    """precision: "fp32", "bf16", or "auto" (bf16 where there is a GPU)."""
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "fp32"
    return Accelerator(
        mixed_precision={"fp32": "no", "bf16": "bf16"}[precision],
        cpu=not torch.cuda.is_available(),
    )


def for_epochs(preset: Preset, stage: str, epochs: float | None, images: int) -> Preset:
    """The preset with as many steps of `stage` as `epochs` of so many images take."""
    if epochs is None:
        return preset
    budget = getattr(preset, f"{stage}_training")
    steps = max(1, math.ceil(epochs * images / budget.batch_size))
    return replace(preset, **{f"{stage}_training": replace(budget, steps=steps)})


@flushed_denormals()
def train_tokenizer(
    preset: Preset,
    options: RunOptions,
    data: Path | None,
    out: Path,
    command: str,
    *,
    epochs: float | None = None,
) -> None:
    """Train stage 1 and export the averaged weights to the folder `out`."""
    from maskgit.training.stage1 import TokenizerStage

    accelerator = make_accelerator(options.precision)
    train, test, about = _stage1_images(preset, data, options.seed)
    preset = for_epochs(preset, "tokenizer", epochs, len(train))
    perceptual = None
    if preset.tokenizer_loss.perceptual:
        from maskgit.model.perceptual import PerceptualLoss

        try:
            perceptual = PerceptualLoss().to(accelerator.device)
        except UsageError as error:
            raise UsageError(f"{error}; --no-perceptual goes without this loss") from None
    stage = TokenizerStage(preset, train, test, accelerator, options, perceptual)
    config = {
        "stage": "tokenizer",
        "model": asdict(preset.tokenizer),
        "loss": asdict(preset.tokenizer_loss),
    }
    trainer = Trainer(stage, preset.tokenizer_training, options, config)
    results = trainer.fit()
    _export(preset, "tokenizer", trainer, results, out, {"data": about, "command": command})


def _stage1_images(
    preset: Preset, data: Path | None, seed: int
) -> tuple[ImageSource, ImageSource, str]:
    """Training images, held-out images, and one line about them for the card."""
    if preset.data != "imagefolder":
        train, test = (ArrayImages(load_split(split, data)[0]) for split in ("train", "test"))
        return train, test, EMBEDDED_DATA
    size = preset.tokenizer_image_size or preset.image_size
    training, held_out = (
        open_folder(preset, data, split, size=size, seed=seed) for split in ("train", "val")
    )
    check_same_classes(training, held_out)
    return training, held_out, f"image folder, {len(training):,} training images"


@dataclass(frozen=True)
class TokenData:
    """What stage 2 reads; paths are None where the user gave none."""

    tokens: Path
    tokenizer: Path | None = None
    data: Path | None = None
    val_tokens: Path | None = None
    verify: bool = True
    epochs: float | None = None


def train_transformer(
    preset: Preset,
    options: RunOptions,
    inputs: TokenData,
    schedule: str,
    out: Path,
    min_mask_ratio: float,
    command: str,
) -> None:
    """Train stage 2 with a mask schedule and export the averaged weights to the folder `out`."""
    from maskgit.schedules import validate
    from maskgit.training.stage2 import TransformerStage

    validate(schedule)
    if not 0.0 <= min_mask_ratio < 1.0:
        raise UsageError(f"--min-mask-ratio {min_mask_ratio}: expected a number in [0, 1)")

    def build(preset: Preset, accelerator: Accelerator, sets: dict[str, Any]) -> TokenStage:
        return TransformerStage(
            preset,
            schedule,
            accelerator=accelerator,
            options=options,
            min_mask_ratio=min_mask_ratio,
            **sets,
        )

    config = {"schedule": schedule, "min_mask_ratio": min_mask_ratio}
    more = {"schedule": schedule, "command": command}
    _train_on_tokens(preset, options, inputs, out, build, config, more)


def train_autoregressive(
    preset: Preset, options: RunOptions, inputs: TokenData, out: Path, command: str
) -> None:
    """Train the autoregressive baseline and export the averaged weights to the folder `out`."""
    from maskgit.training.autoregressive import AutoregressiveStage

    def build(preset: Preset, accelerator: Accelerator, sets: dict[str, Any]) -> TokenStage:
        return AutoregressiveStage(preset, accelerator=accelerator, options=options, **sets)

    _train_on_tokens(preset, options, inputs, out, build, {}, {"command": command})


@flushed_denormals()
def _train_on_tokens(
    preset: Preset,
    options: RunOptions,
    inputs: TokenData,
    out: Path,
    build: Callable[[Preset, Accelerator, dict[str, Any]], TokenStage],
    config: dict[str, Any],
    more: dict[str, Any],
) -> None:
    """Open the tokens, train the stage that `build` makes of them, export the weights.

    config: what else a checkpoint must agree with; more: what else the card says.
    """
    from maskgit.checkpoints import load_tokenizer, weights_sha256

    accelerator = make_accelerator(options.precision)
    tokenizer = sha = None
    if inputs.tokenizer is not None:
        tokenizer = load_tokenizer(inputs.tokenizer).eval().to(accelerator.device)
        sha = weights_sha256(inputs.tokenizer)
    train = open_tokens(inputs.tokens, preset, sha, inputs.verify, accelerator)
    if isinstance(train, ShardTokens):
        sha = train.settings["tokenizer_sha256"]
    held_out = _held_out(preset, inputs, tokenizer, sha, accelerator)
    preset = for_epochs(preset, "transformer", inputs.epochs, len(train))
    stage = build(
        preset, accelerator, {"train": train, "held_out": held_out, "tokenizer": tokenizer}
    )
    config = {
        "stage": stage.averaged,
        "model": asdict(preset.transformer),
        "label_smoothing": preset.label_smoothing,
        "tokenizer": sha,
        **config,
    }
    trainer = Trainer(stage, preset.transformer_training, options, config)
    results = trainer.fit()
    if isinstance(train, ShardTokens) and preset.data == "imagefolder":
        crops = f"{train.crops} crop{'s' * (train.crops > 1)}"
        more = {**more, "data": f"image folder, {len(train):,} images, {crops} of each, as tokens"}
    _export(preset, stage.averaged, trainer, results, out, {**more, "tokenizer_sha256": sha})


def open_tokens(
    path: Path, preset: Preset, sha: str | None, verify: bool, accelerator: Accelerator
) -> TokenSource:
    """A token file or a folder of shards, checked against the preset.

    Raises UsageError: missing, damaged, of another tokenizer (sha256 `sha`) or of another size.
    """
    source: ArrayTokens | ShardTokens
    if path.is_dir():
        source = ShardTokens(path, sha)
        if verify:  # the processes of a machine share the work
            source.verify(accelerator.local_process_index, _local_world(accelerator))
    else:
        source = ArrayTokens(*load_tokens(path, sha))
    if source.num_tokens != preset.num_tokens:
        raise UsageError(
            f"--tokens {path}: {source.num_tokens} tokens an image, the preset {preset.name} has "
            f"{preset.num_tokens}"
        )
    highest = int(source.labels.max())
    if highest >= preset.num_classes:
        raise UsageError(
            f"--tokens {path}: class {highest}, the preset {preset.name} has {preset.num_classes} "
            "classes"
        )
    return source


def _local_world(accelerator: Accelerator) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))


def _held_out(
    preset: Preset,
    inputs: TokenData,
    tokenizer: Tokenizer | None,
    sha: str | None,
    accelerator: Accelerator,
) -> TokenSource | None:
    """Tokens for the validation, from --val-tokens or some images; None where neither is there."""
    from maskgit.training.stage2 import VALIDATION_IMAGES

    if inputs.val_tokens is not None:
        return open_tokens(inputs.val_tokens, preset, sha, inputs.verify, accelerator)
    folder = preset.data == "imagefolder"
    if tokenizer is None or (folder and inputs.data is None):
        if accelerator.is_main_process:
            print("no --val-tokens, and no --data with --tokenizer: no validation", file=sys.stderr)
        return None
    source: ImageSource
    if folder:
        images = open_folder(preset, inputs.data, "val", size=preset.image_size)
        source, labels = images, images.labels
        rows = spread(len(labels), VALIDATION_IMAGES)
    else:
        pixels, labels = load_split("test", inputs.data)
        source, rows = ArrayImages(pixels), np.arange(VALIDATION_IMAGES)
    return ArrayTokens(encode_images(tokenizer, source, rows), labels[rows])


def _export(
    preset: Preset,
    stage: str,
    trainer: Trainer,
    results: dict[str, float],
    out: Path,
    more: dict[str, Any],
) -> None:
    """Write the averaged weights and their card; the first process does."""
    from maskgit.checkpoints import save_model

    accelerator = trainer.stage.accelerator
    if accelerator.is_main_process and trainer.options.stop_at is None:
        with trainer.average.swapped(trainer.stage.modules[stage]) as model:
            # The shipped weights travel with the code, so they are stored in float16.
            save_model(out, cast(Any, model), half=preset.name == "embedded")
        write_card(out, make_card(preset, stage, trainer, results, **more))
    accelerator.end_training()
