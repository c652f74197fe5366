"""`python -m maskgit.training tokenizer|tokenize|transformer --preset embedded`.

    tokenizer    stage 1; writes RUN/checkpoint.pt while it runs, and the weights to --out
    tokenize     the training images as code indices, once, for stage 2
    transformer  stage 2 with the mask schedule --schedule; likewise

The same command goes on from the last checkpoint. Several GPUs: `accelerate launch -m
maskgit.training ...`. Progress goes to stderr, TensorBoard files and sample grids to RUN.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from maskgit.errors import UsageError


@dataclass(frozen=True)
class Common:
    """Options of all three commands."""

    preset: str = "embedded"
    data: Path | None = None
    """Folder with the data; default: where Debian's package or torchvision's download puts them."""
    runs: Path = Path("runs/training")
    """Checkpoints, TensorBoard files and sample grids go to a folder below this one."""
    seed: int = 0
    precision: str = "auto"
    """auto, fp32 or bf16; auto is bf16 on a GPU and fp32 elsewhere."""
    steps: int | None = None
    """Optimiser steps; default: the preset's budget."""
    batch_size: int | None = None
    """Images a step over all processes; default: the preset's."""
    learning_rate: float | None = None
    checkpoint_every: int = 500
    validate_every: int = 500
    log_every: int = 20
    stop_at: int | None = None
    """Leave after this step with the checkpoint of the last one saved (to try out a resume)."""
    threads: int | None = None
    """CPU threads; default: all cores."""


@dataclass(frozen=True)
class TokenizerCommand(Common):
    """Train the tokenizer (stage 1)."""

    out: Path = Path("runs/weights/tokenizer")
    """Folder for the finished weights."""


@dataclass(frozen=True)
class TokenizeCommand(Common):
    """Turn the training images into code indices."""

    tokenizer: Path = Path("runs/weights/tokenizer")
    out: Path = Path("runs/tokens/train.npz")


@dataclass(frozen=True)
class TransformerCommand(Common):
    """Train the transformer (stage 2)."""

    schedule: str = "cosine"
    """Mask schedule, in training as in decoding."""
    tokens: Path = Path("runs/tokens/train.npz")
    """What `tokenize` wrote."""
    tokenizer: Path = Path("runs/weights/tokenizer")
    """For the sample grids and the validation."""
    out: Path | None = None
    """Folder for the finished weights; default: runs/weights/transformer-SCHEDULE."""
    min_mask_ratio: float = 0.0
    """Lower bound of the mask ratio in training; the official configuration has 0.5."""


Command = (
    Annotated[TokenizerCommand, tyro.conf.subcommand("tokenizer")]
    | Annotated[TokenizeCommand, tyro.conf.subcommand("tokenize")]
    | Annotated[TransformerCommand, tyro.conf.subcommand("transformer")]
)


def run(command: Command) -> None:
    """Do what the command line asks."""
    import torch

    from maskgit.presets import get_preset
    from maskgit.training import commands
    from maskgit.training.loop import RunOptions

    if command.threads:
        torch.set_num_threads(command.threads)
    preset = get_preset(command.preset)
    changes = {
        k: getattr(command, k)
        for k in ("steps", "batch_size", "learning_rate")
        if getattr(command, k) is not None
    }
    for name, value in changes.items():
        if value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if command.precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision {command.precision}: expected auto, fp32 or bf16")
    stage = "tokenizer" if isinstance(command, TokenizerCommand) else "transformer"
    name = stage
    if isinstance(command, TransformerCommand):
        name = f"transformer-{command.schedule}"
    options = RunOptions(
        run_dir=command.runs / command.preset / name,
        seed=command.seed,
        precision=command.precision,
        checkpoint_every=command.checkpoint_every,
        validate_every=command.validate_every,
        log_every=command.log_every,
        stop_at=command.stop_at,
    )
    field = f"{stage}_training"
    preset = replace(preset, **{field: replace(getattr(preset, field), **changes)})
    typed = shlex.join(["python", "-m", "maskgit.training", *sys.argv[1:]])
    if isinstance(command, TokenizerCommand):
        commands.train_tokenizer(preset, options, command.data, command.out, typed)
    elif isinstance(command, TokenizeCommand):
        commands.tokenize(preset, command.data, command.tokenizer, command.out)
    else:
        out = command.out or Path("runs/weights") / f"transformer-{command.schedule}"
        commands.train_transformer(
            preset,
            options,
            command.data,
            command.schedule,
            command.tokens,
            command.tokenizer,
            out,
            command.min_mask_ratio,
            typed,
        )


def main() -> None:
    """Parse the command line; one line and exit code 2 for bad input."""
    try:
        run(tyro.cli(Command, prog="python -m maskgit.training", description=__doc__))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
