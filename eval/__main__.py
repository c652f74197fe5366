"""Measure a folder or array of images.

    python -m eval samples/ --reference fashion-mnist-train --features fashion-resnet
    python -m eval a.npz --reference b/ --metrics fid,precision-recall --features
    efficientnet-lite0 --json

A table (or JSON with --json) goes to stdout, progress to stderr. Exit code 2: input that cannot
be measured.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import tyro

from eval.errors import UsageError


def run(
    images: tyro.conf.Positional[str],
    reference: str | None = None,
    metrics: str = "fid,is,kid,precision-recall",
    features: str = "fashion-resnet",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    num_images: int | None = None,
    batch_size: int = 256,
    splits: int = 10,
    k: int = 3,
    weights_dir: str | None = None,
    device: str = "auto",
) -> None:
    """Measure images against a reference: FID, Inception Score, KID, precision and recall.

    Args:
        images: folder of images (nested ones too), .npz (ADM layout) or .npy.
        reference: the real images, likewise, or the name fashion-mnist-train.
        metrics: comma-separated, of fid, is, kid, precision-recall.
        features: feature network: fashion-resnet or efficientnet-lite0.
        as_json: print JSON instead of a table.
        num_images: use so many of the images, drawn with a fixed seed.
        batch_size: images read at a time; bounds memory, changes no number.
        splits: parts of the Inception Score.
        k: neighbour of precision and recall.
        weights_dir: folder with the network's weights, instead of the shipped ones.
        device: torch device; auto takes a GPU if there is one.
    """
    from eval.evaluate import evaluate, parse_metrics

    chosen = parse_metrics(metrics)
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    with _progress() as bar:
        tasks: dict[str, object] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        result = evaluate(
            images,
            reference,
            chosen,
            features,
            num_images=num_images,
            batch_size=batch_size,
            splits=splits,
            k=k,
            weights_dir=weights_dir,
            device=device,
            progress=progress,
        )
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print_table(result)


def _progress():
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


def _print_table(result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", "sd", "id")
    for name, entry in result["metrics"].items():
        sd = f"{entry['sd']:.6g}" if "sd" in entry else ""
        table.add_row(name, f"{entry['value']:.6g}", sd, entry["id"])
    console = Console()
    console.print(table)
    for key, value in result["protocol"].items():
        console.print(f"{key}: {value}", highlight=False, soft_wrap=True, markup=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        tyro.cli(run, args=arguments, prog="python -m eval", description=__doc__)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
