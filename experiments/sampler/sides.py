"""What measures samples: a feature network and the real images' statistics on it, if they are here.

Either may be missing on this machine. Then the metrics that need it are missing too, with the
reason, and the others go on; the word MISSING stands for its sha256 in keys, so that a cell is
computed anew when the file has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.engine.reasons import MISSING, plain_reason
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from eval.features.registry import Extractor
    from eval.reference.files import Reference


@dataclass(frozen=True)
class Side:
    """A feature network and a reference, by name, with what they hash to (or MISSING)."""

    features: str
    reference: str
    weights: str
    statistics: str
    no_features: str = ""  # why the network cannot be used
    no_reference: str = ""  # why the reference cannot; with no network there is none either
    weights_dir: Path | None = None

    def extractor(self, device: str) -> Extractor:
        """The feature network on a device."""
        from eval.features.registry import get_extractor

        return get_extractor(self.features, self.weights_dir, device)

    def real(self) -> Reference:
        """The reference."""
        from eval.reference.files import load_reference

        return load_reference(self.reference, self.features, self.weights_dir)


def find_side(
    features: str, reference: str, weights_dir: Path | None, image_shape: tuple[int, int, int]
) -> Side:
    """Look whether a feature network and a reference are here and take such images.

    image_shape: (height, width, channels) of the preset's images.

    Raises:
        UsageError: (of any of our packages) an unknown name, a damaged file, or a network that does
            not take such images.
    """
    from eval.features.registry import extractor_names, get_extractor
    from eval.reference.files import load_reference
    from maskgit.common.errors import Unavailable

    if features not in extractor_names():
        raise UsageError(f"--features {features}: expected one of {', '.join(extractor_names())}")
    try:
        extractor = get_extractor(features, weights_dir)
    except Unavailable as error:
        reason = plain_reason(error)
        return Side(features, reference, MISSING, MISSING, reason, reason, weights_dir)
    # It says itself what it does not take, and preparing one image costs next to nothing.
    extractor.prepare(np.zeros((1, *image_shape), np.uint8))
    try:
        statistics, reason = load_reference(reference, features, weights_dir).sha256, ""
    except Unavailable as error:
        statistics, reason = MISSING, plain_reason(error)
    return Side(features, reference, extractor.weights_sha256, statistics, "", reason, weights_dir)
