"""From sets of images to numbers with their protocol: what `python -m eval` prints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tyro

from eval.features.registry import EXTRACTORS, Extractor, get_extractor
from eval.images.source import ImageSource, crop_words, parse_crop
from eval.metrics.registry import (
    METRICS,
    Entry,
    PreparedReference,
    Settings,
    combine,
    describe,
    measure,
    parse_metrics,
    subset_errors,
)
from eval.reference.build import KEEP, build_reference, check_protocol
from eval.reference.files import (
    Reference,
    load_reference,
    reference_extractors,
    reference_names,
)
from eval.weights.files import weights_path
from maskgit.common.device import resolve_device
from maskgit.common.errors import Unavailable, UsageError

COLOUR_DEFAULTS = ("inception-v3-compat", "efficientnet-lite0")  # the first whose weights are here
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """What is measured, and how."""

    images: tyro.conf.Positional[tuple[str, ...]]
    """Folder of images (nested ones too), .zip, .npz (ADM layout), .npy or IDX file; several of
    them are seeds of one model: mean and deviation over them."""
    reference: str | None = None
    """The real images, likewise (prepared once, kept by content in the cache folder), or a name
    (python -m eval.reference list). Only the Inception Score needs none."""
    metrics: str = "fid,is,is-10-splits,kid,precision-recall"
    """Comma-separated, of fid, fid-infinity, is, is-10-splits, precision, recall, kid, density,
    coverage, fd-dinov2; or all. precision-recall and density-coverage name both of a pair."""
    features: str | None = None
    """Feature network (python -m eval.weights list). Default: the named reference's; fashion-resnet
    for grey 32x32 images; inception-v3-compat if its weights are here, else efficientnet-lite0."""
    num_images: int | None = None
    """Use so many of the images, drawn with a fixed seed."""
    error_bars: int | None = None
    """Standard errors from so many disjoint subsets of the images."""
    skip_broken: bool = False
    """Leave out files that are no usable images, and say how many."""
    crop: Literal["none", "center"] = "none"
    """center scales the shorter side of every image, generated or real, to --size and cuts out the
    central square; an image that is one stays as it is."""
    size: int | None = None
    """Pixels a side, with --crop center."""
    pad: int | None = None
    """Put every image in the middle of a black square of this size (28x28 digits: 32)."""
    batch_size: int = 256
    """Images read at a time; bounds memory, changes no number."""
    k: int = 3
    """Neighbour of precision and recall."""
    feature_weights: str | None = None
    """Folder with the network's weights, instead of the usual places."""
    device: str = "auto"
    """Torch device; auto takes a GPU if there is one."""

    def check(self) -> None:
        """Raise a UsageError for what no image has to be read for."""
        if not self.images:
            raise UsageError("no images to measure: give a folder, zip, npz or npy")
        if self.error_bars is not None and len(self.images) > 1:
            raise UsageError("--error-bars: several sets of images already give error bars")
        if self.error_bars is not None and self.error_bars < 2:
            raise UsageError(f"--error-bars {self.error_bars}: at least 2 subsets are needed")
        if self.k < 1:
            raise UsageError(f"--k {self.k}: at least 1 is needed")
        if self.features is not None and self.features not in EXTRACTORS:
            raise UsageError(f"features {self.features!r}: expected one of {', '.join(EXTRACTORS)}")
        if _needing_reference(parse_metrics(self.metrics)):
            known = ", ".join(reference_names())
            if not self.reference:
                raise UsageError(f"--reference is missing: give the real images, or one of {known}")
            if self.reference not in reference_names() and not os.path.exists(self.reference):
                raise UsageError(
                    f"--reference {self.reference}: no such folder or file, nor one of {known}"
                )

    def open(
        self, where: str, num_images: int | None = None, *, any_size: bool = True
    ) -> ImageSource:
        """A set of images, generated or real ones, read as these options say."""
        return ImageSource(
            where,
            num_images,
            any_size=any_size,
            skip_broken=self.skip_broken,
            crop=parse_crop(self.crop, self.size),
            pad=self.pad,
        )


def evaluate(options: Options, progress: Progress | None = None) -> dict[str, Any]:
    """Measure a set of images, or several of one model (its seeds).

    A metric that cannot be computed (its weights are not on this machine, the reference has no
    features, there are too few images) is reported as missing with the reason, and the others are
    computed. For several sets every number is the mean over them, and its error the deviation.

    Args:
        progress: called as (what, images done, images in all).

    Returns:
        {"metrics": {name: {"id", "value", "error"?, "error_is"?, ...}}, "missing": {name: why},
        "protocol": {...}}, ready for JSON.

    Raises:
        UsageError: whatever is wrong with the input, in one line; also if no metric is left.
    """
    options.check()
    device = resolve_device(options.device)
    protocol: dict[str, Any] = {} if options.pad is None else {"pad": options.pad}
    if options.size is not None:
        protocol["crop"] = crop_words(options.size)
    features = options.features
    if features is None:
        first = options.open(options.images[0], options.num_images).first()
        features, why = choose_features(first, options.reference, options.feature_weights)
        protocol["features_chosen"] = why
    groups: dict[str, list[str]] = {}
    for metric in parse_metrics(options.metrics):
        groups.setdefault(METRICS[metric].network or features, []).append(metric)
    results: dict[str, Entry] = {}
    missing: dict[str, str] = {}
    protocols: list[dict[str, Any]] = []
    for name, group in groups.items():
        try:
            extractor = get_extractor(name, options.feature_weights, device)
        except Unavailable as error:
            missing |= dict.fromkeys(group, str(error))
            continue
        real = None
        needing = _needing_reference(group)
        if needing:  # the reference first, in case it fails
            try:
                real = _open_reference(options, extractor, progress)
            except Unavailable as error:
                missing |= dict.fromkeys(needing, str(error))
                group = [metric for metric in group if metric not in needing]
        if group:
            settings = Settings(options.k, device=device)
            found, absent, described = _measure_sets(
                options, name, extractor, real, settings, group, progress
            )
            results |= found
            missing |= absent
            protocols.append(described)
    if not results:
        raise Unavailable("; ".join(dict.fromkeys(missing.values())))
    protocol |= protocols[0]
    if len(protocols) > 1:
        protocol["also"] = protocols[1:]
    import torch

    protocol["versions"] = {"numpy": np.__version__, "torch": torch.__version__}
    return {"metrics": results, "missing": missing, "protocol": protocol}


def _needing_reference(metrics: Sequence[str]) -> list[str]:
    return [metric for metric in metrics if "reference" in METRICS[metric].needs]


def choose_features(
    image: np.ndarray, reference: str | None, feature_weights: str | None = None
) -> tuple[str, str]:
    """Choose the extractor for images when none is named; returns its name and the reason.

    It is the named reference's own; for grey 32 x 32 images fashion-resnet; else
    inception-v3-compat if its weights are on this machine, and efficientnet-lite0 if not.

    Args:
        image: one of the images, uint8 (H, W, C).
    """
    held = reference_extractors(reference) if reference is not None else []
    if held and not os.path.exists(str(reference)):
        return held[0], f"the reference {reference} holds them"
    if image.shape == (32, 32, 1):
        return "fashion-resnet", "the images are grey, 32x32"
    for name in COLOUR_DEFAULTS[:-1]:
        try:
            weights_path(name, feature_weights)
            return name, "the default"
        except UsageError:
            continue
    return COLOUR_DEFAULTS[-1], f"no weights of {' or '.join(COLOUR_DEFAULTS[:-1])} here"


def _open_reference(
    options: Options, extractor: Extractor, progress: Progress | None
) -> PreparedReference:
    name = str(options.reference)
    if name in reference_names():
        loaded = load_reference(name, extractor.name, options.feature_weights)
        check_protocol(loaded, extractor)
        return PreparedReference(loaded)
    source = options.open(name, any_size=extractor.resizes)
    built = build_reference(
        None,
        source,
        extractor,
        keep_features=KEEP,
        batch_size=options.batch_size,
        progress=progress,
    )
    return PreparedReference(built)


def _measure_sets(
    options: Options,
    features: str,
    extractor: Extractor,
    reference: PreparedReference | None,
    settings: Settings,
    metrics: Sequence[str],
    progress: Progress | None,
) -> tuple[dict[str, Entry], dict[str, str], dict[str, Any]]:
    """Measure all sets on one extractor: (entries, why some are missing, protocol)."""
    found, numbers = [], []
    missing: dict[str, str] = {}
    described: dict[str, Any] = dict(extractor.protocol)
    if reference is not None:
        described |= _reference_protocol(reference.reference)
    for where in options.images:
        source = options.open(where, options.num_images, any_size=extractor.resizes)
        samples = extractor.extract_batches(_batches(source, options.batch_size, progress))
        numbers.append(len(samples.features))
        entries, absent = measure(metrics, features, samples, reference, settings)
        missing |= absent
        if (bars := options.error_bars) is not None:
            absent = subset_errors(entries, features, samples, reference, settings, bars)
            missing |= {f"error bars of {metric}": why for metric, why in absent.items()}
        found.append(entries)
        for key, value in source.describe().items():
            described.setdefault(key, []).extend(value)
        if reference is not None:
            described["geometry"] = source.geometry()
            _name_geometry(entries, reference.reference, source)
        if source.skipped:
            described["skipped"] = described.get("skipped", 0) + len(source.skipped)
    described["n"] = numbers[0] if len(numbers) == 1 else numbers
    described |= describe(metrics, reference, settings)
    if "kid" in found[0]:
        described["kid_subset_size"] = found[0]["kid"]["subset_size"]
    return combine(found), missing, described


def _name_geometry(entries: dict[str, Entry], reference: Reference, source: ImageSource) -> None:
    """Put the sizes of a reference's images into the ids of the numbers where they are not those
    of the samples: such numbers may not share a column with others."""
    theirs = reference.protocol.get("geometry", {}).get("sizes")
    if theirs and theirs != source.geometry()["sizes"]:
        for metric in _needing_reference([name for name in entries if name in METRICS]):
            entries[metric]["id"] += f".reference-{'-to-'.join(theirs)}"


def _batches(
    source: ImageSource, batch_size: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    done = 0
    for batch in source.batches(batch_size):
        yield batch
        done += len(batch)
        if progress is not None:
            progress(str(source.where), done, len(source))


def _reference_protocol(real: Reference) -> dict[str, Any]:
    result: dict[str, Any] = {
        "reference": real.name,
        "reference_n": real.n or "unknown",
        "reference_sha256": real.sha256,
    }
    if real.protocol:
        result["reference_content_sha256"] = real.protocol["content_sha256"]
        if real.protocol.get("skipped_images"):
            result["reference_skipped"] = real.protocol["skipped_images"]
        if real.protocol.get("notes"):
            result["notes"] = list(real.protocol["notes"])
    if real.geometry:
        result["reference_geometry"] = real.geometry
    if not real.weights_sha256:
        result["reference_is"] = real.description
    return result
