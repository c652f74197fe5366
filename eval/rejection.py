"""Classifier-based rejection sampling: draw more samples than are wanted, keep those that a
classifier is surest of.

The paper's Table 4 (appendix B) scores samples by a pretrained ResNet's probability of the class
they were drawn for and keeps 1 in 20, acceptance rate 0.05, as VQGAN does. Here each class keeps
that share of its own samples, so the classes stay as balanced as they were drawn. To have n samples
at rate r, n / r must be drawn, and that is part of what they cost: `Accepted` says how many.

A classifier that rejects should not be the one that measures: samples chosen for its confidence
raise its own Inception Score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from eval.features.registry import EXTRACTORS, Extractor, extractor_info, get_extractor, load_state
from maskgit.common.errors import UsageError, one_line

if TYPE_CHECKING:
    import torch

PAPER_RATE = 0.05  # Table 4
RESIZE, CROP = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Accepted(NamedTuple):
    """What a rejection leaves.

    Attributes:
        ids: int64 (kept,) of the samples kept, ascending: their positions, unless ids were given.
        labels: int64 (kept,), their classes.
        drawn: samples that were drawn for them.
        kept: their number; a kept sample costs drawn / kept.
    """

    ids: np.ndarray
    labels: np.ndarray
    drawn: int
    kept: int


def check_rate(rate: float) -> Fraction:
    """The acceptance rate as the decimal fraction that is written, so that 1 / 0.05 is 20.

    Raises:
        UsageError: not in (0, 1].
    """
    if not (isinstance(rate, (int, float)) and math.isfinite(rate) and 0 < rate <= 1):
        raise UsageError(f"acceptance rate {rate}: expected a number above 0, up to 1")
    return Fraction(repr(float(rate)))


def num_drawn(num_kept: int, rate: float) -> int:
    """Samples of a class to draw so that `num_kept` are kept: kept / rate, rounded up."""
    return math.ceil(num_kept / check_rate(rate))


def num_kept(num_drawn: int, rate: float) -> int:
    """Samples of a class kept of `num_drawn`: drawn * rate, rounded down."""
    return math.floor(num_drawn * check_rate(rate))


def labels_to_draw(labels: np.ndarray, rate: float) -> np.ndarray:
    """Classes of the samples to draw so that `labels` are kept.

    Args:
        labels: int (n,) classes wanted.
        rate: acceptance rate in (0, 1].

    Returns:
        int64 (m,), m = sum of n_c / rate rounded up. The classes take turns in the order of
        `labels`, so any beginning of it is about balanced; at rate 1 it is `labels`.
    """
    labels = _check_labels(labels)
    repeated = np.tile(labels, math.ceil(1 / check_rate(rate)))
    needed = np.array([num_drawn(int(n), rate) for n in np.bincount(labels)], np.int64)
    order = np.argsort(repeated, kind="stable")
    starts = np.searchsorted(repeated[order], np.arange(len(needed)))
    place = np.empty_like(order)  # of a sample among those of its class
    place[order] = np.arange(len(order)) - starts[repeated[order]]
    return repeated[place < needed[repeated]]


def class_scores(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How sure the classifier is of each sample's own class, as log odds: log p / (1 - p).

    They grow with the probability p, and still tell apart samples whose p rounds to 1.

    Args:
        logits: (n, L), unnormalised log-probabilities.
        labels: int (n,) in [0, L).

    Returns:
        float64 (n,), nats; infinity if there is but one class.

    Raises:
        UsageError: shapes that do not fit, NaN or infinite logits, or classes beyond L.
    """
    logits, labels = np.asarray(logits), _check_labels(labels)
    if logits.ndim != 2 or logits.shape[1] < 1 or len(logits) != len(labels):
        raise UsageError(
            f"logits {logits.shape} for {len(labels)} labels: expected ({len(labels)}, classes)"
        )
    if len(labels) and labels.max() >= logits.shape[1]:
        raise UsageError(
            f"label {labels.max()}: the classifier has classes 0 to {logits.shape[1] - 1}"
        )
    if logits.dtype.kind not in "fiu" or not np.isfinite(logits).all():
        raise UsageError(f"logits {logits.dtype}: expected finite numbers")
    values = logits.astype(np.float64)
    rows = np.arange(len(labels))
    own = values[rows, labels]
    values[rows, labels] = -np.inf
    return own - np.logaddexp.reduce(values, axis=1, initial=-np.inf)


def accept(logits: np.ndarray, labels: np.ndarray, rate: float) -> np.ndarray:
    """Which samples to keep: of each class the share `rate` with the highest probability of it.

    Args:
        logits: (n, L), the classifier's, of all samples drawn.
        labels: int (n,), the classes they were drawn for.
        rate: acceptance rate in (0, 1]; rate * n_c samples of a class are kept, rounded down. Of
            equal scores the earlier sample is kept.

    Returns:
        int64 indices, ascending.

    Raises:
        UsageError: as `class_scores`, or a rate out of range.
    """
    rejection = Rejection(rate)
    rejection.update(logits, labels)
    return rejection.accepted().ids


class Rejection:
    """`accept` for samples that come in batches; holds a score, a class and an id of each.

    A sample of this suite depends on (seed, id) only, so the images of those that are kept can be
    made again instead of being held.
    """

    def __init__(self, rate: float = PAPER_RATE) -> None:
        self.rate = rate
        check_rate(rate)
        self.drawn = 0
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def update(self, logits: np.ndarray, labels: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Score a batch.

        Args:
            logits, labels: as for `accept`.
            ids: int (n,), names of the samples, all different; default: 0, 1, 2, ... as they come.
                Of equal scores the lower id is kept, whatever the order of the batches.

        Raises:
            UsageError: as `class_scores`, or ids that do not fit.
        """
        scores, labels = class_scores(logits, labels), _check_labels(labels)
        ids = np.arange(self.drawn, self.drawn + len(labels)) if ids is None else np.asarray(ids)
        if ids.shape != labels.shape or ids.dtype.kind not in "iu":
            raise UsageError(f"ids {ids.dtype} {ids.shape}: expected {len(labels)} integers")
        self._parts.append((scores, labels, ids.astype(np.int64)))
        self.drawn += len(labels)

    def merge(self, other: Rejection) -> None:
        """Add what another worker has scored; both must have been given ids."""
        self._parts += other._parts
        self.drawn += other.drawn

    def accepted(self) -> Accepted:
        """The samples kept of all seen so far.

        Raises:
            UsageError: an id came twice.
        """
        empty = (np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
        columns = zip(*(self._parts or [empty]), strict=True)
        scores, labels, ids = (np.concatenate(column) for column in columns)
        if len(np.unique(ids)) < len(ids):
            raise UsageError("ids: a sample was scored twice")
        order = np.lexsort((ids, -scores, labels))
        by_class = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        chosen = np.concatenate([best[: num_kept(len(best), self.rate)] for best in by_class])
        chosen = chosen[np.argsort(ids[chosen])]
        return Accepted(ids[chosen], labels[chosen], self.drawn, len(chosen))


def classifier_names() -> list[str]:
    """Names that `get_classifier` accepts: resnet50 and the extractors with logits."""
    return ["resnet50", *(n for n in EXTRACTORS if extractor_info(n).num_logits > 0)]


def get_classifier(
    name: str, weights_dir: str | Path | None = None, device: str = "cpu"
) -> Extractor:
    """A classifier: `extract(images).logits` are what `accept` takes.

    Args:
        name: resnet50 (torchvision's, the paper's kind), or an extractor with logits:
            fashion-resnet, efficientnet-lite0, ...
        weights_dir, device: as for `eval.features.registry.get_extractor`.

    Raises:
        Unavailable: the weights are not on this machine.
        UsageError: unknown name, or a network without logits.
    """
    if name == "resnet50":
        return ResNet50Classifier(weights_dir, device)
    if name in EXTRACTORS and extractor_info(name).num_logits > 0:
        return get_extractor(name, weights_dir, device)
    raise UsageError(f"classifier {name!r}: expected one of {', '.join(classifier_names())}")


class ResNet50Classifier(Extractor):
    """torchvision's ResNet-50 (ImageNet, first weights): 2048 pooled features, 1000 logits."""

    name = "resnet50"
    dim = 2048
    num_logits = 1000
    chunk = 16
    input_range = "RGB (grey repeated) in [0, 1], ImageNet's mean and deviation"
    resize = f"shorter side to {RESIZE}, bilinear with antialiasing, central {CROP}x{CROP}"
    image_size = (CROP, CROP, 3)
    layer = "global average pool before the classifier"

    def load(self, path: Path) -> None:
        import torch
        from torchvision.models import resnet50

        with torch.device("meta"):
            model = resnet50()
        try:
            model.load_state_dict(load_state(path, self.name), assign=True)
        except RuntimeError as error:
            raise UsageError(f"{path}: not weights of {self.name} ({one_line(error)})") from error
        self.head = model.fc.to(self.device)
        model.fc = torch.nn.Identity()
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        import torch
        from torchvision.transforms.v2 import functional

        from eval.features.registry import rgb_tensor

        inputs = rgb_tensor(images, self.device)
        if min(inputs.shape[2:]) != RESIZE:
            inputs = functional.resize(inputs, [RESIZE], antialias=True)
        inputs = functional.center_crop(inputs, [CROP, CROP]).float() / 255
        mean, deviation = (torch.tensor(x, device=self.device) for x in (MEAN, DEVIATION))
        inputs = (inputs - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
        return inputs.contiguous(memory_format=torch.channels_last)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.model(inputs)
        return features, self.head(features)


def reject(
    classifier: Extractor,
    batches: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]],
    rate: float = PAPER_RATE,
) -> tuple[Accepted, dict[str, Any]]:
    """Score samples batch by batch and say which to keep.

    Args:
        classifier: of `get_classifier`.
        batches: of (images uint8 (b, H, W, C), labels int (b,), ids int (b,)).
        rate: acceptance rate in (0, 1].

    Returns:
        What is kept, and the protocol: classifier, rate, drawn, kept, drawn_per_kept.

    Raises:
        UsageError: as `Rejection`; or nothing is kept.
    """
    rejection = Rejection(rate)
    for images, labels, ids in batches:
        rejection.update(classifier.extract(images).logits, labels, ids)
    accepted = rejection.accepted()
    if accepted.kept == 0:
        raise UsageError(
            f"acceptance rate {rate:g}: nothing is kept of {accepted.drawn} samples, "
            f"expected {num_drawn(1, rate)} or more of a class"
        )
    protocol = {
        "rejection": "highest probability of the class, share of each class",
        "acceptance_rate": rate,
        "drawn": accepted.drawn,
        "kept": accepted.kept,
        "drawn_per_kept": accepted.drawn / accepted.kept,
        "classifier": classifier.protocol,
    }
    return accepted, protocol


def _check_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise UsageError(
            f"labels {labels.dtype} {labels.shape}: expected classes from 0, integers (n,)"
        )
    return labels.astype(np.int64)
