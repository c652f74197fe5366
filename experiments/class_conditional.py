"""Class-conditional samples measured and shown: the paper's Table 1 and Figures 5, 11, 12 and 13.

    python experiments/class_conditional.py --seeds 0,1,2 --num-samples 2000

MaskGIT beside the autoregressive baseline: FID, IS, precision, recall, parameters, steps, and the
accuracy of a classifier trained on the samples (CAS). Exit codes: 0 done, 1 failed, 2 a wrong
request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.studies.options import TableOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "class_conditional"


@dataclass(frozen=True)
class Options(TableOptions):
    """Class-conditional samples measured and shown: the paper's Table 1, Figures 5 and 11 to 13."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study
    from experiments.studies.choices import no_baseline
    from experiments.studies.table_cells import class_conditional_tasks, main_features

    options.check()
    if options.only_report:
        return only_report(NAME, options)
    absent = no_baseline(options)
    study = make_study(
        NAME,
        f"experiments.studies.{NAME}.compute",
        options,
        features=main_features(options),
        autoregressive=not absent,
        held_out=False,
    )
    tasks, protocol = class_conditional_tasks(study, options, absent)
    return run_study(study, options, tasks, protocol)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
