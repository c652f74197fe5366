"""Diversity on other measures: the paper's Table 5.

    python experiments/diversity.py --seeds 0,1,2 --num-samples 2000

Precision and recall on the network that takes Inception's place, and the accuracy of a classifier
trained on the samples without RandAugment. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.studies.options import TableOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "diversity"
INCEPTION_ROLE = {"embedded": "efficientnet-lite0"}  # of other presets: their main network


@dataclass(frozen=True)
class Options(TableOptions):
    """Diversity on other measures: the paper's Table 5."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study
    from experiments.studies.choices import no_baseline
    from experiments.studies.table_cells import diversity_tasks, main_features

    options.check()
    if options.only_report:
        return only_report(NAME, options)
    absent = no_baseline(options)
    usual = INCEPTION_ROLE.get(options.preset) or main_features(options)[0]
    study = make_study(
        NAME,
        f"experiments.studies.{NAME}.compute",
        options,
        features=[options.features or usual],
        autoregressive=not absent,
        held_out=False,
    )
    tasks, protocol = diversity_tasks(study, options, absent)
    return run_study(study, options, tasks, protocol)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
