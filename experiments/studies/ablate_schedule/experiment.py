"""What ablate_schedule asks: every schedule, by its own transformer, at every T and seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from experiments.engine.cells import Build, Sampling, Task
from experiments.engine.grid import parse_integers, parse_names
from experiments.engine.options import DataOptions, MeasureOptions, SamplingOptions
from experiments.own import chosen_preset
from experiments.sampler.building import make_build
from experiments.sampler.estimate import estimate_lines
from experiments.sampler.imaging import ROUNDING
from experiments.sampler.likelihood import SEED
from experiments.sampler.networks import shared_words
from experiments.sampler.resources import Resources, find_resources
from experiments.sampler.samplers import network_of
from experiments.sampler.worker import SETTINGS
from maskgit.schedules import mask_ratio, validate

if TYPE_CHECKING:
    from experiments.sampler.networks import Network

NAME = "ablate_schedule"
GAMMA_POINTS = 101  # r = 0, 0.01, ..., 1: the curves of the report's Figure 8, left
# What an image costs beside the forwards, in forwards: it orders cells and tells the time left.
# (Embedded, one core: a forward takes about 1 ms, decoding and measuring 4 to 5; see --dry-run.)
FORWARDS_PER_IMAGE = 4.0


@dataclass(frozen=True)
class Options(SamplingOptions, MeasureOptions, DataOptions):
    """Mask schedules against numbers of iterations: the paper's Table 3 and Figure 8."""

    usual_metrics: ClassVar[tuple[str, ...]] = ("fid", "is", "precision", "recall", "kid", "nll")

    T: str = "4..60"
    """Numbers of iterations: 4..60, 4..60:4 (every fourth), 8,10,12, or a mixture."""
    schedules: str = "all"
    """Mask schedules, separated by commas: of the preset's; with --weights any, pow1.5 say."""


def build(options: Options) -> Build:
    """The cells of the grid."""
    preset = chosen_preset(options)
    known = list(preset.schedules)
    # One's own weights, and an official file, decode with any schedule.
    if (options.weights is not None or preset.official) and options.schedules != "all":
        known += [name for name in options.schedules.split(",") if name not in known]
        for name in known:
            validate(name)
    schedules = parse_names(options.schedules, "--schedules", known)
    # The schedules are checked against the official loop up to 4N iterations, N tokens.
    steps = parse_integers(options.T, "--T", 1, 4 * preset.num_tokens)
    features = options.features or preset.features
    count = options.num_samples or preset.num_samples
    cells = [
        options.sampling(preset, schedule=schedule, steps=T, seed=seed, num_samples=count)
        for schedule, T, seed in product(schedules, steps, options.seed_list())
    ]
    resources = find_resources(
        NAME,
        options,
        cells,
        metrics={name: "" if name == "nll" else features for name in options.metric_list(count)},
        features=[features],
    )
    networks = {cell.schedule: resources.network(cell) for cell in cells}
    return make_build(
        resources,
        options,
        [task_of(resources, cell, features) for cell in cells],
        _protocol(resources, cells, networks),
        models={name: network.card for name, network in networks.items()},
        estimate=partial(estimate_lines, resources, options),
    )


def task_of(resources: Resources, settings: Sampling, features: str) -> Task:
    """The task of a cell: samples with these settings, measured on a feature network."""
    return resources.task(
        {**settings.as_dict(), "features": features},
        cost=settings.num_samples * (settings.steps + FORWARDS_PER_IMAGE),
        size=settings.num_samples,
        networks=[network_of(settings), "tokenizer"],
    )


def _protocol(
    resources: Resources, cells: Sequence[Sampling], networks: dict[str, Network]
) -> dict[str, Any]:
    """What holds for all cells of the grid, for the report. networks: by schedule."""
    r = np.linspace(0.0, 1.0, GAMMA_POINTS, dtype=np.float32)
    gamma = {name: mask_ratio(name, r, resources.preset.num_tokens) for name in networks}
    same = ("backend", "precision", "mode")
    protocol: dict[str, Any] = {name: _all(getattr(cell, name) for cell in cells) for name in same}
    protocol |= {
        "num_samples": cells[0].num_samples,
        "choice_temperature": cells[0].choice_temperature,
        "rounding": ROUNDING,
        "inception_score": "all samples in a single split, as officially",
        "precision_recall": f"k={SETTINGS.k}; as many real images as samples, the first of a "
        "shuffled, class-balanced subset of the reference",
        "nll": f"{resources.held_out.words}, one mask each, noise seed {SEED}; "
        "nats per masked token over the whole vocabulary, unsmoothed",
        "gamma": {name: [float(value) for value in values] for name, values in gamma.items()},
    }
    shared = shared_words(networks)
    return protocol | ({"transformer": shared} if shared else {})


def _all(values: Iterable[str]) -> str:
    """The different values, each once, in order."""
    return ", ".join(dict.fromkeys(values))
