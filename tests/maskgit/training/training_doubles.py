"""Tiny presets and stages for the tests of training, and runs of them in other processes."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from maskgit.data.source import ArrayImages
from maskgit.model.config import TokenizerConfig, TransformerShape
from maskgit.model.tokenizer import Tokenizer
from maskgit.presets import load_preset
from maskgit.training.loop import Trainer
from maskgit.training.settings import Optimisation, RunOptions, TokenizerLoss
from maskgit.training.stage1 import TokenizerStage
from maskgit.training.stage2 import TransformerStage
from maskgit.training.tokens import ArrayTokens

STEPS = 8
# Sorted WordNet ids are ImageNet's class order; made on disk in another order.
CLASSES = {"n02123045": 281, "n01440764": 0, "n03028079": 497}


def make_folder(root, per_class=4, split="train", size=(40, 30), classes=None):
    """JPEGs in class folders: their mean red tells the class, their pixels are noise."""
    rng = np.random.default_rng(0)
    for name, number in (classes or CLASSES).items():
        folder = Path(root) / split / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 100, (size[1], size[0], 3))
            pixels[..., 0] += number // 4
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.JPEG", quality=95)
    return root


def tiny_preset(dropout=0.1, batch=6, rate=3e-3, **loss):
    """8x8 images, 16 tokens of 16 codes, three classes, networks of a few thousand parameters."""
    base = load_preset("embedded")
    return replace(
        base,
        num_classes=3,
        image_size=8,
        tokenizer=TokenizerConfig(1, 8, (1, 1), 1, 16, 4, 4),
        tokenizer_loss=TokenizerLoss(perceptual=0.0, **({"adversarial": 0.0} | loss)),
        tokenizer_training=Optimisation(STEPS, batch, rate, warmup_steps=2, ema=0.9),
        transformer=TransformerShape(16, 2, 2, 32, dropout=dropout),
        transformer_training=Optimisation(
            STEPS, batch, rate, warmup_steps=2, ema=0.9, decay="cosine"
        ),
    )


def images(count=20):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), np.uint8)


def tokens(count=20, crops=2):
    rng = np.random.default_rng(1)
    return ArrayTokens(
        rng.integers(0, 16, (count, crops, 16)).astype(np.uint16), np.arange(count) % 3
    )


def run_options(run_dir, **more):
    return RunOptions(
        **{"run_dir": Path(run_dir), "log_every": 1, "checkpoint_every": 3, "validate_every": 8}
        | more
    )


def make_stage(kind, preset, options):
    precision = "bf16" if options.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    if kind == "tokenizer":
        return TokenizerStage(
            preset, ArrayImages(images()), ArrayImages(images(10)), accelerator, options
        )
    torch.manual_seed(5)
    tokenizer = Tokenizer(preset.tokenizer).eval()
    return TransformerStage(
        preset, tokens(), tokens(10), tokenizer, accelerator, options, schedule="cosine"
    )


def recorded(kind, run_dir, preset=None, *, log=None, kill_at=None, **options):
    """Train, or go on, and return every step's values and the averaged weights.

    log: file for a JSON line a step; kill_at: SIGKILL to this very process before that step.
    """
    preset = preset or tiny_preset()
    options = run_options(run_dir, **options)
    stage = make_stage(kind, preset, options)
    values = {}
    inner = stage.step

    def step(number):
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        scalars = inner(number)
        values[number] = {k: float(v) for k, v in scalars.items()}
        if log is not None and stage.accelerator.is_main_process:
            with open(log, "a") as file:
                print(json.dumps([number, values[number]]), file=file)
        return scalars

    stage.step = step
    budget = getattr(preset, f"{kind}_training")
    trainer = Trainer(stage, budget, options, {"kind": kind})
    results = trainer.fit()
    return values, trainer.average.values, results


def read_log(path):
    """What `log` wrote: {step: values}, the last run of a step counts."""
    return {int(n): v for n, v in map(json.loads, Path(path).read_text().splitlines())}


def worker(rank, world, port, jobs):
    """One of `world` processes; jobs: (kind, keyword arguments of `recorded`, loss of the preset).

    Started with the forkserver method, so that torch is imported once for all of them.
    """
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    for kind, arguments, preset in jobs:
        recorded(kind, preset=tiny_preset(**preset), **arguments)
    if world > 1:
        torch.distributed.destroy_process_group()
