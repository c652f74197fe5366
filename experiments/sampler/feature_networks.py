"""Feature networks that measure, each with the statistics of the real images on it.

Either may be missing on this machine. Then the metrics that need it are missing too, with the
reason, and the others go on; the word MISSING stands for its sha256 in keys, so that a cell is
computed anew when the file has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.features.registry import EXTRACTORS, extractor_class, get_extractor
from eval.metrics.metric import PreparedReference
from eval.reference.files import load_reference
from eval.weights.files import SOURCES, checked_weights
from experiments.engine.cells import plain_reason
from experiments.engine.keys import MISSING
from maskgit.common.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from eval.features.registry import Extractor
    from eval.metrics.metric import PreparedReference
    from maskgit.presets import Preset


@dataclass(frozen=True)
class FeatureNetwork:
    """A feature network and a reference, by name, with what they hash to (or MISSING)."""

    name: str
    reference: str
    weights_sha256: str
    reference_sha256: str
    why_missing: str = ""  # why the network cannot be used
    why_no_reference: str = ""  # why the reference cannot; without the network there is none either
    folder: Path | None = None  # with the weights, as --feature-weights

    def extractor(self, device: str) -> Extractor:
        """The network on a device.

        Raises:
            UsageError: its weights were replaced after the run began.
        """
        extractor = get_extractor(self.name, self.folder, device)
        _check_same(f"the weights of {self.name}", extractor.weights_sha256, self.weights_sha256)
        return extractor

    def load_reference(self) -> PreparedReference:
        """The reference, which keeps what metrics compute from it once; raises as `extractor`."""
        reference = load_reference(self.reference, self.name, self.folder)
        _check_same(f"the reference {self.reference}", reference.sha256, self.reference_sha256)
        return PreparedReference(reference)


def class_columns(classifier: Extractor, preset: Preset) -> np.ndarray:
    """Which logits of a classifier are the preset's classes, by their names: int64 (classes,).

    Raises:
        Unavailable: it does not know one of them, or nobody knows its classes.
    """
    known = {name: column for column, name in enumerate(classifier.class_names)}
    for name in preset.class_names:
        if name not in known:
            raise Unavailable(
                f"{classifier.name} does not know the class {name!r} of preset {preset.name}: "
                "--classifier NAME names a network that does"
            )
    return np.array([known[name] for name in preset.class_names], np.int64)


def _check_same(what: str, loaded: str, expected: str) -> None:
    if loaded != expected:
        raise UsageError(f"{what}: replaced while the run went on; start it again")


def find_feature_network(
    name: str, reference: str, folder: Path | None, image_shape: tuple[int, int, int]
) -> FeatureNetwork:
    """Look whether the weights of a feature network and a reference are here; nothing is loaded.

    image_shape: (height, width, channels) of the preset's images.

    Raises:
        UsageError: an unknown name, or a damaged file.
    """
    if name not in EXTRACTORS:
        raise UsageError(f"--features {name}: expected one of {', '.join(EXTRACTORS)}")
    # Only a network with the weights of another one has to be imported, torch and all, to tell.
    source = name if name in SOURCES else extractor_class(name).weights
    try:
        weights = checked_weights(source, folder)
    except Unavailable as error:
        why = plain_reason(error)
        return FeatureNetwork(name, reference, MISSING, MISSING, why, why, folder)
    try:
        found = load_reference(reference, name, folder)
        found.check_geometry(*image_shape[:2])
        sha256, why = found.sha256, ""
    except Unavailable as error:
        sha256, why = MISSING, plain_reason(error)
    return FeatureNetwork(name, reference, weights.sha256, sha256, "", why, folder)
