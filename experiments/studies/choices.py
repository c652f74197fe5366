"""What the editing studies read off their flags: decoding, boxes, held-out images, the baseline.

Nothing heavy is imported at the top: scripts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.engine.grid import parse_integers
from experiments.engine.reasons import plain_reason
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.studies.base import Study
    from experiments.studies.options import StudyOptions
    from maskgit.sampling.editing import Box


def check_decoding(steps: int, start: int = 0) -> None:
    """--steps and --start. Raises UsageError."""
    if steps < 1:
        raise UsageError(f"--steps {steps}: must be at least 1")
    if not 0 <= start < steps:
        raise UsageError(f"--start {start}: must be from 0 to {steps - 1}, below --steps")


def parse_box(text: str, side: int) -> Box:
    """TOP,LEFT,HEIGHT,WIDTH inside images of that side; empty: the lower half, less an eighth of
    the width on both sides.

    Raises:
        UsageError: anything else.
    """
    from maskgit.sampling.editing import Box

    if not text:
        return Box(side // 2, side // 8, side // 2, side - 2 * (side // 8))
    words = [word.strip() for word in text.split(",")]
    if len(words) != 4 or not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"--box {text}: expected TOP,LEFT,HEIGHT,WIDTH in pixels")
    box = Box(*map(int, words))
    box.check(side, side)
    return box


def image_count(study: Study, options: StudyOptions, most: int, quick: int) -> int:
    """--num-samples, or the study's usual number; never more than there are held-out images."""
    wanted = options.num_samples or (quick if options.quick else most)
    return min(wanted, len(study.request.held_out))


def first_images(study: Study, flag: str, text: str) -> list[int]:
    """Numbers of the first held-out image of each class in `text` (flag: its name).

    A preset without classes: as many images from the first on.

    Raises:
        UsageError: no such class, or no image of it.
    """
    preset = study.preset
    if not preset.conditional:
        return list(range(len(text.split(","))))
    classes = parse_integers(text, flag, 0, preset.num_classes - 1)
    labels = study.request.held_out.labels
    absent = [c for c in classes if c not in labels]
    if absent:
        raise UsageError(f"{flag} {text}: no held-out image is of class {absent[0]}")
    return [labels.index(c) for c in classes]


def labels_of_images(study: Study, images: Sequence[int]) -> list[int]:
    """Classes of held-out images."""
    return [study.request.held_out.labels[i] for i in images]


def no_baseline(options: StudyOptions) -> str:
    """Why the autoregressive baseline cannot be used; empty if it is here."""
    from maskgit.checkpoints.paths import model_path
    from maskgit.common.errors import UsageError as NoModel
    from maskgit.presets import get_preset

    try:
        model_path(get_preset(options.preset), "autoregressive", options.weights)
    except NoModel as error:
        return plain_reason(error)
    return ""


def missing_words(study: Study, baseline: str = "") -> dict[str, dict[str, str]]:
    """The protocol's entry of what is missing: the study's own, and the baseline if it is."""
    missing = study.request.unavailable()
    missing |= {"the autoregressive baseline": baseline} if baseline else {}
    return {"missing": missing} if missing else {}
