"""The declaration of a metric, and the arguments of its function.

Each metric's file declares it (`METRIC`) beside its function; `eval.metrics.registry` lists them
all. A function turns features of generated images and a reference into entries:
name -> {"value", "sd"?, "error"?, "error_is"?, ...}. Metrics that come from one computation, like
precision and recall, share their function, which then returns both entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.features.registry import Features
from eval.reference.files import Reference

Entry = dict[str, Any]
NEEDS = ("features", "logits", "reference", "real_features", "held_out")


@dataclass(frozen=True)
class Settings:
    """Settings of a measurement, which two users may choose differently.

    Attributes:
        k: the neighbour that sets a ball's radius in precision and recall.
        equal_sizes: whether the metrics on balls take only as many real features as there are
            generated ones (the first, which are a random and class-balanced subset), or all.
        device: torch device of the metrics on balls; changes no number.
    """

    k: int = 3
    equal_sizes: bool = False
    device: str = "cpu"


class PreparedReference:
    """A reference with the results that metrics compute from it alone, for any number of sets."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._kept: dict[str, tuple[tuple[object, ...], Any]] = {}

    def once(self, what: str, make: Callable[[], Any], *settings: object) -> Any:
        """The result of `make`, which is called again only for settings unlike the last ones."""
        if what not in self._kept or self._kept[what][0] != settings:
            self._kept[what] = settings, make()
        return self._kept[what][1]

    def real_features(self, metric: str, samples: Features, settings: Settings) -> np.ndarray:
        """The real features for a metric on balls; see `Settings.equal_sizes`.

        Raises:
            Unavailable: the reference is a mean and a covariance only.
        """
        kept = self.reference.kept_features(metric)
        return kept[: len(samples.features)] if settings.equal_sizes else kept


Measure = Callable[[Features, PreparedReference, Settings], dict[str, Entry]]
Describe = Callable[[Settings, PreparedReference], dict[str, object]]


@dataclass(frozen=True)
class Metric:
    """A metric as command lines, results and reports know it.

    Attributes:
        name: on command lines and in results.
        version: increased whenever a number changes on the same input.
        label: heading of a column.
        digits: decimals that are shown.
        direction: "lower" or "higher" is better; "" if neither.
        unit: of the value; empty if it has none.
        needs: some of NEEDS. A metric that needs "held_out" compares with held-out real images or
            tokens and not with features.
        function: computes it from features (and shares its computation with the metrics that have
            the same function); None for metrics on something else, such as pairs of images, whose
            file says how they are called.
        network: the feature network it is always computed on; empty for any.
        id_form: its id; `{features}` stands for the feature network's name.
        describe: what its numbers depend on beside the images and the feature network, for the
            protocol.
    """

    name: str
    version: int
    label: str
    digits: int
    direction: str
    unit: str = ""
    needs: frozenset[str] = frozenset({"features", "reference"})
    function: Measure | None = None
    network: str = ""
    id_form: str = "{name}.{features}.v{version}"
    describe: Describe | None = None

    def id(self, features: str = "") -> str:
        """Name, feature network and version: only numbers with equal ids may share a column."""
        return self.id_form.format(name=self.name, features=features, version=self.version)
