"""Each metric on the same input, ours and a library's: the rows of the agreement table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

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
        words, agrees = f"{RELATIVE:g}", difference <= RELATIVE
    else:
        words, agrees = f"{absolute:.2g} absolute", distance <= absolute
    return Comparison(data, metric, library, ours, value, difference, words, agrees, note)


def comparisons(data: FeatureSet) -> Iterator[Comparison]:
    """All metrics of one set of features, against all libraries."""
    row = partial(compare, data.name)
    pair = data.real.astype("float64"), data.generated.astype("float64")
    a, b = Statistics.of(data.real), Statistics.of(data.generated)
    fid = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    yield row("FID", "torch-fidelity", fid, lambda: libraries.torch_fidelity_fid(*pair))
    yield row("FID", "clean-fid", fid, lambda: libraries.clean_fid_fid(*pair))
    yield row("FID", "TF-GAN", fid, lambda: libraries.tfgan_fid(*pair))
    if (logits := data.logits) is not None:
        for splits, library, theirs in (
            (10, "torch-fidelity", libraries.torch_fidelity_inception_score),
            (1, "TF-GAN", libraries.tfgan_inception_score),
        ):
            metric = f"IS, {splits} split{'s' * (splits > 1)}"
            yield row(metric, library, inception_score(logits, splits)[0], partial(theirs, logits))
    yield from _kid(data.name, *pair)
    ours = precision_recall(data.real, data.generated, K)
    for library, shares in (
        ("torch-fidelity", libraries.torch_fidelity_precision_recall),
        ("scikit-learn", libraries.sklearn_precision_recall),
        ("definition", lambda *pair: libraries.prdc_by_definition(*pair)[:2]),
    ):
        yield from _shares(data, ("precision", "recall"), K, library, ours, shares)
    ours = density_coverage(data.real, data.generated, K_WIDE)
    by_definition = lambda *pair: libraries.prdc_by_definition(*pair)[2:]  # noqa: E731
    yield from _shares(data, ("density", "coverage"), K_WIDE, "definition", ours, by_definition)


def _kid(name: str, real: np.ndarray, generated: np.ndarray) -> Iterator[Comparison]:
    size = min(SUBSET, len(real) // 2, len(generated) // 2)
    metric = f"KID, 100 subsets of {size}"
    ours = kernel_distance(real, generated, 100, size)[0]
    theirs = partial(libraries.torch_fidelity_kid, real, generated, size)
    yield compare(name, metric, "torch-fidelity", ours, theirs, note="same draws")
    error = standard_error(real, generated)[0]
    others = (
        ("clean-fid", libraries.clean_fid_kid, "other draws"),
        ("TF-GAN", libraries.tfgan_kid, "blocks"),
    )
    for library, function, draws in others:
        note = f"{draws}: within the standard error"
        theirs = partial(function, real, generated, size)
        yield compare(name, metric, library, ours, theirs, absolute=error, note=note)
    # Where a subset is all images there is nothing to draw.
    n = min(1000, len(real), len(generated))
    whole = real[:n], generated[:n]
    ours = kernel_distance(*whole, 1, n)[0]
    for library, function, _ in others:
        yield compare(name, f"KID, all of {n}", library, ours, partial(function, *whole, n))


def _shares(
    data: FeatureSet,
    names: tuple[str, str],
    k: int,
    library: str,
    ours: tuple[float, float],
    theirs: Callable[..., tuple[float, ...]],
) -> Iterator[Comparison]:
    """Compare two shares of points, which are equal up to how a library averages."""
    both = cache(lambda: theirs(data.real, data.generated, k))
    # Less than one point of either set.
    limit = 0.5 / max(len(data.real), len(data.generated)) / k
    for value, which, name in zip(ours, (0, 1), names, strict=True):
        other = lambda which=which: both()[which]  # noqa: E731
        yield compare(data.name, f"{name}, k={k}", library, value, other, absolute=limit)


def compare_resizing(name: str, images: list[np.ndarray], size: int = 299) -> Iterator[Comparison]:
    """The resizing functions on uint8 images (H, W, 3) of any sizes. The values are means over all
    pixels, 0 to 255; the difference is the largest of any pixel, over 255."""
    import torch

    from eval.features.inception_v3_clean import resize_clean
    from eval.features.tensorflow_resize import resize_bilinear_tf1

    def tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).permute(2, 0, 1)[None].float()

    def half_pixel(image: np.ndarray) -> np.ndarray:  # as inception-tfgan does
        resized = torch.nn.functional.interpolate(tensor(image), (size, size), mode="bilinear")
        return resized.numpy()[0]

    def tensorflow_1(image: np.ndarray) -> np.ndarray:
        return resize_bilinear_tf1(tensor(image), size).numpy()[0]

    clean, legacy = (
        partial(libraries.clean_fid_resized, mode=mode, size=size)
        for mode in ("clean", "legacy_pytorch")
    )
    fidelity = partial(libraries.torch_fidelity_resized, size=size)
    for metric, library, ours, theirs in (
        ("Pillow bicubic", "clean-fid", partial(resize_clean, size=size), clean),
        ("bilinear, half-pixel centres", "clean-fid", half_pixel, legacy),
        ("TensorFlow 1 bilinear", "torch-fidelity", tensorflow_1, fidelity),
    ):
        metric = f"resize: {metric}"
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
