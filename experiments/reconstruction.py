"""Reconstruction from masked tokens: the paper's Figures 9 and 10.

    python experiments/reconstruction.py --ratios 0,0.05..0.95:0.05,0.97,0.99 --seeds 0,1,2

PSNR, SSIM, LPIPS and token agreement of held-out images against the share of masked tokens. Exit
codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.studies.choices import check_decoding, first_images
    from experiments.studies.options import StudyOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "reconstruction"


@dataclass(frozen=True)
class Options(StudyOptions):
    """Reconstruction from masked tokens: the paper's Figures 9 and 10."""

    ratios: str = "0,0.05..0.95:0.05,0.97,0.99"
    """Shares of masked tokens, such as 0,0.05..0.95:0.05,0.99."""
    steps: int = 8
    """Iterations of MaskGIT that decode the masked tokens; 1 predicts all at once."""
    masks: int = 4
    """Masks an image."""
    classes: str = "8,9"
    """Pictures show the first held-out image of each of these classes."""
    samples: int = 100
    """Masks behind the median image."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study
    from experiments.studies.reconstruction.cells import parse_ratios, reconstruction_tasks

    options.check()
    check_decoding(options.steps)
    ratios = parse_ratios(options.ratios)
    if options.only_report:
        return only_report(NAME, options)
    study = make_study(NAME, f"experiments.studies.{NAME}.compute", options)
    numbers = first_images(study, "--classes", options.classes)
    tasks, protocol = reconstruction_tasks(study, options, ratios, numbers)
    return run_study(study, options, tasks, protocol)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
