"""What failure_cases asks: samples, reconstructions, outpaintings, the worst of them first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from experiments.engine.cells import Build
from experiments.engine.options import ClassifierOptions, FillingOptions, RunOptions, StageOptions
from experiments.own import chosen_preset
from experiments.sampler.building import make_build
from experiments.sampler.resources import find_resources
from experiments.sampler.samplers import sampling

NAME = "failure_cases"
IMAGES, QUICK_IMAGES = 2000, 100
SAMPLES, QUICK_SAMPLES = 2000, 200
EDGES = 500  # images that are outpainted, at most


@dataclass(frozen=True)
class Options(FillingOptions, ClassifierOptions, StageOptions):
    """Where it goes wrong, by measure: the paper's Figure 21."""

    ALIASES: ClassVar[dict[str, str]] = {**RunOptions.ALIASES, "--features": "--classifier"}

    start: int = 2
    """First iteration of outpainting, of 0..T-1."""

    def check(self) -> None:
        super().check()
        self.check_start(self.start)


def build(options: Options) -> Build:
    """The cells of samples, real images, reconstructions and of each direction's boundary."""
    from maskgit.sampling.editing import DIRECTIONS

    preset, seeds = chosen_preset(options), options.seed_list()
    classifier = options.classifier_name(preset)
    resources = find_resources(NAME, options, ["maskgit"], features=[classifier], held_out=True)
    count = options.image_count(resources.held_out, IMAGES, QUICK_IMAGES)
    samples = options.num_samples or (QUICK_SAMPLES if options.quick else SAMPLES)
    edges, precision = min(count, EDGES), options.precision
    cells: list[dict[str, Any]] = []
    for seed in seeds:
        settings = sampling(
            preset, steps=options.T, seed=seed, num_samples=samples, precision=precision
        )
        cells.append({"part": "samples", "classifier": classifier, **settings.as_dict()})
    shared = {"seed": seeds[0], "num_images": count}
    cells += [{"part": "real", "classifier": classifier, **shared}]
    cells += [{"part": "reconstruction", **shared}]
    boundary = {"part": "boundary", "num_images": edges, "steps": options.T, "precision": precision}
    cells += [
        {**boundary, "start": options.start, "direction": direction, "seed": seed}
        for direction in DIRECTIONS
        for seed in seeds
    ]
    tasks = []
    for cell in cells:
        size = cell.get("num_samples") or cell["num_images"]
        tasks.append(resources.task(cell, cost=size * (4 + cell.get("steps", 1)), size=size))
    protocol = {"num_images": count, "num_samples": samples, "boundary_images": edges}
    told = {**protocol, "classifier": classifier, "steps": options.T}
    return make_build(resources, options, tasks, told)
