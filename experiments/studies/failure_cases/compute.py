"""Figure 21: where it goes wrong, found by measures and not by eye.

A cell is one of

- samples: a seed; samples of all classes, ordered by the probability that the feature network's
  classifier gives the class asked for;
- real: the same of held-out images, for what the classifier itself gets wrong;
- reconstruction: held-out images through the tokenizer, ordered by PSNR;
- boundary: a direction and a seed; outpainted images, ordered by how much more they change across
  the boundary than the real images do there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.metrics.reconstruction import psnr, summarize
from eval.metrics.registry import METRICS as KNOWN
from experiments.engine.cells import Outcome, Sampling
from experiments.engine.own_metrics import entries, own_metric
from experiments.engine.store.blocks import Blocks
from experiments.sampler.samples import labels_of
from experiments.sampler.worker import Worker
from experiments.studies.filling import TASKS, fill, reconstruct

METRICS = (
    own_metric("failures", "disagreement", "Taken for another class", 3, "lower"),
    KNOWN["psnr"],
    own_metric("failures", "worst_psnr", "Worst PSNR", 2, "higher", "dB"),
    own_metric("failures", "gradient", "Gradient at the boundary", 2),
    own_metric("failures", "real_gradient", "The real images' there", 2),
    own_metric("failures", "ratio", "Ratio of both", 3),
)
WORST = 20  # samples shown
WORST_PAIRS = 8  # reconstructions shown
WORST_EDGES = 2  # outpainted images shown, a direction


def shared(worker: Worker, cell: dict[str, Any]) -> list[Blocks]:
    """What other processes may make of a cell, see `Worker.shared`."""
    return [worker.token_blocks(Sampling.of(cell))] if cell["part"] == "samples" else []


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    parts = {"samples": _samples, "real": _real, "boundary": _boundary}
    parts["reconstruction"] = _reconstruction
    metrics, missing, arrays = parts[cell["part"]](worker, cell)
    return Outcome(
        metrics=entries(METRICS, {name: float(value) for name, value in metrics.items()}),
        missing=missing,
        protocol={"seed": cell["seed"]},
        arrays=arrays,
    )


def _samples(worker: Worker, cell: dict[str, Any]) -> tuple[dict, dict, dict]:
    settings = Sampling.of(cell)
    asked = labels_of(settings.num_samples, worker.preset.num_classes)
    tokens = worker.tokens(settings)
    told, reason = worker.classify(cell["classifier"], worker.decode(tokens))
    if told is None:
        return {}, {"disagreement": reason}, {}
    worst = worst_first(told, asked)[:WORST]
    pictures = worker.images(tokens[worst])
    return (*_disagreement(told, asked), {"images": pictures, **_words(told, asked, worst)})


def _real(worker: Worker, cell: dict[str, Any]) -> tuple[dict, dict, dict]:
    held_out, count = worker.resources.held_out, cell["num_images"]
    images = (batch for batch, _, _ in held_out.numbered(count))
    told, reason = worker.classify(cell["classifier"], images)
    if told is None:
        return {}, {"disagreement": reason}, {}
    labels = np.asarray(held_out.labels, np.int64)[:count]
    return (*_disagreement(told, labels), _words(told, labels, np.zeros(0, np.int64)))


def worst_first(told: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Numbers of images in rising order of the probability of the class asked for.

    told: probabilities (n, classes); asked: (n,) int64.
    """
    return np.argsort(told[np.arange(len(told)), asked], kind="stable")


def _disagreement(told: np.ndarray, asked: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    return {"disagreement": float((told.argmax(axis=1) != asked).mean())}, {}


def _words(told: np.ndarray, asked: np.ndarray, worst: np.ndarray) -> dict[str, np.ndarray]:
    """What is told of the worst, and for each class how many there are and how many are wrong."""
    predicted, classes = told.argmax(axis=1), told.shape[1]
    return {
        "asked": asked[worst],
        "predicted": predicted[worst],
        "asked_probability": told[worst, asked[worst]],
        "predicted_probability": told[worst, predicted[worst]],
        "of_class": np.bincount(asked, minlength=classes),
        "wrong_of_class": np.bincount(asked[predicted != asked], minlength=classes),
    }


def _reconstruction(worker: Worker, cell: dict[str, Any]) -> tuple[dict, dict, dict]:
    values, labels = [], []
    for images, classes, _ in worker.resources.held_out.numbered(cell["num_images"]):
        values.append(psnr(images, reconstruct(worker, images)))
        labels.append(classes)
    all_values, all_labels = np.concatenate(values), np.concatenate(labels)
    order = np.argsort(all_values, kind="stable")
    worst = order[:WORST_PAIRS]
    originals, classes, _ = worker.resources.held_out.pick(worst.tolist())
    by_class = [
        float(np.mean(all_values[all_labels == c])) if (all_labels == c).any() else np.nan
        for c in range(worker.preset.num_classes)
    ]
    arrays = {
        "originals": originals,
        "reconstructions": reconstruct(worker, originals),
        "labels": classes,
        "psnr": all_values[worst],
        "psnr_of_class": np.array(by_class),
        "percentiles": np.percentile(all_values, [0, 5, 50, 95, 100]),
    }
    metrics = {"psnr": summarize(all_values)["mean"], "worst_psnr": all_values[order[0]]}
    return metrics, {}, arrays


def _boundary(worker: Worker, cell: dict[str, Any]) -> tuple[dict, dict, dict]:
    direction = cell["direction"]
    task = {**cell, "task": f"outpaint-{direction}", "method": "maskgit"}
    made, real, kept = [], [], []
    for images, labels, ids in worker.resources.held_out.numbered(cell["num_images"]):
        filled = fill(worker, task, images, labels, ids)
        made.append(across(filled, direction))
        real.append(across(images, direction))
        kept.append(_steepest(filled, images, ids, made[-1] - real[-1]))
    ours, theirs = np.concatenate(made), np.concatenate(real)
    pictures, inputs, ids, gains = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    worst = np.argsort(-gains, kind="stable")[:WORST_EDGES]
    means = {"gradient": ours.mean(), "real_gradient": theirs.mean()}
    means["ratio"] = means["gradient"] / means["real_gradient"]
    arrays = {"images": pictures[worst], "inputs": inputs[worst], "ids": ids[worst]}
    mask = TASKS[task["task"]](*worker.preset.size)
    return means, {}, {**arrays, "gains": gains[worst], "mask": mask}


def _steepest(
    filled: np.ndarray, images: np.ndarray, ids: np.ndarray, gains: np.ndarray
) -> tuple[np.ndarray, ...]:
    few = np.argsort(-gains, kind="stable")[:WORST_EDGES]
    return filled[few], images[few], ids[few], gains[few]


def across(images: np.ndarray, direction: str) -> np.ndarray:
    """Mean absolute difference across the boundary in the middle, float64 (n,), in grey levels.

    images: uint8 (n, H, W, C). For right and left the columns W/2 - 1 and W/2, else the rows.
    """
    if direction in ("top", "bottom"):
        images = images.swapaxes(1, 2)
    middle = images.shape[2] // 2
    pair = images[:, :, middle - 1 : middle + 1].astype(np.float64)
    return np.abs(pair[:, :, 1] - pair[:, :, 0]).mean(axis=(1, 2))
