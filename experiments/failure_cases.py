"""Where it goes wrong, by measure: the paper's Figure 21.

    python experiments/failure_cases.py --seeds 0,1,2

The samples that a classifier takes for another class, the worst reconstructions, and what changes
at the boundary of outpainting. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass
from typing import Any

try:
    from experiments.engine import cli
    from experiments.studies.choices import check_decoding, image_count
    from experiments.studies.options import StudyOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "failure_cases"


@dataclass(frozen=True)
class Options(StudyOptions):
    """Where it goes wrong, by measure: the paper's Figure 21."""

    steps: int = 12
    """Iterations of MaskGIT."""
    start: int = 2
    """First iteration of outpainting, of 0..steps-1."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study
    from maskgit.sampling.editing import DIRECTIONS

    options.check()
    check_decoding(options.steps, options.start)
    if options.only_report:
        return only_report(NAME, options)
    study = make_study(NAME, f"experiments.studies.{NAME}.compute", options)
    count, seeds = image_count(study, options, 2000, 100), options.seed_list()
    samples = options.num_samples or (200 if options.quick else 2000)
    edges = min(count, 500)
    cells: list[dict[str, Any]] = [
        {"part": "samples", "seed": seed, "num_samples": samples, "steps": options.steps}
        for seed in seeds
    ]
    cells += [
        {"part": part, "seed": seeds[0], "num_images": count} for part in ("real", "reconstruction")
    ]
    boundary = {"part": "boundary", "num_images": edges, "steps": options.steps}
    cells += [
        {**boundary, "start": options.start, "direction": direction, "seed": seed}
        for direction in DIRECTIONS
        for seed in seeds
    ]
    tasks = []
    for cell in cells:
        size = cell.get("num_samples") or cell["num_images"]
        tasks.append(study.task(cell, size * (4 + cell.get("steps", 1)), size))
    shared = {"num_images": count, "num_samples": samples, "boundary_images": edges}
    return run_study(study, options, tasks, {**shared, "steps": options.steps})


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
