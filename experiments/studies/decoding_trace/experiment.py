"""What decoding_trace asks: every iteration of MaskGIT and of the baseline, for a few classes."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.engine.cells import Build
from experiments.engine.grid import parse_integers
from experiments.engine.options import PrecisionOptions, SeedOptions
from experiments.own import chosen_preset, usual_classes
from experiments.sampler.building import make_build
from experiments.sampler.resources import find_resources
from experiments.studies.tables import BASELINE, BASELINE_WORDS, why_no_baseline
from maskgit.common.errors import UsageError

NAME = "decoding_trace"


@dataclass(frozen=True)
class Options(SeedOptions, PrecisionOptions):
    """Masks and images of every iteration: the paper's Figure 2, also as an animation."""

    T: int = 8
    """Iterations of MaskGIT."""
    classes: str = "1,8,9"
    """Classes to show, such as 1,8,9."""

    def check(self) -> None:
        super().check()
        self.at_least(1, "T")
        if len(self.seed_list()) > 1:
            raise UsageError(f"--seeds {self.seeds}: the figure shows one seed; give one")


def build(options: Options) -> Build:
    """One cell for each sampler."""
    preset, absent = chosen_preset(options), why_no_baseline(options)
    classes = [0, 0, 0]  # of a preset without classes: three samples
    if preset.conditional:
        every = range(preset.num_classes)
        text = usual_classes(options, "classes", every)
        classes = parse_integers(text, "--classes", 0, every[-1])
    steps = {"maskgit": options.T} | ({} if absent else {BASELINE: preset.num_tokens})
    resources = find_resources(NAME, options, steps)
    cell = {"seed": options.seed_list()[0], "classes": classes, "precision": options.precision}
    tasks = [
        resources.task(
            {"sampler": sampler, "steps": T, **cell}, cost=len(classes) * T, size=len(classes)
        )
        for sampler, T in steps.items()
    ]
    return make_build(resources, options, tasks, {}, missing={BASELINE_WORDS: absent})
