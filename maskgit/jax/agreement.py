"""`python -m maskgit.jax.agreement`: which share of the tokens is the same in torch and JAX.

Both backends draw the same samples with the same noise; what differs is the rounding of the logits,
which now and then moves a draw over the edge between two tokens or swaps two confidences at the
cut. All later iterations of that image may then differ. One line for each schedule and T, the share
of equal tokens among them; exit code 1 if one is below --at-least.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import maskgit.jax
from maskgit import checkpoints
from maskgit.common import cli
from maskgit.common.errors import UsageError
from maskgit.presets import PAPER_SCHEDULES
from maskgit.schedules import validate

if TYPE_CHECKING:
    from maskgit.model.transformer import Transformer


@dataclass(frozen=True)
class Options:
    """Share of equal tokens between the torch and the JAX backend."""

    schedules: str = ""
    """Schedules, with commas between them; default: all seven of the paper."""
    T: str = "8,12"
    """Numbers of iterations, with commas between them."""
    images: int = 1000
    """Images of each schedule and T; their classes take turns."""
    seed: int = 0
    weights: Path | None = None
    """Folder with transformer-SCHEDULE for each schedule; default: the embedded benchmark's."""
    at_least: float = 0.999
    """The share below which the exit code is 1."""


@dataclass(frozen=True)
class Agreement:
    """What `compare` found for one schedule and T."""

    tokens: int  # compared
    equal: int  # of them
    images: int  # compared
    images_different: int  # in at least one token
    logits: float  # largest difference of two logits, over images with half of the tokens masked

    @property
    def share(self) -> float:
        """Of the tokens that are equal, in [0, 1]."""
        return self.equal / self.tokens


def compare(
    ours: Transformer,
    theirs: maskgit.jax.Transformer,
    *,
    steps: int,
    schedule: str,
    images: int,
    seed: int = 0,
) -> Agreement:
    """Draw the same images with torch (`ours`) and with JAX (`theirs`)."""
    import torch

    from maskgit.decoding import generate
    from maskgit.jax.decoding import generate as generate_jax

    labels = torch.arange(images) % ours.config.num_classes
    first = generate(ours, labels, steps=steps, schedule=schedule, seed=seed).numpy()
    second = generate_jax(theirs, labels, steps=steps, schedule=schedule, seed=seed)
    few = min(images, 32)
    half = np.random.default_rng(seed).random((few, first.shape[1])) < 0.5
    inputs = np.where(half, ours.config.mask_id, first[:few])
    classes = ours.config.num_codes + labels[:few].numpy()
    inputs = np.concatenate([classes[:, None], inputs], axis=1)
    with torch.inference_mode():
        logits = ours(torch.from_numpy(inputs)).numpy()
    equal: np.ndarray = first == second
    return Agreement(
        tokens=equal.size,
        equal=int(equal.sum()),
        images=images,
        images_different=int((~equal.all(axis=1)).sum()),
        logits=float(np.abs(logits - np.asarray(theirs(inputs))).max()),
    )


def run(options: Options) -> int:
    """Compare and print; returns the exit code."""
    names = [name for name in options.schedules.split(",") if name] or list(PAPER_SCHEDULES)
    for name in names:
        validate(name)
    try:
        all_steps = [int(text) for text in options.T.split(",")]
    except ValueError:
        raise UsageError(f"--T {options.T}: expected integers with commas, such as 8,12") from None
    if min(all_steps) < 1:
        raise UsageError(f"--T {min(all_steps)}: expected 1 or more")
    if options.images < 1:
        raise UsageError(f"--images {options.images}: expected 1 or more")
    enough = True
    print(f"{'schedule':<12} {'T':>3} {'images':>6} {'different':>9} {'share':>9} {'logits':>8}")
    for name in names:
        folder = f"transformer-{name}"
        path = options.weights / folder if options.weights else checkpoints.zoo_path(folder)
        ours, theirs = checkpoints.load_transformer(path), maskgit.jax.load_transformer(path)
        for steps in all_steps:
            result = compare(
                ours,
                theirs,
                steps=steps,
                schedule=name,
                images=options.images,
                seed=options.seed,
            )
            enough &= result.share >= options.at_least
            print(
                f"{name:<12} {steps:>3} {result.images:>6} {result.images_different:>9} "
                f"{result.share:>9.4%} {result.logits:>8.1e}",
                flush=True,
            )
    return 0 if enough else 1


def main() -> None:
    """Parse the flags, compare, exit."""
    cli.main(run, Options, "python -m maskgit.jax.agreement", __doc__)


if __name__ == "__main__":
    main()
