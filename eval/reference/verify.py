"""Check a reference: its file, its numbers, its weights and its images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eval.images.source import ImageSource, content_sha256
from eval.metrics.fid import covariance_factor
from eval.reference.files import Reference, load_reference, reference_path
from maskgit.common.errors import UsageError

# Standard errors by which the kept features' mean may differ from that of all images, in the worst
# of D features.
MAX_DEVIATION = 8.0


def verify_reference(
    name: str, extractor: str, images: str | None = None, feature_weights: str | Path | None = None
) -> Iterator[str]:
    """Check one reference; yields a line for each property that holds or cannot be checked.

    Args:
        images: where the images are now; None takes the place they were read from.
        feature_weights: folder of the extractor's weights.

    Raises:
        UsageError: the first property that does not hold.
    """
    reference = load_reference(name, extractor, feature_weights)
    if reference.weights_sha256:
        yield f"weights are those it was made with ({reference.weights_sha256[:12]})"
    else:
        yield "imported: its weights are not known"
    _check_numbers(reference)
    yield "mean, covariance and features fit together"
    path = reference_path(name, extractor)
    content = reference.protocol.get("content_sha256")
    card = path.with_suffix(".json")
    if not card.is_file() or content is None:
        yield "no note of where its images are: not compared"
        return
    options = json.loads(card.read_text())
    where = images or options["images"]
    if where is None or not Path(where).exists():
        yield f"images are not at {where}: not compared (--images says where they are)"
        return
    chosen = options["num_images"] if options["num_images"] < options["chosen_of"] else None
    try:
        source = ImageSource(where, chosen, skip_broken=options["skip_broken"])
        actual = content_sha256(source.digests())
    except UsageError as error:
        raise UsageError(f"reference {name} on {extractor}: its images: {error}") from error
    if actual != content:
        raise UsageError(
            f"reference {name} on {extractor}: the images at {where} are others "
            f"(content {actual[:12]}, built from {str(content)[:12]}): build it again"
        )
    yield f"images at {where} are those it was built from ({actual[:12]})"


def _check_numbers(reference: Reference) -> None:
    what = f"reference {reference.name} on {reference.extractor}"
    try:
        covariance_factor(reference.cov)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from error
    if len(reference.features) > 1:
        deviation = np.sqrt(np.diag(reference.cov) / len(reference.features))
        scale = max(float(deviation.max()), 1e-12)
        off = np.abs(reference.features.mean(axis=0, dtype=np.float64) - reference.mean)
        if (off > MAX_DEVIATION * deviation + 1e-6 * scale).any():
            raise UsageError(f"{what}: the kept features are not from the same images as the mean")
