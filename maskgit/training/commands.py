"""What the training commands of `python -m maskgit.training` do, without the command line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn

from maskgit.checkpoints import load_tokenizer, save_model, weights_sha256
from maskgit.common.errors import UsageError
from maskgit.data.image_folder import check_same_classes
from maskgit.data.registry import data_set, open_split
from maskgit.model.perceptual import PerceptualLoss
from maskgit.model.tokenizer import Tokenizer
from maskgit.presets import Preset
from maskgit.schedules import validate
from maskgit.training.autoregressive import AutoregressiveStage
from maskgit.training.card import make_card, write_card
from maskgit.training.joint import JointStage
from maskgit.training.loop import Trainer
from maskgit.training.settings import RunOptions
from maskgit.training.shards import ShardTokens
from maskgit.training.stage1 import TokenizerStage
from maskgit.training.stage2 import TransformerStage
from maskgit.training.token_stage import VALIDATION_IMAGES, TokenStage
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
    accelerator = make_accelerator(options.precision)
    size = preset.crop_size
    train, test = (
        open_split(preset, data, split, size=size, seed=options.seed, augment=True)
        for split in ("train", "val")
    )
    check_same_classes(train, test)
    about = data_set(preset).about(len(train), None)
    preset = for_epochs(preset, "tokenizer", epochs, len(train))
    perceptual = None
    if preset.tokenizer_loss.perceptual:
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
    with _exporting(trainer):
        more = {"data": about, "command": command}
        _export(preset, "tokenizer", trainer, stage.tokenizer, results, out, more)


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
    validate(schedule)
    settings = {"schedule": schedule, "min_mask_ratio": _checked(min_mask_ratio)}
    _train_on_tokens(TransformerStage, preset, options, inputs, out, command, settings)


def train_transformers(
    preset: Preset,
    options: RunOptions,
    inputs: TokenData,
    schedules: str,
    out: Path,
    min_mask_ratio: float,
    command: str,
) -> None:
    """Train stage 2 with several mask schedules at once, into out/transformer-SCHEDULE each.

    schedules: names with commas between them, or "all" for those of the preset.
    """
    names = preset.schedules if schedules == "all" else tuple(dict.fromkeys(schedules.split(",")))
    for name in names:
        validate(name)
    settings = {"schedules": names, "min_mask_ratio": _checked(min_mask_ratio)}
    _train_on_tokens(JointStage, preset, options, inputs, out, command, settings)


def _checked(min_mask_ratio: float) -> float:
    if not 0.0 <= min_mask_ratio < 1.0:
        raise UsageError(f"--min-mask-ratio {min_mask_ratio}: expected a number in [0, 1)")
    return min_mask_ratio


def train_autoregressive(
    preset: Preset, options: RunOptions, inputs: TokenData, out: Path, command: str
) -> None:
    """Train the autoregressive baseline and export the averaged weights to the folder `out`."""
    _train_on_tokens(AutoregressiveStage, preset, options, inputs, out, command, {})


@flushed_denormals()
def _train_on_tokens(
    kind: type[TokenStage],
    preset: Preset,
    options: RunOptions,
    inputs: TokenData,
    out: Path,
    command: str,
    settings: dict[str, Any],
) -> None:
    """Open the tokens, train a stage of that kind, export the weights.

    settings: what the stage takes besides data and options; a checkpoint must agree with them.
    """
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
    stage = kind(preset, train, held_out, tokenizer, accelerator, options, **settings)
    config = {
        "stage": stage.averaged,
        "model": asdict(preset.transformer),
        "label_smoothing": preset.label_smoothing,
        "tokenizer": sha,
        **settings,
    }
    trainer = Trainer(stage, preset.transformer_training, options, config)
    results = trainer.fit()
    more = {
        "data": data_set(preset).about(len(train), train.crops),
        "command": command,
        "tokenizer_sha256": sha,
    }
    with _exporting(trainer):
        if isinstance(stage, JointStage):
            for schedule, network in zip(stage.schedules, stage.model.networks, strict=True):
                end = f"/{schedule}"
                own = {k.removesuffix(end): v for k, v in results.items() if k.endswith(end)}
                about = {**more, "schedule": schedule}
                folder = out / f"transformer-{schedule}"
                _export(preset, "transformer", trainer, network, own, folder, about)
        else:
            if "schedule" in settings:
                more["schedule"] = settings["schedule"]
            _export(preset, stage.averaged, trainer, stage.model, results, out, more)


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
    if inputs.val_tokens is not None:
        return open_tokens(inputs.val_tokens, preset, sha, inputs.verify, accelerator)
    ships = "val" in data_set(preset).ships
    if tokenizer is None or (not (inputs.data or preset.path or ships)):
        if accelerator.is_main_process:
            print("no --val-tokens, and no --data with --tokenizer: no validation", file=sys.stderr)
        return None
    source = open_split(preset, inputs.data, "val")
    rows = source.some(VALIDATION_IMAGES)
    return ArrayTokens(encode_images(tokenizer, source, rows), source.labels[rows])


@contextmanager
def _exporting(trainer: Trainer) -> Iterator[None]:
    """The averaged weights are in the network, inside a `with` block."""
    with trainer.average.swapped(trainer.stage.modules[trainer.stage.averaged]):
        yield
    trainer.stage.accelerator.end_training()


def _export(
    preset: Preset,
    stage: str,
    trainer: Trainer,
    model: nn.Module,
    results: dict[str, float],
    out: Path,
    more: dict[str, Any],
) -> None:
    """Write a network and its card; the first process does, unless --stop-at ends the run."""
    if trainer.stage.accelerator.is_main_process and trainer.options.stop_at is None:
        # Weights that travel with the code are stored in float16.
        save_model(out, cast(Any, model), half=preset.ships)
        write_card(out, make_card(preset, stage, trainer, results, **more))
