"""The cells of the reconstruction study: mask ratios from a flag, tasks, the report's protocol."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from experiments.studies.reconstruction.compute import LPIPS_NET
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.engine.cells import Task
    from experiments.reconstruction import Options
    from experiments.studies.base import Study

IMAGES, QUICK_IMAGES = 200, 32
QUICK_MASKS = 2
MEDIAN_RATIOS = (0.95, 0.9, 0.85, 0.8, 0.75)  # the paper's Figure 9


def parse_ratios(text: str) -> list[float]:
    """Mask ratios from `0,0.05..0.95:0.05,0.99`: rising, each once.

    Raises:
        UsageError: something else, or outside [0, 1).
    """
    ratios: set[float] = set()
    for item in text.split(","):
        ends, _, stride = item.strip().partition(":")
        first, dots, last = ends.partition("..")
        try:
            low = float(first)
            high, by = (float(last), float(stride)) if dots else (low, 1.0)
            if not dots and stride:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"--ratios {text}: {item.strip()!r} is not of the form 0.5 or 0.05..0.95:0.05"
            ) from None
        if not (0 <= low <= high < 1 and math.isfinite(by) and by >= 0.001):
            raise UsageError(
                f"--ratios {text}: {item.strip()!r}: expected shares from 0 to below 1, rising, "
                "by 0.001 or more"
            )
        count = math.floor((high - low) / by + 1e-9)
        ratios |= {round(low + i * by, 6) for i in range(count + 1)}
    return sorted(ratios)


def reconstruction_tasks(
    study: Study, options: Options, ratios: list[float], numbers: list[int]
) -> tuple[list[Task], dict[str, Any]]:
    """numbers: of the held-out images that are shown."""
    if options.masks < 1 or options.samples < 1:
        raise UsageError(f"--masks {options.masks} --samples {options.samples}: at least 1")
    wanted = options.num_samples or (QUICK_IMAGES if options.quick else IMAGES)
    count = min(wanted, len(study.request.held_out))
    masks = min(QUICK_MASKS, options.masks) if options.quick else options.masks
    samples = min(20, options.samples) if options.quick else options.samples
    shared: dict[str, Any] = {"steps": options.steps, "num_images": count, "masks": masks}
    shared["lpips"] = _lpips(options)
    tasks = [
        study.task(
            {"part": "curve", "ratio": ratio, "seed": seed, **shared},
            cost=count * masks * (options.steps + 6),
            size=count * masks,
        )
        for seed in options.seed_list()
        for ratio in ratios
    ]
    tasks += [
        study.task(
            {
                "part": "median",
                "ratio": ratio,
                "seed": options.seed_list()[0],
                "steps": options.steps,
                "images": numbers,
                "samples": samples,
            },
            cost=len(numbers) * samples * (options.steps + 4),
            size=len(numbers) * samples,
        )
        for ratio in MEDIAN_RATIOS
    ]
    return tasks, {"num_images": count, "masks": masks, "steps": options.steps, "samples": samples}


def _lpips(options: Options) -> str:
    """The weights of LPIPS' network, or "missing": part of a cell."""
    from eval.metrics.lpips_distance import NETS
    from eval.weights.files import weights_sha256
    from experiments.engine.reasons import MISSING
    from maskgit.common.errors import UsageError as NoWeights

    try:
        return weights_sha256(NETS[LPIPS_NET][0], options.weights_dir)[:16]
    except NoWeights:
        return MISSING
