"""What diversity asks: precision and recall on another network, and CAS without RandAugment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.engine.cells import Build
from experiments.own import chosen_preset
from experiments.sampler.building import make_build
from experiments.sampler.resources import find_resources
from experiments.studies.cas import cas_tasks
from experiments.studies.real_images import real_images
from experiments.studies.tables import (
    BASELINE_WORDS,
    CasOptions,
    compared_samplers,
    why_no_baseline,
)

NAME = "diversity"


@dataclass(frozen=True)
class Options(CasOptions):
    """Diversity on other measures: the paper's Table 5."""

    usual_metrics: ClassVar[tuple[str, ...]] = ("precision", "recall")


def build(options: Options) -> Build:
    """The cells of both samplers and of CAS."""
    preset, absent = chosen_preset(options), why_no_baseline(options)
    rows = compared_samplers(preset, options, absent, options.seed_list())
    count = rows[0].num_samples
    name = options.features or preset.diversity_features or preset.features
    resources = find_resources(
        NAME, options, rows, metrics=dict.fromkeys(options.metric_list(), name)
    )
    real = real_images(preset, options.data)
    tasks = [
        resources.task(
            {
                "part": "measure",
                **row.as_dict(),
                "features": name,
                "real_images": real.sha256[:16],
            },
            cost=count * (row.steps + 30),
            size=count,
        )
        for row in rows
    ]
    more, words, no_cas = cas_tasks(resources, options, real, no_baseline=absent, randaugment=False)
    missing = {BASELINE_WORDS: absent, "CAS": no_cas}
    if not resources.features[name].why_missing and not real.why:
        # Features of real images take the place of a reference that is not here.
        missing[f"FID, KID, precision and recall on {name}"] = ""
    protocol = {"num_samples": count, "network": name, "real_features": real.words, **words}
    return make_build(resources, options, tasks + more, protocol, missing=missing)
