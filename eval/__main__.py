"""Measure a folder or array of images.

    python -m eval samples/ --reference fashion-mnist-train
    python -m eval a.npz --reference b/ --metrics fid,precision-recall --features
    efficientnet-lite0 --json

A table (or JSON with --json) goes to stdout, progress and the names of missing metrics to stderr.
The exit code is 2 for input that cannot be measured.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import tyro

from eval.console import command_line, print_table, progress_bar
from eval.evaluate import evaluate
from eval.metrics.registry import parse_metrics
from maskgit.common.device import resolve_device


def run(
    images: tyro.conf.Positional[tuple[str, ...]],
    reference: str | None = None,
    metrics: str = "fid,is,kid,precision-recall",
    features: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    num_images: int | None = None,
    error_bars: int | None = None,
    skip_broken: bool = False,
    pad: int | None = None,
    batch_size: int = 256,
    splits: int = 10,
    k: int = 3,
    feature_weights: str | None = None,
    device: str = "auto",
) -> None:
    """Measure images against a reference: FID, Inception Score, KID, precision and recall, ...

    Args:
        images: folder of images (nested ones too), .zip, .npz (ADM layout), .npy or IDX file;
            several of them are seeds of one model: mean and deviation over them.
        reference: the real images, likewise, or a name (python -m eval.reference list).
        metrics: comma-separated, of fid, fid-infinity, is, precision, recall, kid, density,
            coverage, fd-dinov2; or all. precision-recall and density-coverage name both of a pair.
        features: feature network (python -m eval.weights list). Default: the named reference's;
            fashion-resnet for grey 32x32 images; inception-v3-compat if its weights are here, else
            efficientnet-lite0.
        as_json: print JSON instead of a table.
        num_images: use so many of the images, drawn with a fixed seed.
        error_bars: standard errors from so many disjoint subsets of the images.
        skip_broken: leave out files that are no usable images, and say how many.
        pad: put every image in the middle of a black square of this size (28x28 digits: 32).
        batch_size: images read at a time; bounds memory, changes no number.
        splits: parts of the Inception Score.
        k: neighbour of precision and recall.
        feature_weights: folder with the network's weights, instead of the usual places.
        device: torch device; auto takes a GPU if there is one.
    """
    chosen = parse_metrics(metrics)
    with progress_bar() as progress:
        result = evaluate(
            images,
            reference,
            chosen,
            features,
            num_images=num_images,
            error_bars=error_bars,
            skip_broken=skip_broken,
            pad=pad,
            batch_size=batch_size,
            splits=splits,
            k=k,
            feature_weights=feature_weights,
            device=resolve_device(device),
            progress=progress,
        )
    if as_json:
        for name, why in result["missing"].items():
            print(f"missing: {name}: {why}", file=sys.stderr)
        print(json.dumps(result, indent=2))
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    rows = []
    for name, entry in result["metrics"].items():
        error = f"{entry['error']:.3g}" if "error" in entry else ""
        rows.append((name, f"{entry['value']:.6g}", error, entry.get("error_is", ""), entry["id"]))
    rows += [(name, "missing", "", "", "") for name in result["missing"]]
    print_table(("metric", "value", "+-", "which is", "id"), rows)
    print()
    for name, why in result["missing"].items():
        print(f"missing: {name}: {why}")
    for name, entry in result["metrics"].items():
        if "slope_interval" in entry:
            low, high = entry["slope_interval"]
            print(f"{name}: slope {entry['slope']:.6g}, 95 % interval {low:.6g} to {high:.6g}")
    _print_protocol(result["protocol"], "")


def _print_protocol(protocol: dict[str, Any], indent: str) -> None:
    for key, value in protocol.items():
        if key == "also":
            for other in value:
                print(f"{indent}also:")
                _print_protocol(other, indent + "  ")
        elif key == "notes":
            for note in value:
                print(f"{indent}note: {note}")
        else:
            print(f"{indent}{key}: {value}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return command_line(run, arguments, "python -m eval", __doc__)


if __name__ == "__main__":
    sys.exit(main())
