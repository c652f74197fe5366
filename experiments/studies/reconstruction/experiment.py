"""What reconstruction asks: mask ratios and seeds, and medians over many masks of a few images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from experiments.engine.cells import Build
from experiments.engine.keys import MISSING
from experiments.engine.options import FeatureWeightsOptions, FillingOptions
from experiments.own import chosen_preset, usual_classes
from experiments.sampler.building import make_build
from experiments.sampler.held_out import find_held_out
from experiments.sampler.resources import find_resources
from experiments.studies.tokenizer import lpips_sha256, tokenizer_tasks
from maskgit.common.errors import UsageError

NAME = "reconstruction"
IMAGES, QUICK_IMAGES = 200, 32
QUICK_TOKENIZER = 200  # held-out images of the tokenizer's own numbers
QUICK_MASKS, QUICK_SAMPLES = 2, 20
MEDIAN_RATIOS = (0.95, 0.9, 0.85, 0.8, 0.75)  # the paper's Figure 9


@dataclass(frozen=True)
class Options(FillingOptions, FeatureWeightsOptions):
    """Reconstruction from masked tokens: the paper's Figures 9 and 10."""

    ratios: str = "0,0.05..0.95:0.05,0.97,0.99"
    """Shares of masked tokens, such as 0,0.05..0.95:0.05,0.99."""
    T: int = 8
    """Iterations of MaskGIT that decode the masked tokens; 1 predicts all at once."""
    masks: int = 4
    """Masks of an image."""
    classes: str = "8,9"
    """Pictures show the first held-out image of each of these classes."""
    samples: int = 100
    """Masks behind the median image."""
    features: str | None = None
    """Feature network of rFID. Default: the preset's."""
    tokenizer_only: bool = False
    """Measure the tokenizer alone, on all held-out images; no transformer is needed."""

    def check(self) -> None:
        super().check()
        self.at_least(1, "masks", "samples")


def build(options: Options) -> Build:
    """A curve's cell for each ratio and seed, and a median's for each of the figure's ratios."""
    ratios, preset = parse_ratios(options.ratios), chosen_preset(options)
    samplers = [] if options.tokenizer_only else ["maskgit"]
    features = options.features or preset.features
    resources = find_resources(NAME, options, samplers, features=[features], held_out=True)
    every = resources.held_out
    if options.quick:
        every = find_held_out(preset, options.data, QUICK_TOKENIZER)
    alone = tokenizer_tasks(resources, every, features)
    if options.tokenizer_only:
        told = {"num_images": len(every), "masks": 0, "steps": 0}
        return make_build(resources, options, alone, {**told, "tokenizer_images": len(every)})
    classes = usual_classes(options, "classes", resources.held_out.present())
    numbers = resources.held_out.first_of_classes(preset, "--classes", classes)
    count = options.image_count(resources.held_out, IMAGES, QUICK_IMAGES)
    masks = min(QUICK_MASKS, options.masks) if options.quick else options.masks
    samples = min(QUICK_SAMPLES, options.samples) if options.quick else options.samples
    decoding: dict[str, Any] = {"steps": options.T, "precision": options.precision}
    shared = {**decoding, "num_images": count, "masks": masks}
    shared["lpips"] = lpips_sha256(resources) or MISSING
    tasks = [
        resources.task(
            {"part": "curve", "ratio": ratio, "seed": seed, **shared},
            cost=count * masks * (options.T + 6),
            size=count * masks,
        )
        for seed in options.seed_list()
        for ratio in ratios
    ]
    median = {"part": "median", "seed": options.seed_list()[0], **decoding}
    tasks += [
        resources.task(
            {**median, "ratio": ratio, "images": numbers, "samples": samples},
            cost=len(numbers) * samples * (options.T + 4),
            size=len(numbers) * samples,
        )
        for ratio in MEDIAN_RATIOS
    ]
    tasks += alone
    protocol = {"num_images": count, "tokenizer_images": len(every), "masks": masks}
    protocol |= {"steps": options.T, "samples": samples}
    return make_build(resources, options, tasks, protocol)


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
