"""Table 3 and Figure 8: a cell is a schedule, a number of iterations and a seed, all measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome, Sampling
from experiments.sampler.samplers import SAMPLERS

if TYPE_CHECKING:
    from eval.metrics.metric import Metric
    from experiments.engine.store.blocks import Blocks
    from experiments.sampler.worker import Worker

METRICS: tuple[Metric, ...] = ()  # all are of eval's registry


def shared(worker: Worker, cell: dict[str, Any]) -> list[Blocks]:
    """What other processes may make of a cell, see `Worker.shared`."""
    return worker.shared(Sampling.of(cell), cell["features"])


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """All stages of one cell. What a stage's file holds is not computed again."""
    settings, features = Sampling.of(cell), cell["features"]
    shown = worker.shown(settings)
    pictures: dict[int, Any] = dict.fromkeys(shown.tolist())
    samples = worker.features(settings, features, pictures)
    metrics, missing = worker.measure(features, samples)
    images = list(pictures.values())
    if any(image is None for image in images):  # of blocks that were served from their files
        images = list(worker.images(worker.tokens(settings)[shown], settings.backend))
    if "nll" in worker.resources.metrics:
        why = SAMPLERS[settings.sampler].why_no_likelihood or worker.resources.held_out.why
        if why:
            missing["nll"] = why
        else:
            metrics["nll"] = worker.nll(settings)
    resources = worker.resources
    weights = {
        "tokenizer": resources.networks["tokenizer"].sha256,
        SAMPLERS[settings.sampler].role: resources.network(settings).sha256,
        features: resources.features[features].weights_sha256,
    }
    return Outcome(
        metrics,
        missing,
        {"weights": weights, **worker.measured_on(features, settings.num_samples)},
        {"images": np.stack(images), "labels": shown % worker.preset.num_classes},
    )
