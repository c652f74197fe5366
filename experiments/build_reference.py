"""Build the reference statistics that a preset's experiments compare with, from its own images.

    python -m experiments.build_reference --preset imagenet256 --data FOLDER
    python -m experiments.build_reference      # the shipped one, of Fashion-MNIST's training images

Photos are cut as the samples are: the shorter side scaled to the preset's size, the central square.
A reference is built for every feature network of the preset whose weights are here; a build that
was interrupted goes on. Folders that belong to no preset: python -m eval.reference build.
"""

from __future__ import annotations

import sys
from pathlib import Path

from eval.reference.files import REFERENCES
from experiments.studies.references import build, write_shipped
from maskgit.common.cli import exit_code, parse
from maskgit.common.errors import Unavailable
from maskgit.presets import load_preset


def run(
    preset: str = "embedded",
    data: Path | None = None,
    features: str | None = None,
    num_images: int | None = None,
    feature_weights: Path | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> None:
    """Build the references of a preset.

    Args:
        preset: whose reference.
        data: folder with images, train/CLASS/* and val/CLASS/*; of the embedded preset that of
            Fashion-MNIST's IDX files (default: the places maskgit.data.fashion_mnist knows).
        features: one feature network. Default: those that the preset's tables are measured on.
        num_images: use so many of the images, drawn with a fixed seed, for a trial.
        feature_weights: folder with the networks' weights.
        device: torch device; auto takes a GPU if there is one.
        out: of the embedded preset, the npz to write (default: where eval looks for it).
    """
    chosen = load_preset(preset)
    if chosen.reference in REFERENCES:  # the shipped one
        write_shipped(chosen.reference, data, out)
        return
    usual = (chosen.features, chosen.precision_recall_features, chosen.diversity_features)
    built, reasons = 0, []
    for name in [features] if features else dict.fromkeys(filter(None, usual)):
        try:
            print(build(chosen, data, str(name), num_images, feature_weights, device))
            built += 1
        except Unavailable as error:
            print(f"not built: {error}", file=sys.stderr)
            reasons.append(str(error))
    if not built:
        raise Unavailable(reasons[0])


if __name__ == "__main__":
    prog = "python -m experiments.build_reference"
    sys.exit(exit_code(lambda: parse(run, sys.argv[1:], prog, __doc__)()))
