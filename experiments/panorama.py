"""Outpainting repeated sideways to any width: the paper's Figure 15.

    python experiments/panorama.py --factors 2,4

Held-out images grow to both sides in overlapping windows; measured is how much more neighbouring
columns differ where windows meet. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.engine.grid import parse_integers
    from experiments.studies.choices import check_decoding, first_images, image_count
    from experiments.studies.options import StudyOptions
    from maskgit.common.errors import UsageError
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "panorama"


@dataclass(frozen=True)
class Options(StudyOptions):
    """Outpainting repeated sideways to any width: the paper's Figure 15."""

    factors: str = "2,4"
    """Widths, in widths of the image."""
    overlap: float = 0.5
    """Share of a window that is known when it is decoded."""
    steps: int = 12
    """Iterations of MaskGIT in each window."""
    start: int = 2
    """First iteration, of 0..steps-1."""
    classes: str = "0,1,8,9"
    """Pictures show the first held-out image of each of these classes."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study

    options.check()
    check_decoding(options.steps, options.start)
    factors = parse_integers(options.factors, "--factors", 2, 16)
    if options.only_report:
        return only_report(NAME, options)
    study = make_study(NAME, f"experiments.studies.{NAME}.compute", options)
    window = study.preset.grid[1]
    if not 1 <= round(options.overlap * window) < window:
        raise UsageError(f"--overlap {options.overlap}: expected a share between 0 and 1")
    count = image_count(study, options, 500, 50)
    shown = first_images(study, "--classes", options.classes)
    shared = {"num_images": count, "shown": shown}
    shared |= {name: getattr(options, name) for name in ("steps", "start", "overlap")}
    tasks = [
        study.task(
            {"factor": factor, "seed": seed, **shared},
            cost=2 * count * factor * options.steps,
            size=count,
        )
        for factor in factors
        for seed in options.seed_list()
    ]
    return run_study(study, options, tasks, {**shared, "shown": len(shown)})


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
