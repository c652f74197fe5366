"""Table 5: precision and recall on the network in Inception's place, CAS without RandAugment.

A cell is one of

- measure: a sampler, a number of iterations and a seed; precision and recall;
- cas: the same; Classification Accuracy Score, or with the sampler "real" that of real images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.metrics.metric import PreparedReference
from eval.reference.build import build_reference
from experiments.engine.cells import Outcome, Sampling
from experiments.engine.store.blocks import Blocks
from experiments.sampler.worker import Worker
from experiments.studies import cas
from experiments.studies.real_images import real_images

METRICS = cas.METRICS


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    return {"measure": _measure, "cas": cas.compute_cas}[cell["part"]](worker, cell)


def shared(worker: Worker, cell: dict[str, Any]) -> list[Blocks]:
    """What other processes may make of a cell, see `Worker.shared`."""
    return worker.shared(Sampling.of(cell), cell["features"]) if cell["part"] == "measure" else []


def _measure(worker: Worker, cell: dict[str, Any]) -> Outcome:
    name, settings = cell["features"], Sampling.of(cell)
    reference = _reference(worker, name, settings.num_samples)
    metrics, missing = worker.measure(name, worker.features(settings, name), reference)
    protocol: dict[str, Any] = {}
    if reference is not None:
        found = reference.reference
        real_n = len(found.features[: settings.num_samples])
        protocol = {"reference": found.description, "real_n": real_n}
    return Outcome(metrics, missing, protocol)


def _reference(worker: Worker, name: str, count: int) -> PreparedReference | None:
    """The preset's reference on this network, or one of as many real images as samples, built once.

    None where there is neither.
    """
    found, extractor = worker.reference(name), worker.extractor(name)
    if found is not None or extractor is None:
        return found
    real = real_images(worker.preset, worker.resources.data)
    if real.why:
        return None
    classes = worker.preset.num_classes
    images, labels, ids = real.pick(real.first_of_each(np.full(classes, count // classes)))
    with worker.stages.alone("features", f"reference-{name}"):
        reference = build_reference(
            None,
            images,
            extractor,
            labels,
            description=f"{len(ids)} of {real.words}, as many of each class",
        )
    return PreparedReference(reference)
