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
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome
from experiments.studies.classifying import classify
from experiments.studies.filling import (
    SAMPLERS,
    TASKS,
    as_bytes,
    as_tensor,
    chunks,
    fill,
    held_out_batches,
    held_out_images,
)
from maskgit.common.errors import UsageError
from maskgit.sampling.editing import Box, box_mask, edit, latent_box

if TYPE_CHECKING:
    from experiments.studies.base import Context

METRICS = {
    "fid": "fid.editing.v1",
    "is": "is.editing.v1",
    "kept": "kept-pixels.editing.v1",
    "target": "target-share.editing.v1",
    "before": "target-share-before.editing.v1",
    "original": "original-share.editing.v1",
}
MEASURED = ("fid", "is")


def compute(context: Context, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    parts = {"measure": _measure, "pictures": _pictures, "edit": _edit, "edits": _edits}
    return parts[cell["part"]](context, cell)


# ---- filling ------------------------------------------------------------------------------------


def _measure(context: Context, cell: dict[str, Any]) -> Outcome:
    from experiments.engine.reasons import plain_reason
    from experiments.sampler.measuring import measure

    name = context.study.features[0]
    equal, known = 0, 0

    def filled() -> Iterator[np.ndarray]:
        nonlocal equal, known
        for images, labels, ids in held_out_batches(context, cell["num_images"]):
            result = fill(context, cell, images, labels, ids)
            if cell["task"] in TASKS:
                kept = ~TASKS[cell["task"]](images.shape[1])
                equal += int((result == images).all(axis=3)[:, kept].sum())
                known += len(images) * int(kept.sum())
            yield result

    extractor = context.extractor(name)
    try:
        if extractor is None:
            samples = None
            for _ in filled():  # for the share of kept pixels
                pass
        else:
            samples = extractor.extract_batches(filled())
    except UsageError as error:  # the baseline's library is not here
        return Outcome({}, dict.fromkeys((*MEASURED, "kept"), plain_reason(error)))
    reason = context.why_missing(name)
    metrics, missing = measure(MEASURED, name, samples, context.real(name), reason, reason)
    if known:
        metrics["kept"] = {"id": METRICS["kept"], "value": equal / known}
    return Outcome(metrics, missing, _protocol(context, cell))


def _pictures(context: Context, cell: dict[str, Any]) -> Outcome:
    images, labels, ids = held_out_images(context, cell["images"])
    arrays = {"inputs": images, "labels": labels, "mask": TASKS[cell["task"]](images.shape[1])}
    methods = ["maskgit", "mean"]
    methods += ["autoregressive"] if cell["baseline"] else []
    methods += ["biharmonic"] if cell["library"] != "missing" else []
    for method in methods:
        samples = cell["samples"] if method in SAMPLERS else 1
        # Sample s of image i takes noise of its own: i + s * 2^16.
        rounds = [
            fill(context, {**cell, "method": method}, images, labels, ids + s * 2**16)
            for s in range(samples)
        ]
        arrays[method] = np.stack(rounds, axis=1)
    return Outcome({}, {}, _protocol(context, cell), arrays)


# ---- class-conditional editing ------------------------------------------------------------------


def _edit(context: Context, cell: dict[str, Any]) -> Outcome:
    classes = context.preset.num_classes
    seen: dict[str, list[np.ndarray]] = {"target": [], "edited": [], "before": [], "label": []}
    for images, labels, ids in held_out_batches(context, cell["num_images"]):
        # Every other class in turn: image i of class c becomes c + 1 + i mod (classes - 1).
        targets = (labels + 1 + ids % (classes - 1)) % classes
        found, reason = classify(context, edited(context, cell, images, targets, ids))
        before, _ = classify(context, images)
        if found is None or before is None:
            missing = dict.fromkeys(("target", "before", "original"), reason)
            return Outcome({}, missing, _protocol(context, cell))
        for name, values in (
            ("target", targets),
            ("edited", found.argmax(axis=1)),
            ("before", before.argmax(axis=1)),
            ("label", labels),
        ):
            seen[name].append(values)
    target, after, before, label = (np.concatenate(values) for values in seen.values())
    shares = {
        "target": (after == target).mean(),
        "before": (before == target).mean(),
        "original": (after == label).mean(),
    }
    metrics = {name: {"id": METRICS[name], "value": float(v)} for name, v in shares.items()}
    return Outcome(metrics, {}, _protocol(context, cell))


def _edits(context: Context, cell: dict[str, Any]) -> Outcome:
    images, labels, ids = held_out_images(context, cell["images"])
    targets = np.array(cell["targets"], np.int64)
    results = [
        edited(context, cell, images, np.full(len(images), target), ids) for target in targets
    ]
    box = Box(*cell["box"])
    side = images.shape[1]
    arrays = {
        "inputs": images,
        "labels": labels,
        "targets": targets,
        "box": box_mask(box, side, side),
        "latent": latent_box(box, (side, side), context.tokenizer.config.downsampling),
        "edited": np.stack(results, axis=1),
    }
    return Outcome({}, {}, _protocol(context, cell), arrays)


def edited(
    context: Context,
    cell: dict[str, Any],
    images: np.ndarray,
    targets: np.ndarray,
    ids: np.ndarray,
) -> np.ndarray:
    """Images uint8 (n, H, W, C) whose box is decoded again as classes int64 (n,)."""
    import torch

    cell_size = context.tokenizer.config.downsampling
    latent = latent_box(Box(*cell["box"]), images.shape[1:3], cell_size)
    parts = []
    for rows in chunks(context, len(images)):
        result = edit(
            context.transformer,
            context.tokenizer,
            as_tensor(images[rows], context.device),
            torch.from_numpy(targets[rows]).to(context.device),
            latent,
            steps=cell["steps"],
            start=cell["start"],
            seed=cell["seed"],
            sample_ids=torch.from_numpy(ids[rows]).to(context.device),
        )
        parts.append(as_bytes(result.images))
    return np.concatenate(parts)


def _protocol(context: Context, cell: dict[str, Any]) -> dict[str, Any]:
    return {"seed": cell["seed"], "versions": context.versions()}
