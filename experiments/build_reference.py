"""Write the reference statistics of the embedded benchmark: Fashion-MNIST's training images on
fashion-resnet.

    python -m experiments.build_reference      # some 10 seconds; needs the training images

The file has mean and covariance of all 60,000 images for FID, and the features of a fixed random
class-balanced 10,000 of them for precision/recall and KID: row i is of class i % 10.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from eval.features.registry import get_extractor
from eval.metrics.statistics import Statistics
from eval.reference.files import REFERENCES, Reference, read_reference, write_reference
from eval.weights.files import ZOO
from maskgit.common.cli import exit_code, parse
from maskgit.data.fashion_mnist import load_split

SUBSET_PER_CLASS = 1000
SEED = 0


def run(data: Path | None = None, out: Path | None = None) -> None:
    """Build the reference `fashion-mnist-train`.

    Args:
        data: folder with Fashion-MNIST's IDX files (default: the places maskgit.data.fashion_mnist
        knows). out: the npz to write (default: where eval looks for the shipped one).
    """

    name = "fashion-mnist-train"
    file, extractor_name = REFERENCES[name]
    out = out or ZOO / file
    extractor = get_extractor(extractor_name)
    images, labels = load_split("train", data)
    features = extractor.extract(images).features

    # One random order per class, laid side by side, so that any first rows are balanced.
    rng = np.random.default_rng(SEED)
    classes = [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
    chosen = np.stack([rng.permutation(rows)[:SUBSET_PER_CLASS] for rows in classes], axis=1)
    statistics = Statistics.of(features)
    reference = Reference(
        name,
        extractor_name,
        statistics.n,
        statistics.mean,
        statistics.cov,
        features[chosen.ravel()],
        sha256="",
        weights_sha256=extractor.weights_sha256,
        description=f"Fashion-MNIST (MIT licence, Zalando SE), {len(images)} training images; "
        f"features: {chosen.size} of them, class of row i is i % {len(classes)}, seed {SEED}",
    )
    write_reference(out, reference, compress=True)
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.2f} MB, sha256 {read_reference(out, name).sha256}")


if __name__ == "__main__":
    prog = "python -m experiments.build_reference"
    sys.exit(exit_code(lambda: parse(run, sys.argv[1:], prog, __doc__)()))
