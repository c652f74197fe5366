"""Classifier-based rejection sampling: the paper's Table 4, and FID against IS.

    python experiments/rejection_sampling.py --rates 1,0.5,0.2,0.1,0.05 --seeds 0,1,2

Keeps the samples that a classifier is surest of; all that are drawn are counted. Exit codes: 0
done, 1 failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass

try:
    from experiments.engine import cli
    from experiments.studies.options import StudyOptions
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "rejection_sampling"


@dataclass(frozen=True)
class Options(StudyOptions):
    """Classifier-based rejection sampling: the paper's Table 4, and FID against IS."""

    rates: str = "1,0.5,0.2,0.1,0.05"
    """Acceptance rates; --num-samples are kept at each, and 1/rate times as many drawn."""
    steps: int = 0
    """Iterations of MaskGIT. Default (0): the paper's 8."""
    classifier: str = ""
    """Network that scores: resnet50, or a feature network with classes. Default: on embedded the
    one that measures, else resnet50."""


def run(options: Options) -> int:
    """Build the cells and run them."""
    from dataclasses import replace

    from eval.rejection import get_classifier
    from experiments.engine.sweep import only_report
    from experiments.studies.base import make_study, run_study
    from experiments.studies.table_cells import main_features, parse_rates, rejection_tasks

    options.check()
    parse_rates(options.rates)
    if options.only_report:
        return only_report(NAME, options)
    features = main_features(options)[0]
    usual = features if options.preset == "embedded" else "resnet50"
    options = replace(options, classifier=options.classifier or usual)
    classifier = get_classifier(options.classifier, options.weights_dir)
    study = make_study(
        NAME, f"experiments.studies.{NAME}.compute", options, features=[features], held_out=False
    )
    tasks, protocol = rejection_tasks(study, options, classifier.weights_sha256)
    return run_study(study, options, tasks, protocol)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
