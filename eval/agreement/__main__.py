"""Compare this suite's metrics with those of the field's libraries on the same input.

    python -m eval.agreement                              # seeded features, and real ones
    python -m eval.agreement --features-npz FILE          # those of FILE as well
    python -m eval.agreement --out docs/agreement.md      # as a page of the documentation

A table of relative differences goes to stdout. It names libraries that are not installed, and how
to install them. The exit code is 1 if a difference is above its limit, 2 if a file cannot be read.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from eval.agreement import libraries
from eval.agreement.comparisons import Comparison, FeatureSet, compare_resizing, comparisons
from eval.console import command_line, print_table, progress_bar
from eval.features.registry import get_extractor
from eval.images.arrays import read_arrays
from eval.metrics.statistics import check_features
from eval.reference.files import load_reference
from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import output_file

HEADER = ("features", "metric", "library", "ours", "theirs", "difference", "limit", "")
EXPLANATION = """# Agreement with other libraries

The same features and logits through this suite and through the libraries of the field. The
difference is relative to theirs. FID, IS, and KID on the same draws or on whole sets must agree
within 1e-6; KID on other draws within its standard error; precision, recall, density and coverage
must count the same points (torch-fidelity averages the counts in float32; "definition" is the
formula on the matrix of all distances, with the rims of the balls left out, as in the package
prdc). Resized images must agree within 1e-6 of the range at every pixel.

- `seeded`: 1,000 + 1,000 rectified random features of 128 numbers whose spectrum decays, and
  logits of 20 classes; numpy seed 0.
- `fashion-resnet`: features of 2,000 Fashion-MNIST training images, the first 1,000 of the shipped
  reference against the next 1,000, and their logits.
- `images`: random images of three sizes, to 299x299.
"""


def seeded_set(n: int = 1000) -> FeatureSet:
    """n and n random features like real ones: a decaying spectrum, rectified, some always 0."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(128, 128)) / np.arange(1, 129)[:, None] ** 0.7
    real, generated = (
        np.maximum(rng.normal(size=(n, 128)) @ mixing * scale + shift, 0)
        for scale, shift in ((1.0, 0.3), (0.9, 0.4))
    )
    real[:, :3] = generated[:, :3] = 0
    return FeatureSet("seeded", real, generated, 3 * rng.normal(size=(n, 20)))


def fashion_set(n: int = 1000) -> FeatureSet:
    """Features of n and n real images: two disjoint parts of the shipped reference."""
    import torch

    features = load_reference("fashion-mnist-train").features[: 2 * n].copy()
    network: Any = get_extractor("fashion-resnet")
    with torch.inference_mode():
        logits = network.model.head(torch.from_numpy(features[:n])).numpy()
    return FeatureSet("fashion-resnet", features[:n], features[n:], logits)


def read_set(path: Path) -> FeatureSet:
    """Arrays `real` and `generated` (n, D), and `logits` (l, L) if there are any, of an npz file.

    Raises:
        UsageError: unreadable, an array missing, or shapes that do not fit.
    """
    try:
        arrays = read_arrays(path)
    except UsageError as error:
        raise UsageError(f"--features-npz {error}") from error
    for name in ("real", "generated"):
        if name not in arrays:
            raise UsageError(
                f"--features-npz {path}: no array {name!r}; expected real, generated and, "
                "for the Inception Score, logits"
            )
    # Fewer images than that, and the libraries refuse or give noise.
    real, generated = (
        check_features(arrays[name], f"--features-npz {path}: {name}", 20)
        for name in ("real", "generated")
    )
    if real.shape[1] != generated.shape[1] or real.shape[1] < 2:
        raise UsageError(
            f"--features-npz {path}: real has {real.shape[1]} columns and generated "
            f"{generated.shape[1]}, expected as many, and at least 2"
        )
    logits = arrays.get("logits")
    if logits is not None:
        logits = check_features(logits, f"--features-npz {path}: logits", 20)
    return FeatureSet(path.name, real, generated, logits)


def collect(features_npz: Path | None = None, n: int = 1000) -> Iterator[Comparison]:
    """All comparisons, one by one as they are computed; n real and n generated images in our own
    sets."""
    extra = [] if features_npz is None else [read_set(features_npz)]
    for data in (seeded_set(n), fashion_set(n), *extra):
        yield from comparisons(data)
    rng = np.random.default_rng(0)
    shapes = ((32, 32, 3), (150, 100, 3), (400, 333, 3))
    yield from compare_resizing("images", [rng.integers(0, 256, s, dtype=np.uint8) for s in shapes])


def installed() -> dict[str, str]:
    """The version of each library, or how to install it."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "scipy", "torch"):
        found[name] = importlib.metadata.version(name)
    for name in libraries.LIBRARIES:
        try:
            found[name] = libraries.version(name)
        except Unavailable as reason:
            found[name] = str(reason)
    return found


def cells(row: Comparison) -> tuple[str, ...]:
    """A comparison as the texts of a row, in the order of HEADER."""
    if row.agrees is None:
        return (row.data, row.metric, row.library, "", "", "", "", row.note)
    word = "agrees" if row.agrees else "DIFFERS"
    return (
        row.data,
        row.metric,
        row.library,
        f"{row.ours:.9g}",
        f"{row.theirs:.9g}",
        f"{row.difference:.1e}" if row.difference else "0",
        row.limit,
        f"{word} ({row.note})" if row.note else word,
    )


def page(rows: list[Comparison], command: str) -> str:
    """The table as Markdown, with the command that made it and the versions."""
    lines = [EXPLANATION, "Made by", "", "```", command, "```", "", "with"]
    lines[-1] += " " + ", ".join(f"{name} {version}" for name, version in installed().items())
    lines += ["", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def run(
    features_npz: Path | None = None,
    out: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Hold the metrics against torch-fidelity, clean-fid, TF-GAN and scikit-learn.

    Args:
        features_npz: an npz with arrays real and generated (n, D) and perhaps logits (l, L), to be
            compared as well.
        out: also write the table, as Markdown.
        as_json: print JSON instead of a table.
    """
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist")
    rows = []
    with progress_bar() as progress:
        for row in collect(features_npz):
            rows.append(row)
            progress(
                "sets of features", len({other.data for other in rows}), 3 + bool(features_npz)
            )
    if as_json:
        versions = installed()
        print(json.dumps({"rows": [asdict(row) for row in rows], "versions": versions}, indent=2))
    else:
        print_table(HEADER, [cells(row) for row in rows])
        for name, version in installed().items():
            print(f"{name}: {version}")
    if out is not None:
        options = f" --features-npz {features_npz}" if features_npz is not None else ""
        text = page(rows, f"python -m eval.agreement{options} --out {out}")
        with output_file(out, "--out") as file:
            file.write(text.encode())
    return int(any(row.agrees is False for row in rows))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return command_line(run, arguments, "python -m eval.agreement", __doc__)


if __name__ == "__main__":
    sys.exit(main())
