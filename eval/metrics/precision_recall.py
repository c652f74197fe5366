"""Improved precision and recall (Kynkaanniemi et al. 2019), k = 3.

A set of features spans a manifold: the union of balls around its points, each reaching to the
point's k-th nearest neighbour in the set. Precision is the share of generated points inside the
real manifold, recall the share of real points inside the generated one. Both depend on the sizes
of the two sets: compare only numbers of equal sizes.

The result is exact: where rounding could decide (a point lies on the rim of a ball, as when images
are repeated or copied from the training set), differences in float64 do, so it does not depend on
blocks, threads or device. `eval/neighbours/search.py` says how most pairs are spared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eval.features.registry import Features
from eval.metrics.metric import Entry, Metric, PreparedReference, Settings
from eval.metrics.statistics import check_features
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    import torch

    from eval.neighbours.projection import Points


class Manifold:
    """A set of features and the ball around each of them, built once for many questions.

    Attributes:
        k: the neighbour that sets a ball's radius.
        points: the features, a tensor (n, D), float32 if they came so, else float64.
        radii: squared radius of each ball, float64 (n,).

    Args:
        features: (n, D), n > k.
        k, what: see above; what the features are called in an error.
        like: a manifold that will be compared with this one, which makes both faster and changes
            no number; the device is taken from it.
        device: torch device, which changes no number.

    Raises:
        UsageError: wrong shape, NaN or infinite values, k < 1, or fewer than k + 1 points.
    """

    def __init__(
        self,
        features: np.ndarray,
        k: int = 3,
        what: str = "features",
        like: Manifold | None = None,
        device: str = "cpu",
    ) -> None:
        if k < 1:
            raise UsageError(f"precision/recall k={k}: at least 1 is needed")
        features = check_features(features, what)
        if len(features) < k + 1:
            raise UsageError(
                f"{what}: precision/recall with k={k} needs at least {k + 1} images, "
                f"got {len(features)}"
            )
        self.k = k
        if like is not None:
            features, device = like._fitting(features), like.device
        self.device: str = device
        self._cloud: Any = make_cloud(features, None if like is None else like._cloud, device)
        self.radii = self._cloud.squared_radii(k)

    @property
    def points(self) -> torch.Tensor:
        return self._cloud.points

    def counts(self, features: np.ndarray | Manifold) -> np.ndarray:
        """How many points of an array (m, D), or of another manifold, each ball holds (the rim
        left out); int64 (n,).

        Raises:
            UsageError: wrong shape, another number of columns, NaN or infinite values.
        """
        if isinstance(features, Manifold):
            self._fitting(features.points[:1].numpy())
            asked: np.ndarray | Points = features._cloud
        else:
            asked = self._fitting(check_features(features))
        return self._cloud.counts_inside(asked, self.radii).numpy()

    def _fitting(self, features: np.ndarray) -> np.ndarray:
        if features.shape[1] != self.points.shape[1]:
            raise UsageError(
                f"features: {features.shape[1]} columns, the manifold has {self.points.shape[1]}"
            )
        return features


def make_cloud(features: np.ndarray, like: Any, device: str) -> Any:
    """The search for neighbours among features: by bounds on a CPU, by all pairs elsewhere."""
    from eval.neighbours.dense import DenseCloud
    from eval.neighbours.search import Cloud

    return Cloud(features, like) if device == "cpu" else DenseCloud(features, device)


def precision_recall(
    real: np.ndarray | Manifold, generated: np.ndarray, k: int = 3, device: str = "cpu"
) -> tuple[float, float]:
    """Precision and recall, each in [0, 1].

    Args:
        real: features (n, D), or their `Manifold` with the same k (prepared once for many calls).
        generated: features (m, D); m may differ from n.
        k: the neighbour that sets a ball's radius.
        device: torch device, which changes no number; a manifold has its own.

    Raises:
        UsageError: wrong shapes, NaN or infinite values, or fewer than k + 1 points on a side.
    """
    if not isinstance(real, Manifold):
        real = Manifold(real, k, "real features", device=device)
    elif real.k != k:
        raise UsageError(f"the real manifold was built with k={real.k}, asked for k={k}")
    fake = Manifold(generated, k, "generated features", like=real)
    precise, recalled = real._cloud.inside_each(fake._cloud, real.radii, fake.radii)
    return float(precise.double().mean()), float(recalled.double().mean())


def prepared_manifold(
    reference: PreparedReference, real: np.ndarray, k: int, metric: str, device: str
) -> Manifold:
    """The manifold of a reference's features for a metric, computed once."""

    def make() -> Manifold:
        return Manifold(real, k, "real features", device=device)

    return reference.once(f"manifold of {metric}", make, k, len(real), device)


def _measure(
    samples: Features, reference: PreparedReference, settings: Settings
) -> dict[str, Entry]:
    real = reference.real_features("precision-recall", samples, settings)
    manifold = prepared_manifold(reference, real, settings.k, "precision-recall", settings.device)
    precision, recall = precision_recall(manifold, samples.features, settings.k)
    values = {"precision": precision, "recall": recall}
    return {name: {"value": value, "real_n": len(real)} for name, value in values.items()}


def _describe(settings: Settings, reference: PreparedReference) -> dict[str, object]:
    return {
        "precision_recall_k": settings.k,
        "precision_recall_reference_n": len(reference.reference.features),
    }


_NEEDS = frozenset({"features", "reference", "real_features"})
PRECISION, RECALL = (
    Metric(name, 1, label, 3, "higher", needs=_NEEDS, function=_measure, describe=_describe)
    for name, label in (("precision", "Precision"), ("recall", "Recall"))
)
