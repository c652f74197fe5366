"""What the experiments behind Tables 1, 4 and 5 share: their options, and the usual numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from eval.cas.recipe import RECIPES
from experiments.engine.grid import parse_integers
from experiments.engine.options import (
    DataOptions,
    MeasureOptions,
    QuickOptions,
    RunOptions,
    SamplingOptions,
)
from experiments.sampler.resources import why_no_network
from experiments.sampler.samplers import network_of
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.engine.cells import Sampling
    from maskgit.presets import Preset

QUICK_SAMPLES = 200
BASELINE = "autoregressive"  # what stands beside MaskGIT
BASELINE_WORDS = "the autoregressive baseline"


@dataclass(frozen=True)
class TableOptions(SamplingOptions, MeasureOptions, QuickOptions):
    """Options of the experiments behind Tables 1, 4 and 5."""


@dataclass(frozen=True)
class CasOptions(TableOptions, DataOptions):
    """Options of the experiments behind Tables 1 and 5, which train classifiers on samples."""

    ALIASES: ClassVar[dict[str, str]] = {**RunOptions.ALIASES, "--cas-validation": "--held-out"}

    T: str = ""
    """Iterations of MaskGIT. Default: the preset's for the tables."""
    cas_samples: int | None = None
    """Images the classifier of CAS is trained on; 0 leaves CAS out. Default: the preset's (with
    --quick a tenth)."""
    cas_recipe: str = "auto"
    """How that classifier is trained: short (16 epochs), long (90, as ResNet-50 usually is),
    embedded (small images on two cores), or auto, which is embedded or short by the size."""
    cas_epochs: int = 0
    """Epochs of that training. Default (0): the recipe's (with --quick 4)."""
    cas_seeds: str = "0"
    """Seeds of CAS: of the samples and of the training."""

    def check(self) -> None:
        super().check()
        self.at_least(0, "cas_samples", "cas_epochs")
        self.one_of("cas_recipe", ("auto", *RECIPES))


def sample_count(preset: Preset, options: TableOptions) -> int:
    """--num-samples, or the preset's number for the tables.

    Raises:
        UsageError: not the same number of each class.
    """
    usual = preset.table_samples or preset.num_samples
    count = options.num_samples or (QUICK_SAMPLES if options.quick else usual)
    if count % preset.num_classes:
        raise UsageError(
            f"--num-samples {count}: expected a multiple of the {preset.num_classes} classes"
        )
    return count


def compared_samplers(
    preset: Preset, options: CasOptions, no_baseline: str, seeds: Sequence[int]
) -> list[Sampling]:
    """The rows of Tables 1 and 5: MaskGIT at each T, and the baseline if it is here, by seed.

    no_baseline: why it is not, see `resources.why_no_network`.
    """
    steps, count = list(preset.table_steps), sample_count(preset, options)
    if options.T:
        steps = parse_integers(options.T, "--T", 1, 4 * preset.num_tokens)
    rows = []
    for seed in seeds:
        drawn: dict[str, Any] = {"seed": seed, "num_samples": count}
        rows += [options.sampling(preset, steps=T, **drawn) for T in steps]
        if not no_baseline:
            rows.append(options.sampling(preset, BASELINE, compared=True, steps=0, **drawn))
    return rows


def why_no_baseline(options: RunOptions) -> str:
    """Why the autoregressive baseline cannot be used; empty if it is here."""

    return why_no_network(options, network_of(BASELINE))
