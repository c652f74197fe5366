"""From sets of images to numbers with their protocol: what `python -m eval` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.features.registry import EXTRACTORS, Extractor, get_extractor
from eval.images.source import ImageSource
from eval.metrics.registry import (
    METRICS,
    Entry,
    PreparedReference,
    Settings,
    combine,
    describe,
    expand_groups,
    measure,
    subset_errors,
)
from eval.reference.build import build_reference, check_protocol
from eval.reference.files import (
    REFERENCES,
    Reference,
    built_references,
    load_reference,
    reference_extractors,
)
from eval.weights.files import weights_path
from maskgit.common.device import resolve_device
from maskgit.common.errors import Unavailable, UsageError

KEEP = 50_000  # real features that a folder given as the reference keeps
COLOUR_DEFAULTS = ("inception-v3-compat", "efficientnet-lite0")  # the first whose weights are here
Progress = Callable[[str, int, int], None]


def evaluate(
    images: str | Path | Sequence[str | Path],
    reference: str | Path | None,
    metrics: Sequence[str],
    features: str | None = None,
    *,
    num_images: int | None = None,
    batch_size: int = 256,
    splits: int = 10,
    k: int = 3,
    error_bars: int | None = None,
    skip_broken: bool = False,
    pad: int | None = None,
    feature_weights: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a set of images, or several of one model (its seeds).

    A metric that cannot be computed (its weights are not on this machine, the reference has no
    features, there are too few images) is reported as missing with the reason, and the others are
    computed.

    Args:
        images: folder, zip, npz, npy or IDX file of generated images, or several: then every
            number is the mean over them, and its error the deviation.
        reference: the same for the real ones (prepared once, kept by content in the cache folder),
            or the name of a reference; only `is` needs none.
        metrics: names of metrics on features, or of groups of them.
        features: extractor's name; None chooses (see `choose_features`).
        num_images: how many of `images` to use, drawn with a fixed seed; None for all.
        batch_size: images read at a time; changes no number.
        splits: of the Inception Score.
        k: neighbour of precision and recall.
        error_bars: standard errors from so many disjoint subsets of the images.
        skip_broken: leave out files that are no usable images; the protocol says how many.
        pad: put every image, real ones too, in the middle of a black square of this size.
        progress: called as (what, images done, images in all).

    Returns:
        {"metrics": {name: {"id", "value", "error"?, "error_is"?, ...}}, "missing": {name: why},
        "protocol": {...}}, ready for JSON.

    Raises:
        UsageError: whatever is wrong with the input, in one line; also if no metric is left.
    """
    sets = [images] if isinstance(images, str | Path) else list(images)
    if not sets:
        raise UsageError("no images to measure: give a folder, zip, npz or npy")
    if error_bars is not None and len(sets) > 1:
        raise UsageError("--error-bars: several sets of images already give error bars")
    if error_bars is not None and error_bars < 2:
        raise UsageError(f"--error-bars {error_bars}: at least 2 subsets are needed")
    if splits < 1:
        raise UsageError(f"--splits {splits}: at least 1 is needed")
    metrics = expand_groups(metrics)
    check_reference(reference, metrics)
    reading = _Reading(num_images, batch_size, skip_broken, pad, progress)
    protocol: dict[str, Any] = {} if pad is None else {"pad": pad}
    if features is None:
        first = reading.open(sets[0], num_images, any_size=True).first()
        features, why = choose_features(first, reference, feature_weights)
        protocol["features_chosen"] = why
    elif features not in EXTRACTORS:
        raise UsageError(f"features {features!r}: expected one of {', '.join(EXTRACTORS)}")

    groups: dict[str, list[str]] = {}
    for metric in metrics:
        groups.setdefault(METRICS[metric].network or features, []).append(metric)
    results: dict[str, Entry] = {}
    missing: dict[str, str] = {}
    protocols: list[dict[str, Any]] = []
    for name, group in groups.items():
        try:
            extractor = get_extractor(name, feature_weights, device)
        except Unavailable as error:
            missing |= dict.fromkeys(group, str(error))
            continue
        real = None
        needing = _needing_reference(group)
        if needing:  # the reference first, in case it fails
            try:
                real = _open_reference(reference, extractor, feature_weights, reading)
            except Unavailable as error:
                missing |= dict.fromkeys(needing, str(error))
                group = [metric for metric in group if metric not in needing]
        if group:
            settings = Settings(splits, k, device=resolve_device(device))
            found, described = _measure_sets(
                sets, name, real, settings, group, extractor, reading, error_bars, missing
            )
            results |= found
            protocols.append(described)
    if not results:
        raise Unavailable("; ".join(dict.fromkeys(missing.values())))
    protocol |= protocols[0]
    if len(protocols) > 1:
        protocol["also"] = protocols[1:]
    protocol["versions"] = {"numpy": np.__version__, "torch": _torch_version()}
    return {"metrics": results, "missing": missing, "protocol": protocol}


@dataclass(frozen=True)
class _Reading:
    """How images are read: alike for all sets and the reference, except for num_images."""

    num_images: int | None
    batch_size: int
    skip_broken: bool
    pad: int | None
    progress: Progress | None

    def open(self, where: str | Path, num_images: int | None, *, any_size: bool) -> ImageSource:
        return ImageSource(
            where, num_images, any_size=any_size, skip_broken=self.skip_broken, pad=self.pad
        )

    def batches(self, source: ImageSource) -> Iterator[np.ndarray]:
        done = 0
        for batch in source.batches(self.batch_size):
            yield batch
            done += len(batch)
            if self.progress is not None:
                self.progress(str(source.where), done, len(source))


def check_reference(reference: str | Path | None, metrics: Sequence[str]) -> None:
    """Raise a UsageError if the metrics need a reference and this is not one."""
    if not _needing_reference(metrics):
        return
    known = list(dict.fromkeys([*REFERENCES, *built_references()]))
    if reference is None or str(reference) == "":
        raise UsageError(
            f"--reference is missing: give the real images, or one of {', '.join(known)}"
        )
    if str(reference) not in known and not Path(str(reference)).exists():
        raise UsageError(
            f"--reference {reference}: no such folder or file, nor one of {', '.join(known)}"
        )


def _needing_reference(metrics: Sequence[str]) -> list[str]:
    return [metric for metric in metrics if "reference" in METRICS[metric].needs]


def choose_features(
    image: np.ndarray, reference: str | Path | None, feature_weights: str | Path | None = None
) -> tuple[str, str]:
    """Choose the extractor for images when none is named; returns its name and the reason.

    It is the named reference's own; for grey 32 x 32 images fashion-resnet; else
    inception-v3-compat if its weights are on this machine, and efficientnet-lite0 if not.

    Args:
        image: one of the images, uint8 (H, W, C).
    """
    held = reference_extractors(str(reference)) if reference is not None else []
    if held and not Path(str(reference)).exists():
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


def _resizes(extractor: Extractor) -> bool:
    return extractor.protocol.get("resize") != "none"


def _open_reference(
    reference: str | Path | None,
    extractor: Extractor,
    feature_weights: str | Path | None,
    reading: _Reading,
) -> PreparedReference:
    if str(reference) in REFERENCES or str(reference) in built_references():
        loaded = load_reference(str(reference), extractor.name, feature_weights)
        check_protocol(loaded, extractor)
        return PreparedReference(loaded)
    source = reading.open(str(reference), None, any_size=_resizes(extractor))
    built = build_reference(
        None,
        source,
        extractor,
        keep_features=KEEP,
        batch_size=reading.batch_size,
        progress=reading.progress,
    )
    return PreparedReference(built)


def _measure_sets(
    sets: Sequence[str | Path],
    features: str,
    reference: PreparedReference | None,
    settings: Settings,
    metrics: Sequence[str],
    extractor: Extractor,
    reading: _Reading,
    error_bars: int | None,
    missing: dict[str, str],
) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Measure all sets on one extractor: (entries, protocol). Reasons go into `missing`."""
    found, numbers = [], []
    described: dict[str, Any] = dict(extractor.protocol)
    if reference is not None:
        described |= _reference_protocol(reference.reference)
    for where in sets:
        source = reading.open(where, reading.num_images, any_size=_resizes(extractor))
        samples = extractor.extract_batches(reading.batches(source))
        numbers.append(len(samples.features))
        entries, absent = measure(metrics, features, samples, reference, settings)
        missing |= absent
        if error_bars is not None:
            absent = subset_errors(entries, features, samples, reference, settings, error_bars)
            missing |= {f"error bars of {metric}": why for metric, why in absent.items()}
        found.append(entries)
        for key, value in source.describe().items():
            described.setdefault(key, []).extend(value)
        if source.skipped:
            described["skipped"] = described.get("skipped", 0) + len(source.skipped)
    described["n"] = numbers[0] if len(sets) == 1 else numbers
    described |= describe(metrics, reference, settings)
    if "kid" in found[0]:
        described["kid_subset_size"] = found[0]["kid"]["subset_size"]
    return combine(found), described


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
    if not real.weights_sha256:
        result["reference_is"] = real.description
    return result


def _torch_version() -> str:
    import torch

    return torch.__version__
