"""Mask schedules against numbers of iterations: the paper's Table 3 and Figure 8.

    python experiments/ablate_schedule.py --T 4..60                      # all 399 cells
    python experiments/ablate_schedule.py --T 4,8,16 --num-samples 100   # a first look
    python experiments/ablate_schedule.py --preset imagenet256 --T 4..60 # the released weights

Samples every cell of schedules x T x seeds with the transformer trained for that schedule, measures
FID, IS, precision, recall, KID and NLL, and writes a report. Killed or stopped, the same command
goes on where it was. Exit codes: 0 all cells done, 1 some failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.engine.grid import parse_integers, parse_names, sampler_cells
    from experiments.engine.options import SweepOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "ablate_schedule"


@dataclass(frozen=True)
class Options(SweepOptions):
    """Mask schedules against numbers of iterations: the paper's Table 3 and Figure 8."""

    T: str = "4..60"
    """Numbers of iterations: 4..60, 4..60:4 (every fourth), 8,10,12, or a mixture."""
    schedules: str = "all"
    """Mask schedules, separated by commas: of the preset's; with --weights any, pow1.5 say."""


def run(options: Options) -> int:
    """Build the grid and run it."""
    from experiments.engine.sweep import run_sweep
    from maskgit.presets import get_preset
    from maskgit.schedules import validate

    options.check()
    options.metric_list()
    preset = get_preset(options.preset)
    known = list(preset.schedules)
    # One's own weights, and an official file, decode with any schedule.
    if (options.weights is not None or preset.official) and options.schedules != "all":
        known += [name for name in options.schedules.split(",") if name not in known]
        for name in known:
            validate(name)
    # The schedules are checked against the official loop up to 4N iterations, N tokens.
    steps = parse_integers(options.T, "--T", 1, 4 * preset.num_tokens)
    cells = sampler_cells(
        NAME,
        preset.name,
        schedules=parse_names(options.schedules, "--schedules", known),
        steps=steps,
        seeds=options.seed_list(),
        num_samples=options.num_samples or preset.num_samples,
        choice_temperature=options.choice_temperature,
        features=options.features or preset.features,
        backend=options.backend,
        precision=options.precision,
        mode=options.mode,
    )
    return run_sweep(NAME, options, cells)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, "ablate_schedule.py", __doc__)


if __name__ == "__main__":
    main()
