"""What class_conditional asks: MaskGIT at several T beside the baseline, and CAS of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.engine.cells import Build
from experiments.own import chosen_preset
from experiments.sampler.building import make_build
from experiments.sampler.held_out import find_held_out
from experiments.sampler.resources import find_resources
from experiments.studies.cas import cas_tasks
from experiments.studies.real_images import real_images
from experiments.studies.tables import (
    BASELINE_WORDS,
    CasOptions,
    compared_samplers,
    why_no_baseline,
)
from experiments.studies.tokenizer import tokenizer_tasks

NAME = "class_conditional"
COLUMNS, SHOWN = 4, 10  # pictures of a class, classes
BALLS = ("precision", "recall", "density", "coverage")  # on the preset's second feature network


@dataclass(frozen=True)
class Options(CasOptions):
    """Class-conditional samples measured and shown: the paper's Table 1, Figures 5 and 11 to 13."""

    usual_metrics: ClassVar[tuple[str, ...]] = ("fid", "is", "precision", "recall")


def build(options: Options) -> Build:
    """The cells of both samplers, of CAS, and of real images of the same classes."""
    preset, absent = chosen_preset(options), why_no_baseline(options)
    rows = compared_samplers(preset, options, absent, options.seed_list())
    count = rows[0].num_samples
    main = options.features or preset.features
    second = preset.precision_recall_features or main
    measured = {name: second if name in BALLS else main for name in options.metric_list(count)}
    resources = find_resources(NAME, options, rows, metrics=measured, features=[main, second])
    every = max(1, preset.num_classes // SHOWN)
    shown = {"shown": list(range(0, preset.num_classes, every))[:SHOWN], "columns": COLUMNS}
    tasks = [
        resources.task(
            {"part": "measure", **row.as_dict(), "features": [main, second], **shown},
            cost=count * (row.steps + 4),
            size=count,
        )
        for row in rows
    ]
    real = real_images(preset, options.data)
    pictures = {"part": "pictures", **shown, "real_images": real.sha256[:16]}
    tasks.append(resources.task(pictures, cost=COLUMNS * SHOWN, size=COLUMNS * SHOWN))
    # As many as there are samples, like the rows above it, if there are so many.
    asked = options.held_out or min(count, preset.held_out or count)
    tasks += tokenizer_tasks(resources, find_held_out(preset, options.data, asked), main)
    more, words, no_cas = cas_tasks(resources, options, real, no_baseline=absent, randaugment=True)
    missing = {BASELINE_WORDS: absent, "CAS": no_cas}
    protocol = {"num_samples": count, **words}
    return make_build(resources, options, tasks + more, protocol, missing=missing)
