"""The references of presets: real images, cut as the samples are, on a feature network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval.console import progress_bar
from eval.features.registry import get_extractor
from eval.images.source import ImageSource
from eval.metrics.statistics import Statistics
from eval.reference.build import build_reference
from eval.reference.files import REFERENCES, Reference, read_reference, write_reference
from eval.weights.files import ZOO
from maskgit.common.device import resolve_device
from maskgit.common.errors import UsageError
from maskgit.data.fashion_mnist import load_split
from maskgit.data.image_folder import ImageFolder
from maskgit.data.registry import open_split
from maskgit.presets import Preset

SUBSET_PER_CLASS = 1000
SEED = 0


def build(
    preset: Preset,
    data: Path | None,
    features: str,
    num_images: int | None,
    feature_weights: Path | None,
    device: str,
) -> str:
    """Build the reference of a preset on one feature network; returns a line that says what."""
    split = preset.reference_split
    extractor = get_extractor(features, feature_weights, resolve_device(device))
    photos = open_split(preset, data, split)
    if not isinstance(photos, ImageFolder):  # cut as the preset says, in memory
        source = ImageSource(photos.batch(np.arange(len(photos)), 0), num_images)
        labels = photos.labels if num_images is None else None
    else:
        height, width = preset.size
        crop = height if height == width else (height, width)
        source = ImageSource(photos.name, num_images, crop=crop, any_size=True)
        labels = None  # the folders'
        if source.available != len(photos):
            raise UsageError(
                f"{photos.name}: {source.available} images, {len(photos)} of them in folders of "
                "classes; expected no others"
            )
    with progress_bar() as progress:
        reference = build_reference(
            preset.reference,
            source,
            extractor,
            labels,
            keep_features=max(preset.num_samples, preset.table_samples or 0),
            description=f"{len(source)} of {len(photos)} images of {split}, preset {preset.name}",
            progress=progress,
        )
    return (
        f"{reference.name} on {features}: {reference.n} images, {reference.geometry}, "
        f"{len(reference.features)} features kept, sha256 {reference.sha256[:12]}"
    )


def write_shipped(name: str, data: Path | None, out: Path | None) -> None:
    """Write the reference that ships: mean and covariance of Fashion-MNIST's 60,000 training images
    for FID, and the features of a fixed random class-balanced 10,000 of them for precision/recall
    and KID: row i is of class i % 10."""
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
