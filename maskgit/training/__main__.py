"""`python -m maskgit.training tokenizer|tokenize|transformer|transformers|autoregressive|cost`.

    tokenizer       stage 1; writes RUN/checkpoint.pt while it runs, and the weights to --out
    tokenize        the training images as code indices, once, for stage 2
    transformer     stage 2 with the mask schedule --schedule; likewise
    transformers    stage 2 with several mask schedules at once, all on the same batches
    autoregressive  the baseline on the same tokens and budget; likewise
    cost            what a training run would take on given GPUs; trains nothing

The same command goes on from the last checkpoint. Several GPUs: `accelerate launch -m
maskgit.training ...`; on a cluster `python -m slurm.train --slurm NAME -- ...` (docs/slurm.md).
Progress goes to stderr, TensorBoard files and sample grids to RUN. docs/training.md has the way
from a folder of images to weights.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from maskgit.checkpoints.paths import model_path
from maskgit.common.cli import exit_code, parse
from maskgit.common.errors import UsageError
from maskgit.data.registry import data_set
from maskgit.presets import Preset, load_preset
from maskgit.training.settings import RunOptions


@dataclass(frozen=True)
class Common:
    """Options of all commands."""

    preset: str = "embedded"
    data: Path | None = None
    """embedded: folder with the IDX files (default: where Debian's package or torchvision's
    download puts them); other presets: folder with train/ and val/, a folder for each class."""
    seed: int = 0
    workers: int = 0
    """Processes that decode images, for each training process."""
    threads: int | None = None
    """CPU threads; default: all cores."""


@dataclass(frozen=True)
class TrainingCommand(Common):
    """Options of the commands that train."""

    runs: Path = Path("runs/training")
    """Checkpoints, TensorBoard files and sample grids go to a folder below this one."""
    precision: str = "auto"
    """auto, fp32 or bf16; auto is bf16 on a GPU and fp32 elsewhere."""
    steps: int | None = None
    """Optimiser steps; default: the preset's budget."""
    epochs: float | None = None
    """Instead of --steps: passes over the training images."""
    batch_size: int | None = None
    """Images a step over all processes; default: the preset's."""
    accumulate: int = 1
    """Slices of the batch that a process takes one after the other: less memory, the same step."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, one more forward pass."""
    learning_rate: float | None = None
    checkpoint_every: int = 500
    validate_every: int = 500
    log_every: int = 20
    stop_at: int | None = None
    """Leave after this step with the checkpoint of the last one saved (to try out a resume)."""


@dataclass(frozen=True)
class TokenizerCommand(TrainingCommand):
    """Train the tokenizer (stage 1)."""

    out: Path | None = None
    """Folder for the finished weights; default: runs/weights/tokenizer for the preset embedded,
    runs/PRESET/weights/tokenizer for the others."""
    perceptual: bool = True
    """--no-perceptual goes without the perceptual loss."""


@dataclass(frozen=True)
class TokenizeCommand(Common):
    """Turn the training images into code indices."""

    tokenizer: Path | None = None
    """Folder or official file; default: where `tokenizer` writes."""
    out: Path | None = None
    """A folder of shards, or one file if it ends in .npz; default: runs/tokens/train.npz for the
    preset embedded, runs/tokens/PRESET for the others."""
    split: str = "train"
    """train or val."""
    crops: int | None = None
    """Random crops of each image; default: 10 where the preset augments, else 1."""
    shard_images: int = 4096
    """Images in one file."""
    batch_size: int = 64
    """Speed only."""
    part: str | None = None
    """K/N: make every N-th shard, from K = 0; default: what accelerate launch or torchrun say."""
    verify: bool = False
    """Only compare the files in --out with their checksums."""


@dataclass(frozen=True)
class OnTokens(TrainingCommand):
    """Options of the two commands that train on tokens."""

    heads: int | None = None
    """Attention heads; default: the preset's. The paper prints 8, the released weights have 16."""
    tokens: Path | None = None
    """What `tokenize` wrote; default: where it writes."""
    val_tokens: Path | None = None
    """What `tokenize --split val` wrote, for the validation; else images of --data are encoded."""
    tokenizer: Path | None = None
    """For the sample grids and the validation; default: where `tokenizer` writes, or nowhere."""
    verify: bool = True
    """--no-verify starts without comparing the shards with their checksums."""
    compile: bool = False
    """Compile the network (torch.compile): needs a C++ compiler, and time at the start."""


@dataclass(frozen=True)
class TransformerCommand(OnTokens):
    """Train the transformer (stage 2)."""

    schedule: str = "cosine"
    """Mask schedule, in training as in decoding."""
    out: Path | None = None
    """Folder for the finished weights; default: transformer-SCHEDULE beside the tokenizer's."""
    min_mask_ratio: float | None = None
    """Lower bound of the mask ratio in training; default: the preset's (official: 0.5)."""


@dataclass(frozen=True)
class TransformersCommand(OnTokens):
    """Train the transformer with several mask schedules at once (stage 2 of an ablation)."""

    schedules: str = "all"
    """Names with commas between them; all: the preset's, which are those of the paper's Table 3."""
    out: Path | None = None
    """The weights go to transformer-SCHEDULE in this folder; default: beside the tokenizer's."""
    min_mask_ratio: float | None = None
    """As of `transformer`."""


@dataclass(frozen=True)
class AutoregressiveCommand(OnTokens):
    """Train the autoregressive baseline, with the transformer's budget."""

    out: Path | None = None
    """Folder for the finished weights; default: autoregressive beside the tokenizer's."""
    label_smoothing: float | None = None
    """Default: the preset's, as for the transformer."""


@dataclass(frozen=True)
class CostCommand:
    """Print what training would take: counted FLOPs over the GPUs' peak and a utilisation."""

    preset: str = "imagenet256"
    gpu: str = "a100"
    count: int = 8
    utilisation: float = 0.4
    """Share of the GPU's bf16 peak that training reaches; an assumption unless you measured it."""
    epochs: float | None = None
    """Of stage 2; default: the preset's (the paper's 300 for ImageNet)."""
    heads: int | None = None
    crops: int = 10
    """Of each image, in `tokenize`."""
    checkpoint_activations: bool = False


Command = (
    Annotated[TokenizerCommand, tyro.conf.subcommand("tokenizer")]
    | Annotated[TokenizeCommand, tyro.conf.subcommand("tokenize")]
    | Annotated[TransformerCommand, tyro.conf.subcommand("transformer")]
    | Annotated[TransformersCommand, tyro.conf.subcommand("transformers")]
    | Annotated[AutoregressiveCommand, tyro.conf.subcommand("autoregressive")]
    | Annotated[CostCommand, tyro.conf.subcommand("cost")]
)


def run(command: Command) -> None:
    """Do what the command line asks."""
    if isinstance(command, CostCommand):
        from maskgit.training.cost import print_cost

        print_cost(**vars(command))
        return
    if command.threads is not None:
        if command.threads < 1:
            raise UsageError(f"--threads {command.threads}: expected 1 or more")
        import torch

        torch.set_num_threads(command.threads)
    if command.workers < 0:
        raise UsageError(f"--workers {command.workers}: expected 0 or more")
    if isinstance(command, TokenizeCommand):
        _tokenize(command)
    else:
        _train(command)


def _tokenize(command: TokenizeCommand) -> None:
    from maskgit.training.tokenize import TokenizeOptions, share_of_work, tokenize, verify_tokens

    preset = load_preset(command.preset)
    out = command.out or _tokens(preset, command.split)
    if command.verify:
        verify_tokens(out)
        return
    process, processes = share_of_work(command.part)
    options = TokenizeOptions(
        process=process, processes=processes, **_shared(TokenizeOptions, command)
    )
    tokenizer = command.tokenizer or _find_tokenizer(preset)
    tokenize(preset, command.data, tokenizer, out, options)


def _shared(options: type, command: Common) -> dict[str, Any]:
    """The flags that are fields of a class of options, by name."""
    names = {item.name for item in fields(options)}
    return {name: value for name, value in vars(command).items() if name in names}


def _tokens(preset: Preset, split: str) -> Path:
    """Where `tokenize` writes by default."""
    if data_set(preset).one_file:
        return Path("runs/tokens") / (preset.runs_folder or "") / f"{split}.npz"
    return Path("runs/tokens") / (preset.name if split == "train" else f"{preset.name}-{split}")


def _find_tokenizer(preset: Preset) -> Path:
    """The tokenizer trained here, else the official one if it was fetched."""
    own = preset.weights_folder / "tokenizer"
    return own if own.is_dir() or not preset.official else model_path(preset, "tokenizer")


def _train(
    command: TokenizerCommand | TransformerCommand | TransformersCommand | AutoregressiveCommand,
) -> None:
    from maskgit.training import commands

    name = {
        TokenizerCommand: "tokenizer",
        TransformerCommand: f"transformer-{getattr(command, 'schedule', '')}",
        TransformersCommand: f"transformers-{getattr(command, 'schedules', '')}".replace(",", "-"),
        AutoregressiveCommand: "autoregressive",
    }[type(command)]
    preset = load_preset(command.preset, getattr(command, "heads", None))
    field = "tokenizer_training" if name == "tokenizer" else "transformer_training"
    preset = replace(preset, **{field: replace(getattr(preset, field), **_changes(command))})
    options = RunOptions(run_dir=command.runs / preset.name / name, **_shared(RunOptions, command))
    out = command.out or preset.weights_folder / name
    typed = shlex.join(["python", "-m", "maskgit.training", *sys.argv[1:]])
    if isinstance(command, TokenizerCommand):
        if not command.perceptual:
            loss = replace(preset.tokenizer_loss, perceptual=0.0)
            preset = replace(preset, tokenizer_loss=loss)
        commands.train_tokenizer(preset, options, command.data, out, typed, epochs=command.epochs)
        return
    tokenizer = command.tokenizer
    if tokenizer is None:
        with suppress(UsageError):  # only pictures and the validation on images need it
            tokenizer = _find_tokenizer(preset)
    inputs = commands.TokenData(**_shared(commands.TokenData, command))
    inputs = replace(inputs, tokens=command.tokens or _tokens(preset, "train"), tokenizer=tokenizer)
    if isinstance(command, AutoregressiveCommand):
        smoothing = command.label_smoothing
        smoothing = preset.label_smoothing if smoothing is None else smoothing
        if not 0.0 <= smoothing < 1.0:
            raise UsageError(f"--label-smoothing {smoothing}: expected a number in [0, 1)")
        preset = replace(preset, label_smoothing=smoothing)
        commands.train_autoregressive(preset, options, inputs, out, typed)
        return
    ratio = command.min_mask_ratio
    ratio = preset.min_mask_ratio if ratio is None else ratio
    if isinstance(command, TransformersCommand):
        out = command.out or preset.weights_folder
        commands.train_transformers(preset, options, inputs, command.schedules, out, ratio, typed)
        return
    commands.train_transformer(preset, options, inputs, command.schedule, out, ratio, typed)


def _changes(command: TrainingCommand) -> dict[str, float]:
    """The budget's fields that the command line sets; raises UsageError for a bad number."""
    changes = {
        name: value
        for name in ("steps", "batch_size", "learning_rate")
        if (value := getattr(command, name)) is not None
    }
    positive = ("epochs", "accumulate", "checkpoint_every", "validate_every", "log_every")
    for name, value in [*changes.items(), *((n, getattr(command, n)) for n in positive)]:
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if command.steps is not None and command.epochs is not None:
        raise UsageError(f"--steps {command.steps}, --epochs {command.epochs}: expected only one")
    if command.precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision {command.precision}: expected auto, fp32 or bf16")
    return changes


def refuse_slurm(words: list[str]) -> None:
    """Name the command that submits this training, where --slurm asks for it.

    Raises:
        UsageError: --slurm or --slurm-set is among the words of the command line.
    """
    flags, rest, waiting = [], [], list(words)
    placeholders = {"--slurm": "PROFILE", "--slurm-set": "KEY=VALUE"}
    while waiting:
        name, equals, value = waiting.pop(0).partition("=")
        if name not in placeholders:
            rest.append(name + equals + value)
            continue
        if not equals and waiting and not waiting[0].startswith("-"):
            value = waiting.pop(0)
        flags += [name, value or placeholders[name]]
    if not flags:
        return
    if "--slurm" not in flags:
        flags = ["--slurm", placeholders["--slurm"], *flags]
    for number, word in enumerate(rest):  # the job's log goes where the checkpoints go
        if word.partition("=")[0] == "--runs":
            flags += rest[number : number + (1 if "=" in word else 2)]
    command = shlex.join(["python", "-m", "slurm.train", *flags, "--", *rest])
    raise UsageError(f"--slurm: expected none here; `{command}` submits this training")


def main() -> None:
    """Parse the command line; one line and exit code 2 for bad input."""

    def command() -> None:
        refuse_slurm(sys.argv[1:])
        run(parse(Command, sys.argv[1:], "python -m maskgit.training", __doc__))

    if code := exit_code(command, "stopped; the same command goes on from the last checkpoint"):
        sys.exit(code)


if __name__ == "__main__":
    main()
