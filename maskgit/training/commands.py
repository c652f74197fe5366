"""What the three commands of `python -m maskgit.training` do, without the command line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from maskgit.data import load_split
from maskgit.errors import UsageError
from maskgit.presets import Preset
from maskgit.training.card import make_card, write_card
from maskgit.training.loop import RunOptions, Trainer


def _accelerator(precision: str) -> Accelerator:
    # The quantiser's softmax of -distance / 0.01 underflows; a CPU can be slow on denormals.
    torch.set_flush_denormal(True)
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "fp32"
    return Accelerator(
        mixed_precision={"fp32": "no", "bf16": "bf16"}[precision],
        cpu=not torch.cuda.is_available(),
    )


def train_tokenizer(
    preset: Preset, options: RunOptions, data: Path | None, out: Path, command: str
) -> None:
    """Train stage 1 and export the averaged weights to the folder `out`."""
    from maskgit.checkpoints import save_model
    from maskgit.training.stage1 import TokenizerStage

    accelerator = _accelerator(options.precision)
    train, test = load_split("train", data)[0], load_split("test", data)[0]
    perceptual = None
    if preset.tokenizer_loss.perceptual:
        from maskgit.perceptual import PerceptualLoss

        perceptual = PerceptualLoss().to(accelerator.device)
    stage = TokenizerStage(preset, train, test, accelerator, options, perceptual)
    config = {"stage": "tokenizer", "model": asdict(preset.tokenizer)}
    config["loss"] = asdict(preset.tokenizer_loss)
    trainer = Trainer(stage, preset.tokenizer_training, options, config)
    results = trainer.fit()
    if accelerator.is_main_process and options.stop_at is None:
        with trainer.average.swapped(stage.tokenizer):
            save_model(out, stage.tokenizer, half=True)
        write_card(out, make_card(preset, "tokenizer", trainer, results, command=command))


def tokenize(preset: Preset, data: Path | None, tokenizer_path: Path, out: Path) -> None:
    """Encode the training images; writes indices uint16 (n, N), labels and the weights' hash."""
    from maskgit.checkpoints import load_tokenizer, weights_sha256
    from maskgit.training.images import to_tensor
    from maskgit.training.tokens import save_tokens

    tokenizer = load_tokenizer(tokenizer_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = tokenizer.eval().to(device)
    tokenizer.to(memory_format=torch.channels_last)
    images, labels = load_split("train", data)
    parts = []
    for i in range(0, len(images), 250):
        indices = tokenizer.encode(to_tensor(images[i : i + 250]).to(device))
        parts.append(indices.flatten(1).cpu().numpy().astype(np.uint16))
    tokens = np.concatenate(parts)
    if tokens.shape[1] != preset.num_tokens:
        raise UsageError(
            f"--tokenizer {tokenizer_path}: {tokens.shape[1]} tokens an image, the preset "
            f"{preset.name} has {preset.num_tokens}"
        )
    save_tokens(out, tokens, labels, weights_sha256(tokenizer_path))


def train_transformer(
    preset: Preset,
    options: RunOptions,
    data: Path | None,
    schedule: str,
    tokens_path: Path,
    tokenizer_path: Path,
    out: Path,
    min_mask_ratio: float,
    command: str,
) -> None:
    """Train stage 2 with a mask schedule and export the averaged weights to the folder `out`."""
    from maskgit.checkpoints import load_tokenizer, save_model, weights_sha256
    from maskgit.schedules import validate
    from maskgit.training.stage2 import TransformerStage
    from maskgit.training.tokens import load_tokens

    validate(schedule)
    if not 0.0 <= min_mask_ratio < 1.0:
        raise UsageError(f"--min-mask-ratio {min_mask_ratio}: expected a number in [0, 1)")
    accelerator = _accelerator(options.precision)
    tokenizer = load_tokenizer(tokenizer_path).eval()
    sha = weights_sha256(tokenizer_path)
    tokens, labels = load_tokens(tokens_path, sha)
    test_images, test_labels = load_split("test", data)
    stage = TransformerStage(
        preset,
        schedule,
        (tokens, labels),
        (test_images, test_labels),
        tokenizer,
        accelerator,
        options,
        min_mask_ratio,
    )
    config = {
        "stage": "transformer",
        "model": asdict(preset.transformer),
        "schedule": schedule,
        "min_mask_ratio": min_mask_ratio,
        "label_smoothing": preset.label_smoothing,
        "tokenizer": sha,
    }
    trainer = Trainer(stage, preset.transformer_training, options, config)
    results = trainer.fit()
    if accelerator.is_main_process and options.stop_at is None:
        with trainer.average.swapped(stage.transformer):
            save_model(out, stage.transformer, half=True)
        more = {"schedule": schedule, "tokenizer_sha256": sha, "command": command}
        write_card(out, make_card(preset, "transformer", trainer, results, **more))
