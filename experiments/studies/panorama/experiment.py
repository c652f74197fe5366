"""What panorama asks: held-out images grown sideways to several widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.engine.cells import Build
from experiments.engine.grid import parse_integers
from experiments.engine.options import FillingOptions
from experiments.own import chosen_preset, usual_classes
from experiments.sampler.building import make_build
from experiments.sampler.resources import find_resources
from maskgit.common.errors import UsageError

NAME = "panorama"
IMAGES, QUICK_IMAGES = 500, 50


@dataclass(frozen=True)
class Options(FillingOptions):
    """Outpainting repeated sideways to any width: the paper's Figure 15."""

    factors: str = "2,4"
    """Widths, in widths of the image."""
    overlap: float = 0.5
    """Share of a window that is known when it is decoded."""
    start: int = 2
    """First iteration in each window, of 0..T-1."""
    classes: str = "0,1,8,9"
    """Pictures show the first held-out image of each of these classes."""

    def check(self) -> None:
        super().check()
        self.check_start(self.start)


def build(options: Options) -> Build:
    """One cell for each width and seed."""
    factors = parse_integers(options.factors, "--factors", 2, 16)
    preset = chosen_preset(options)
    window = preset.grid[1]
    if not 1 <= round(options.overlap * window) < window:
        raise UsageError(f"--overlap {options.overlap}: expected a share between 0 and 1")
    resources = find_resources(NAME, options, ["maskgit"], held_out=True)
    count = options.image_count(resources.held_out, IMAGES, QUICK_IMAGES)
    classes = usual_classes(options, "classes", resources.held_out.present())
    shown = resources.held_out.first_of_classes(preset, "--classes", classes)
    shared: dict[str, Any] = {"num_images": count, "shown": shown, "steps": options.T}
    shared |= {name: getattr(options, name) for name in ("start", "overlap", "precision")}
    tasks = [
        resources.task(
            {"factor": factor, "seed": seed, **shared},
            cost=2 * count * factor * options.T,
            size=count,
        )
        for factor in factors
        for seed in options.seed_list()
    ]
    return make_build(resources, options, tasks, {**shared, "shown": len(shown)})
