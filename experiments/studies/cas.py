"""The Classification Accuracy Score of a sampler, or of real images: cells of Tables 1 and 5."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.cas.data import labelled
from eval.cas.recipe import get_recipe
from eval.cas.score import classification_accuracy, proportional_counts
from experiments.engine.cells import Outcome, Sampling, Task
from experiments.engine.grid import parse_integers
from experiments.engine.keys import digest
from experiments.engine.own_metrics import entries, own_metric
from experiments.sampler.held_out import ImageSelection
from experiments.sampler.resources import Resources
from experiments.sampler.worker import Worker
from experiments.studies.real_images import real_images, validation_images
from experiments.studies.tables import CasOptions, compared_samplers
from maskgit.common.errors import UsageError

METRICS = tuple(own_metric("cas", f"cas_top{k}", f"CAS top-{k}", 3, "higher") for k in (1, 5))
REAL = "real"  # in place of a sampler
COST = 40  # of training on one image once, in forwards of a small transformer
QUICK_EPOCHS, QUICK_VALIDATION = 4, 1000
QUICK_SHARE = 10  # a quick run trains on a tenth of the preset's images


def cas_tasks(
    resources: Resources,
    options: CasOptions,
    real: ImageSelection,
    *,
    no_baseline: str,
    randaugment: bool,
) -> tuple[list[Task], dict[str, Any], str]:
    """(the CAS cells, what the report says of them, why there are none).

    no_baseline: see `tables.compared_samplers`. randaugment: whether images are augmented so.

    Raises:
        UsageError: too few images.
    """
    preset = resources.preset
    wanted = options.cas_samples
    if wanted is None:
        wanted = preset.cas_samples // (QUICK_SHARE if options.quick else 1)
    if not preset.conditional:
        return [], {}, "the preset has no classes"
    if real.why or wanted == 0:
        return [], {}, real.why or "not asked for: give --cas-samples"
    counts = _counts(preset.num_classes, real, wanted)
    samples = int(counts.sum())
    batch = get_recipe("auto", preset.image_size).batch_size
    if counts.min() < 1 or samples < batch:
        raise UsageError(
            f"--cas-samples {wanted}: expected 0, or at least a batch of {batch} and one of each "
            f"of the {preset.num_classes} classes"
        )
    asked = options.held_out or (QUICK_VALIDATION if options.quick else None)
    validation = validation_images(preset, options.data, asked)
    if validation.why:
        return [], {}, validation.why
    values = counts.tolist()
    settings = {
        "part": "cas",
        "cas_samples": samples,
        # Of more than ten classes their hash: a cell should stay readable.
        "counts": values if len(values) <= 10 else digest(values)[:16],
        "epochs": options.cas_epochs or (QUICK_EPOCHS if options.quick else 0),
        "randaugment": randaugment,
        "validation": len(validation),
        "validation_images": validation.sha256[:16],
        "real_images": real.sha256[:16],
    }
    tasks = []
    for seed in parse_integers(options.cas_seeds, "--cas-seeds", 0, 2**32 - 1):
        compared = compared_samplers(preset, options, no_baseline, [seed])
        rows = [row.as_dict() for row in compared]
        for row in [*rows, {"sampler": REAL, "steps": 0, "seed": seed}]:
            cost = samples * (row["steps"] + COST)
            tasks.append(resources.task({**settings, **row}, cost=cost, size=samples))
    words = {"cas_samples": samples, "cas_real": real.words, "cas_validation": len(validation)}
    return tasks, words, ""


def _counts(classes: int, real: ImageSelection, samples: int) -> np.ndarray:
    """How many images of each class, int64 (classes,): in the shares of the real ones."""
    have = np.bincount(np.asarray(real.labels), minlength=classes)
    return proportional_counts(have, min(samples, int(have.sum())))


def compute_cas(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """Train on samples (or real images) and validate on held-out ones.

    cell: has sampler ("real" for real images) and the settings of `cas_tasks`, and for samplers
    those of `Sampling`.
    """
    preset, data = worker.preset, worker.resources.data
    real = real_images(preset, data)
    counts = _counts(preset.num_classes, real, cell["cas_samples"])
    if cell["sampler"] == REAL:
        images, labels, _ = real.pick(real.first_of_each(counts))
    else:
        images, labels = generated(worker, Sampling.of(cell), counts)
    held_out = validation_images(preset, data, cell["validation"])
    real_validation = held_out.pick(range(len(held_out)))[:2]
    recipe = get_recipe(
        "auto",
        preset.image_size,
        epochs=cell["epochs"] or None,
        randaugment=cell["randaugment"] or None,
    )
    result = classification_accuracy(
        labelled(images, labels),
        labelled(*real_validation),
        recipe=recipe,
        seeds=(cell["seed"],),
        out=worker.run / "cas",
        device=worker.device,
    )
    scores = {
        metric.name: result["samples"][metric.name.removeprefix("cas_")] for metric in METRICS
    }
    metrics = entries(METRICS, {name: score for name, score in scores.items() if score is not None})
    missing = dict.fromkeys(scores.keys() - metrics.keys(), "fewer than six classes")
    protocol = {
        "cas": result["id"],
        "cas_protocol": result["protocol"],
        "counts": result["counts"]["samples"][:10],
    }
    return Outcome(metrics, missing, protocol)


def generated(
    worker: Worker, settings: Sampling, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first counts[c] samples of each class: (uint8 (n, H, W, C), classes int64 (n,)).

    Sample i is of class i mod the number of classes, so max(counts) rounds are drawn.
    """
    classes = len(counts)
    tokens = worker.tokens(settings, classes * int(counts.max()))
    labels = np.arange(len(tokens)) % classes
    chosen = np.flatnonzero(np.arange(len(tokens)) // classes < counts[labels])
    images = worker.images(tokens[chosen], settings.backend)
    return images, labels[chosen].astype(np.int64)
