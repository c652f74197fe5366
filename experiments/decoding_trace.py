"""Masks and images of every iteration: the paper's Figure 2, also as an animation.

    python experiments/decoding_trace.py --steps 8 --classes 9,8,1

MaskGIT above, the autoregressive baseline in raster order below. Exit codes: 0 done, 1 failed, 2 a
wrong request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.engine.grid import parse_integers
    from experiments.studies.choices import check_decoding, missing_words, no_baseline
    from experiments.studies.options import StudyOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "decoding_trace"


@dataclass(frozen=True)
class Options(StudyOptions):
    """Masks and images of every iteration: the paper's Figure 2, also as an animation."""

    steps: int = 8
    """Iterations of MaskGIT."""
    classes: str = "1,8,9"
    """Classes to show, such as 1,8,9."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study

    options.check()
    check_decoding(options.steps)
    if options.only_report:
        return only_report(NAME, options)
    absent = no_baseline(options)
    study = make_study(
        NAME,
        f"experiments.studies.{NAME}.compute",
        options,
        autoregressive=not absent,
        held_out=False,
    )
    preset = study.preset
    classes = [0, 0, 0]  # of a preset without classes: three samples
    if preset.conditional:
        classes = parse_integers(options.classes, "--classes", 0, preset.num_classes - 1)
    tasks = [
        study.task(
            {"sampler": sampler, "steps": steps, "seed": seed, "classes": classes},
            cost=len(classes) * steps,
            size=len(classes),
        )
        for seed in options.seed_list()[:1]
        for sampler, steps in (("maskgit", options.steps), ("autoregressive", preset.num_tokens))
        if sampler == "maskgit" or not absent
    ]
    return run_study(study, options, tasks, missing_words(study, absent))


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
