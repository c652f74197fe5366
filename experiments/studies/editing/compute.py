"""Table 2 and Figures 6, 7, 14, 16 to 20: a part of held-out images decoded again.

A cell is one of

- measure: a task, a method and a seed; FID and IS of the filled images against the reference;
- pictures: a task; a few images filled by every method, several samples each;
- edit: a seed; of many images a box is decoded again as another class; how often the feature
  network's classifier then names that class;
- edits: a few images, each edited into several classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from experiments.engine.cells import Outcome, plain_reason
from experiments.engine.own_metrics import entries, own_metric
from experiments.sampler.imaging import as_bytes, as_tensor
from experiments.sampler.samplers import SAMPLERS
from experiments.sampler.worker import Worker
from experiments.studies.filling import TASKS, chunks, fill
from maskgit.common.errors import UsageError
from maskgit.sampling.editing import Box, box_mask, edit, latent_box

METRICS = (
    own_metric("editing", "kept", "Kept pixels", 3),
    own_metric("editing", "target", "Named as the target", 3, "higher"),
    own_metric("editing", "before", "Named as the target before", 3),
    own_metric("editing", "original", "Named as the original", 3, "lower"),
)


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    parts = {"measure": _measure, "pictures": _pictures, "edit": _edit, "edits": _edits}
    return parts[cell["part"]](worker, cell)


# ---- filling ------------------------------------------------------------------------------------


def _measure(worker: Worker, cell: dict[str, Any]) -> Outcome:
    features = next(iter(worker.resources.features))
    equal, known = 0, 0

    def filled() -> Iterator[np.ndarray]:
        nonlocal equal, known
        for images, labels, ids in worker.resources.held_out.numbered(cell["num_images"]):
            result = fill(worker, cell, images, labels, ids)
            if cell["task"] in TASKS:
                kept = ~TASKS[cell["task"]](*images.shape[1:3])
                equal += int((result == images).all(axis=3)[:, kept].sum())
                known += len(images) * int(kept.sum())
            yield result

    extractor = worker.extractor(features)
    try:
        if extractor is None:
            samples = None
            for _ in filled():  # for the share of kept pixels
                pass
        else:
            samples = extractor.extract_batches(filled())
    except UsageError as error:  # the baseline's library is not here
        wanted = (*worker.resources.metrics, "kept")
        return Outcome({}, dict.fromkeys(wanted, plain_reason(error)), _protocol(cell))
    metrics, missing = worker.measure(features, samples)
    if known:
        metrics |= entries(METRICS, {"kept": equal / known})
    return Outcome(metrics, missing, _protocol(cell))


def _pictures(worker: Worker, cell: dict[str, Any]) -> Outcome:
    images, labels, ids = worker.resources.held_out.pick(cell["images"])
    arrays = {"inputs": images, "labels": labels, "mask": TASKS[cell["task"]](*images.shape[1:3])}
    methods = ["maskgit", "mean"]
    methods += ["autoregressive"] if cell["baseline"] else []
    methods += ["biharmonic"] if cell["library"] != "missing" else []
    for method in methods:
        samples = cell["samples"] if method in SAMPLERS else 1
        # Sample s of image i takes noise of its own: i + s * 2^16.
        rounds = [
            fill(worker, {**cell, "method": method}, images, labels, ids + s * 2**16)
            for s in range(samples)
        ]
        arrays[method] = np.stack(rounds, axis=1)
    return Outcome({}, {}, _protocol(cell), arrays)


# ---- class-conditional editing ------------------------------------------------------------------


def _edit(worker: Worker, cell: dict[str, Any]) -> Outcome:
    held_out, count = worker.resources.held_out, cell["num_images"]
    classes, label = worker.preset.num_classes, np.asarray(held_out.labels, np.int64)[:count]
    # Every other class in turn: image i of class c becomes c + 1 + i mod (classes - 1).
    target = (label + 1 + np.arange(count) % (classes - 1)) % classes
    classifier = cell["classifier"]
    found, reason = worker.classify(
        classifier,
        (
            edited(worker, cell, images, target[ids], ids)
            for images, _, ids in held_out.numbered(count)
        ),
    )
    originals, _ = worker.classify(
        classifier, (images for images, _, _ in held_out.numbered(count))
    )
    if found is None or originals is None:
        missing = dict.fromkeys(("target", "before", "original"), reason)
        return Outcome({}, missing, _protocol(cell))
    after, before = found.argmax(axis=1), originals.argmax(axis=1)
    shares = {
        "target": (after == target).mean(),
        "before": (before == target).mean(),
        "original": (after == label).mean(),
    }
    values = {name: float(share) for name, share in shares.items()}
    return Outcome(entries(METRICS, values), {}, _protocol(cell))


def _edits(worker: Worker, cell: dict[str, Any]) -> Outcome:
    images, labels, ids = worker.resources.held_out.pick(cell["images"])
    targets = np.array(cell["targets"], np.int64)
    results = [
        edited(worker, cell, images, np.full(len(images), target), ids) for target in targets
    ]
    box = Box(*cell["box"])
    side = images.shape[1]
    arrays = {
        "inputs": images,
        "labels": labels,
        "targets": targets,
        "box": box_mask(box, side, side),
        "latent": latent_box(box, (side, side), worker.tokenizer.config.downsampling),
        "edited": np.stack(results, axis=1),
    }
    return Outcome({}, {}, _protocol(cell), arrays)


def edited(
    worker: Worker,
    cell: dict[str, Any],
    images: np.ndarray,
    targets: np.ndarray,
    ids: np.ndarray,
) -> np.ndarray:
    """Images uint8 (n, H, W, C) whose box is decoded again as classes int64 (n,)."""
    cell_size = worker.tokenizer.config.downsampling
    latent = latent_box(Box(*cell["box"]), images.shape[1:3], cell_size)
    parts = []
    for rows in chunks(worker, len(images)):
        result = edit(
            worker.sampler(worker.settings(cell)),
            worker.tokenizer,
            as_tensor(images[rows], worker.device),
            torch.from_numpy(targets[rows]).to(worker.device),
            latent,
            steps=cell["steps"],
            start=cell["start"],
            seed=cell["seed"],
            sample_ids=torch.from_numpy(ids[rows]).to(worker.device),
        )
        parts.append(as_bytes(result.images))
    return np.concatenate(parts)


def _protocol(cell: dict[str, Any]) -> dict[str, Any]:
    return {"seed": cell["seed"]}
