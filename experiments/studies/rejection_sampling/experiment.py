"""What rejection_sampling asks: a pool of samples of each seed, at falling acceptance rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.rejection import check_rate, get_classifier
from experiments.engine.cells import Build
from experiments.engine.options import ClassifierOptions
from experiments.own import chosen_preset
from experiments.sampler.building import make_build
from experiments.sampler.resources import find_resources
from experiments.studies.tables import TableOptions, sample_count
from maskgit.common.errors import UsageError

NAME = "rejection_sampling"


@dataclass(frozen=True)
class Options(TableOptions, ClassifierOptions):
    """Classifier-based rejection sampling: the paper's Table 4, and FID against IS."""

    usual_metrics: ClassVar[tuple[str, ...]] = ("fid", "is", "precision", "recall")

    rates: str = "1,0.5,0.2,0.1,0.05"
    """Acceptance rates; --num-samples are kept at each, and 1/rate times as many drawn."""
    T: int = 0
    """Iterations of MaskGIT. Default (0): the first of the preset's for the tables."""

    def check(self) -> None:
        super().check()
        self.at_least(0, "T")


def build(options: Options) -> Build:
    """One cell for each seed."""
    rates = parse_rates(options.rates)
    preset = chosen_preset(options)
    count, T = sample_count(preset, options), options.T or preset.table_steps[0]
    features = options.features or preset.features
    name = options.classifier_name(preset)
    classifier = get_classifier(name, options.feature_weights)
    rows = [
        options.sampling(preset, steps=T, seed=seed, num_samples=count)
        for seed in options.seed_list()
    ]
    measured = dict.fromkeys(options.metric_list(), features)
    resources = find_resources(NAME, options, rows, metrics=measured, features=[features])
    tasks = [
        resources.task(
            {
                **row.as_dict(),
                "rates": rates,
                "features": features,
                "classifier": name,
                "classifier_sha256": classifier.weights_sha256[:16],
            },
            cost=count / min(rates) * (T + 8),
            size=int(count / min(rates)),
        )
        for row in rows
    ]
    return make_build(resources, options, tasks, {"num_samples": count, "steps": T})


def parse_rates(text: str) -> list[float]:
    """Acceptance rates such as 1,0.5,0.05, falling, each once.

    Raises:
        UsageError: something else, or outside (0, 1].
    """
    try:
        rates = [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--rates {text}: expected numbers such as 1,0.5,0.05") from None
    for rate in rates:
        check_rate(rate)
    return sorted(set(rates), reverse=True)
