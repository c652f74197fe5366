"""Each metric on the same input, ours and a library's: the rows of the agreement table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from eval.agreement import libraries
from eval.metrics.density_coverage import density_coverage
from eval.metrics.fid import frechet_distance
from eval.metrics.inception_score import inception_score
from eval.metrics.kid import kernel_distance, standard_error
from eval.metrics.precision_recall import precision_recall
from eval.metrics.statistics import Statistics
from maskgit.common.errors import Unavailable

RELATIVE = 1e-6  # of FID, Inception Score, and KID on the same draws
K = 3  # precision and recall
K_WIDE = 5  # density and coverage
SUBSET = 500  # images in a subset of KID, so that draws differ


@dataclass(frozen=True)
class Comparison:
    """One number, ours and theirs.

    Attributes:
        data: name of the set of features.
        metric, library: what was computed, and by which library besides ours.
        ours, theirs: the values; both None if the library is missing.
        difference: |ours - theirs| / |theirs|.
        limit: the largest difference that is accepted, in words.
        agrees: whether the difference is within the limit; None if the library is missing.
        note: what is particular about the comparison, or why there is none.
    """

    data: str
    metric: str
    library: str
    ours: float | None = None
    theirs: float | None = None
    difference: float | None = None
    limit: str = ""
    agrees: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class FeatureSet:
    """Features of real and generated images, (n, D) and (m, D), and logits (l, L)."""

    name: str
    real: np.ndarray
    generated: np.ndarray
    logits: np.ndarray | None = None


def compare(
    data: str,
    metric: str,
    library: str,
    ours: float,
    theirs: Callable[[], float],
    limit: float = RELATIVE,
    absolute: float | None = None,
    note: str = "",
) -> Comparison:
    """Compare one number; `absolute` replaces the relative limit (0.5 / n: equal counts)."""
    try:
        if library in libraries.LIBRARIES:
            libraries.version(library)
        value = float(theirs())
    except Unavailable as reason:
        return Comparison(data, metric, library, note=str(reason))
    distance = abs(ours - value)
    difference = distance / abs(value) if value else (0.0 if distance == 0 else math.inf)
    if absolute is None:
        words, agrees = f"{limit:g}", difference <= limit
    else:
        words, agrees = f"{absolute:.2g} absolute", distance <= absolute
    return Comparison(data, metric, library, ours, value, difference, words, agrees, note)


def comparisons(data: FeatureSet) -> Iterator[Comparison]:
    """All metrics of one set of features, against all libraries."""
    yield from _fid(data)
    if data.logits is not None:
        yield from _inception_score(data, data.logits)
    yield from _kid(data)
    yield from _precision_recall(data)
    yield from _density_coverage(data)


def _fid(data: FeatureSet) -> Iterator[Comparison]:
    a, b = Statistics.of(data.real), Statistics.of(data.generated)
    ours = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    pair = data.real.astype("float64"), data.generated.astype("float64")
    for library, theirs in (
        ("torch-fidelity", libraries.torch_fidelity_fid),
        ("clean-fid", libraries.clean_fid_fid),
        ("TF-GAN", libraries.tfgan_fid),
    ):
        yield compare(data.name, "FID", library, ours, partial(theirs, *pair))


def _inception_score(data: FeatureSet, logits: np.ndarray) -> Iterator[Comparison]:
    for splits, library, theirs in (
        (10, "torch-fidelity", libraries.torch_fidelity_inception_score),
        (1, "TF-GAN", libraries.tfgan_inception_score),
    ):
        ours = inception_score(logits, splits)[0]
        metric = f"IS, {splits} split{'s' * (splits > 1)}"
        yield compare(data.name, metric, library, ours, partial(theirs, logits))


def _kid(data: FeatureSet) -> Iterator[Comparison]:
    pair = data.real.astype("float64"), data.generated.astype("float64")
    size = min(SUBSET, *(len(side) // 2 for side in pair))
    metric = f"KID, 100 subsets of {size}"
    ours = kernel_distance(*pair, 100, size)[0]
    theirs = partial(libraries.torch_fidelity_kid, *pair, size)
    yield compare(data.name, metric, "torch-fidelity", ours, theirs, note="same draws")
    error, both = standard_error(*pair)[0], ("clean-fid", "TF-GAN")
    functions = libraries.clean_fid_kid, libraries.tfgan_kid
    for library, function, draws in zip(both, functions, ("other draws", "blocks"), strict=True):
        note = f"{draws}: within the standard error"
        theirs = partial(function, *pair, size)
        yield compare(data.name, metric, library, ours, theirs, absolute=error, note=note)
    # Where a subset is all images there is nothing to draw.
    n = min(1000, *map(len, pair))
    whole = pair[0][:n], pair[1][:n]
    ours = kernel_distance(*whole, 1, n)[0]
    for library, function in zip(both, functions, strict=True):
        yield compare(data.name, f"KID, all of {n}", library, ours, partial(function, *whole, n))


def _precision_recall(data: FeatureSet) -> Iterator[Comparison]:
    ours = precision_recall(data.real, data.generated, K)
    for library, theirs in (
        ("torch-fidelity", libraries.torch_fidelity_precision_recall),
        ("scikit-learn", libraries.sklearn_precision_recall),
        ("definition", lambda *pair: libraries.prdc_by_definition(*pair)[:2]),
    ):
        yield from _shares(data, ("precision", "recall"), K, library, ours, theirs)


def _density_coverage(data: FeatureSet) -> Iterator[Comparison]:
    ours = density_coverage(data.real, data.generated, K_WIDE)
    theirs = lambda *pair: libraries.prdc_by_definition(*pair)[2:]  # noqa: E731
    yield from _shares(data, ("density", "coverage"), K_WIDE, "definition", ours, theirs)


def _shares(
    data: FeatureSet,
    names: tuple[str, str],
    k: int,
    library: str,
    ours: tuple[float, float],
    theirs: Callable[..., tuple[float, float]],
) -> Iterator[Comparison]:
    """Compare two shares of points, which are equal up to how a library averages."""
    values: list[float] = []

    def value(which: int) -> float:
        if not values:
            values.extend(theirs(data.real, data.generated, k))
        return values[which]

    # Less than one point of either set.
    limit = 0.5 / max(len(data.real), len(data.generated)) / k
    for which, name in enumerate(names):
        metric = f"{name}, k={k}"
        theirs_now = partial(value, which)
        yield compare(data.name, metric, library, ours[which], theirs_now, absolute=limit)


def compare_resizing(name: str, images: list[np.ndarray], size: int = 299) -> Iterator[Comparison]:
    """The resizing functions on uint8 images (H, W, 3) of any sizes. The values are means over all
    pixels, 0 to 255; the difference is the largest of any pixel, over 255."""
    import torch

    from eval.features.inception_v3_clean import resize_clean
    from eval.features.tensorflow_resize import resize_bilinear_tf1

    def tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).permute(2, 0, 1)[None].float()

    def ours_legacy(image: np.ndarray) -> np.ndarray:  # as inception-tfgan does
        inputs = tensor(image)
        shape = (size, size)
        return torch.nn.functional.interpolate(
            inputs, shape, mode="bilinear", align_corners=False
        ).numpy()[0]

    for metric, library, ours, theirs in (
        (
            "resize: Pillow bicubic",
            "clean-fid",
            lambda x: resize_clean(x, size),
            lambda x: libraries.clean_fid_resized(x, "clean", size),
        ),
        (
            "resize: bilinear, half-pixel centres",
            "clean-fid",
            ours_legacy,
            lambda x: libraries.clean_fid_resized(x, "legacy_pytorch", size),
        ),
        (
            "resize: TensorFlow 1 bilinear",
            "torch-fidelity",
            lambda x: resize_bilinear_tf1(tensor(x), size).numpy()[0],
            lambda x: libraries.torch_fidelity_resized(x, size),
        ),
    ):
        try:
            libraries.version(library)
        except Unavailable as reason:
            yield Comparison(name, metric, library, note=str(reason))
            continue
        mine = np.stack([ours(image).transpose(1, 2, 0) for image in images])
        other = np.stack([theirs(image) for image in images])
        difference = float(np.abs(mine - other).max()) / 255
        means = float(mine.mean(dtype=np.float64)), float(other.mean(dtype=np.float64))
        note = "largest difference of a pixel, over 255"
        agrees = difference <= RELATIVE
        yield Comparison(name, metric, library, *means, difference, f"{RELATIVE:g}", agrees, note)
