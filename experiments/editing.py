"""Editing, inpainting, outpainting: the paper's Table 2 and Figures 6, 7, 14 and 16 to 20.

    python experiments/editing.py --seeds 0,1,2
    python experiments/editing.py --quick --tasks outpaint-right,inpaint-center

Held-out images are the inputs; beside MaskGIT stand a mean fill, scikit-image's biharmonic
inpainting (extra `inpainting`) and, downwards, the autoregressive baseline. Exit codes: 0 done,
1 failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.engine.grid import parse_names
    from experiments.studies.choices import check_decoding, no_baseline
    from experiments.studies.options import StudyOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "editing"


@dataclass(frozen=True)
class Options(StudyOptions):
    """Editing, inpainting, outpainting: the paper's Table 2 and Figures 6, 7, 14 and 16 to 20."""

    tasks: str = "all"
    """Of outpaint-right, inpaint-center, outpaint-left, outpaint-top, outpaint-bottom,
    inpaint-large, surround-50, surround-31, strip."""
    steps: int = 12
    """Iterations of MaskGIT."""
    start: int = 2
    """First iteration, of 0..steps-1."""
    classes: str = "0,8,9"
    """Pictures show the first held-out image of each of these classes."""
    targets: str = "0,1,3,7,8,9"
    """Classes that the pictured images are edited into."""
    box: str = ""
    """TOP,LEFT,HEIGHT,WIDTH in pixels to edit. Default: most of the lower half."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study
    from experiments.studies.editing.cells import editing_tasks
    from experiments.studies.filling import TASKS

    options.check()
    check_decoding(options.steps, options.start)
    if options.only_report:
        return only_report(NAME, options)
    names = parse_names(options.tasks, "--tasks", list(TASKS))
    study = make_study(
        NAME,
        f"experiments.studies.{NAME}.compute",
        options,
        autoregressive=not no_baseline(options),
    )
    tasks, protocol = editing_tasks(study, options, names)
    return run_study(study, options, tasks, protocol)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
