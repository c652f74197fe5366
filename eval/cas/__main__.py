"""Classification Accuracy Score: train a classifier on samples, validate it on real images.

    python -m eval.cas samples.npz --real-train train/ --validation val/

The result goes to stdout as JSON, progress to stderr. A command that was interrupted goes on from
its last checkpoint when it is given again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from eval.cas.data import labelled
from eval.cas.recipe import get_recipe
from eval.cas.score import classification_accuracy
from eval.console import command_line, progress_bar
from maskgit.common.device import resolve_device
from maskgit.common.errors import UsageError
from maskgit.common.files import cache_folder


def parse_seeds(words: Sequence[str]) -> list[int]:
    """Numbers from `0,1,2`, or from several words."""
    text = ",".join(words)
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text}: expected whole numbers, as in 0,1,2") from None


def run(
    samples: tyro.conf.Positional[str],
    validation: str,
    real_train: str | None = None,
    recipe: str = "auto",
    epochs: int | None = None,
    batch_size: int | None = None,
    rate: float | None = None,
    stem: str | None = None,
    randaugment: bool = False,
    seeds: tuple[str, ...] = ("0",),
    out: Path | None = None,
    pad: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
) -> None:
    """Train a ResNet-50 on samples, validate it on real images, and compare with real training.

    Args:
        samples: generated images with classes: npz with arr_0 and arr_1, folder of class folders.
        validation: real images to validate on, likewise; IDX images beside their labels too.
        real_train: real images to train on in the same way, for comparison.
        recipe: short (16 epochs), long (90), embedded (small images, two cores), or auto.
        epochs: overrides the recipe's.
        batch_size: overrides the recipe's; the learning rate follows in proportion.
        rate: overrides the recipe's highest learning rate, for a batch of 256.
        stem: overrides the recipe's: imagenet, or a 3x3 convolution that leaves 1/4 of the side
            (stride-4, with a max pool), 1/2 (stride-2) or all of it (stride-1).
        randaugment: RandAugment too.
        seeds: of the trainings, as in 0,1,2; results are means over them.
        out: folder for checkpoints and results; default: cas/ below $MASKGIT_BENCH_CACHE or
            ~/.cache/maskgit-bench.
        pad: put every image in the middle of a black square of this size (28x28 digits: 32).
        device: torch device; auto takes a GPU if there is one.
        threads: of torch on a CPU; results are the same only with the same threads.
        workers: processes that load images from files; changes no number.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads {threads}: at least 1 is needed")
        torch.set_num_threads(threads)
    sets = [
        labelled(where, what=what, pad=pad)
        for where, what in ((samples, "samples"), (validation, "--validation"))
    ]
    if real_train is not None:
        sets.append(labelled(real_train, what="--real-train", pad=pad))
    chosen = get_recipe(
        recipe, max(sets[0][0].shape[:2]), epochs=epochs, batch_size=batch_size, rate=rate,
        stem=stem, randaugment=randaugment or None,
    )  # fmt: skip
    with progress_bar() as progress:
        result = classification_accuracy(
            *sets, recipe=chosen, seeds=parse_seeds(seeds),
            out=cache_folder() / "cas" if out is None else out,
            device=resolve_device(device), workers=workers, progress=progress,
        )  # fmt: skip
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result, indent=2))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return command_line(
        run,
        arguments,
        "python -m eval.cas",
        __doc__,
        "interrupted: the same command goes on from there",
    )


if __name__ == "__main__":
    sys.exit(main())
