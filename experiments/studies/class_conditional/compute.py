"""Table 1 and Figures 5, 11 to 13: class-conditional samples, measured and shown.

A cell is one of

- measure: a sampler, a number of iterations and a seed; the metrics asked for, parameters, and the
  first samples of a few classes;
- cas: the same; Classification Accuracy Score of a classifier trained on the samples, or, with the
  sampler "real", on as many real images;
- tokenizer: rFID and more of the tokenizer alone, see experiments/studies/tokenizer.py;
- pictures: real images of the same classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.engine.cells import Outcome, Sampling
from experiments.engine.own_metrics import entries, own_metric
from experiments.engine.store.blocks import Blocks
from experiments.sampler.held_out import find_held_out
from experiments.sampler.worker import Worker
from experiments.studies import cas, tokenizer
from experiments.studies.real_images import real_images

METRICS = (own_metric("class-conditional", "parameters", "Parameters", 0), *cas.METRICS)
METRICS += tokenizer.METRICS


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    parts = {"measure": _measure, "cas": cas.compute_cas, "pictures": _pictures}
    parts["tokenizer"] = tokenizer.compute_tokenizer
    return parts[cell["part"]](worker, cell)


def shared(worker: Worker, cell: dict[str, Any]) -> list[Blocks]:
    """What other processes may make of a cell, see `Worker.shared`."""
    if cell["part"] != "measure":
        return []
    return worker.shared(Sampling.of(cell), *dict.fromkeys(cell["features"]))


def _measure(worker: Worker, cell: dict[str, Any]) -> Outcome:
    settings, preset = Sampling.of(cell), worker.preset
    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for features in dict.fromkeys(cell["features"]):
        found = worker.measure(features, worker.features(settings, features))
        metrics |= found[0]
        missing |= found[1]
    resources = worker.resources
    networks = resources.network(settings), resources.networks["tokenizer"]
    count = sum(network.parameters for network in networks)
    metrics |= entries(METRICS, {"parameters": count})
    classes = np.array(cell["shown"], np.int64)
    ids = classes[:, None] + preset.num_classes * np.arange(cell["columns"])
    ids = ids[:, (ids < cell["num_samples"]).all(axis=0)]
    images = worker.images(worker.tokens(settings)[ids.ravel()], settings.backend)
    arrays = {"images": images, "labels": np.repeat(classes, ids.shape[1])}
    return Outcome(metrics, missing, arrays=arrays)


def _pictures(worker: Worker, cell: dict[str, Any]) -> Outcome:
    preset, data = worker.preset, worker.resources.data
    real = real_images(preset, data)
    if real.why:
        real = find_held_out(preset, data)
    labels, columns = np.asarray(real.labels), cell["columns"]
    ids = np.concatenate([np.flatnonzero(labels == c)[:columns] for c in cell["shown"]])
    images, shown, _ = real.pick(ids)
    return Outcome({}, {}, {"images": real.words}, {"images": images, "labels": shown})
