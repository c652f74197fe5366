"""Table 4: samples that a classifier is surest of, at falling acceptance rates.

A cell is one seed: a pool of num_samples / (lowest rate) samples is drawn once and scored; at rate
r the first num_samples / r of it compete, so that num_samples are kept at every rate, and at rate 1
they are the plain sampler's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from eval.rejection import class_scores, get_classifier, num_drawn
from experiments.engine.cells import Outcome, Sampling
from experiments.engine.keys import stage_key
from experiments.engine.own_metrics import entries, own_metric
from experiments.engine.store.blocks import Blocks
from experiments.sampler.feature_networks import class_columns
from experiments.sampler.worker import Worker

METRICS = (
    own_metric("rejection", "drawn", "Drawn", 0),
    own_metric("rejection", "own", "Probability of the own class", 3, "higher"),
)


def shared(worker: Worker, cell: dict[str, Any]) -> list[Blocks]:
    """What other processes may make of a cell, see `Worker.shared`."""
    return [_scores(worker, _pool(worker, cell)[0], cell)]


def _pool(worker: Worker, cell: dict[str, Any]) -> tuple[Sampling, dict[float, int]]:
    """(settings of all samples that are drawn, how many of them at each rate)."""
    classes = worker.preset.num_classes
    per_class = cell["num_samples"] // classes
    drawn = {rate: classes * num_drawn(per_class, rate) for rate in cell["rates"]}
    return replace(Sampling.of(cell), num_samples=max(drawn.values())), drawn


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """One seed at all its rates; metrics are named `fid@0.05`."""
    classes = worker.preset.num_classes
    per_class = cell["num_samples"] // classes
    settings, drawn = _pool(worker, cell)
    scores = _scores(worker, settings, cell).read()["scores"]
    tokens = worker.tokens(settings)
    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    extractor = worker.extractor(cell["features"])
    for rate in cell["rates"]:
        kept = kept_of_each_class(scores[: drawn[rate]], classes, per_class)
        samples = None
        if extractor is not None:
            samples = extractor.extract_batches(worker.decode(tokens[kept], settings.backend))
        found, absent = worker.measure(cell["features"], samples)
        own = float(_probability(scores[kept]).mean())
        found |= entries(METRICS, {"drawn": drawn[rate], "own": own})
        metrics |= {f"{metric}@{rate:g}": value for metric, value in found.items()}
        missing |= {f"{metric}@{rate:g}": why for metric, why in absent.items()}
    pictures = _pictures(worker, settings, tokens, scores)
    return Outcome(metrics, missing, {"classifier": cell["classifier"]}, pictures)


def kept_of_each_class(scores: np.ndarray, classes: int, count: int) -> np.ndarray:
    """Numbers of the `count` samples of each class with the highest scores, int64, ascending.

    scores: float64 (n,); sample i is of class i mod `classes`. Of equal scores the earlier is kept.
    """
    table = scores.reshape(-1, classes)
    order = np.argsort(-table, axis=0, kind="stable")[:count]
    return np.sort((order * classes + np.arange(classes)).ravel()).astype(np.int64)


def _scores(worker: Worker, settings: Sampling, cell: dict[str, Any]) -> Blocks:
    """The classifier's log odds of each sample's own class, float64 (n,), block by block."""
    key = stage_key(
        "scores",
        tokens=worker.resources.stage_keys(settings).tokens,
        tokenizer=worker.resources.networks["tokenizer"].identity,
        classifier=[cell["classifier"], cell["classifier_sha256"]],
        code=worker.resources.code,
    )
    name, classes = cell["classifier"], worker.preset.num_classes

    def make(tokens: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        classifier = worker.once(
            f"classifier {name}",
            lambda: get_classifier(name, worker.resources.feature_weights, worker.device),
        )
        columns = class_columns(classifier, worker.preset)
        logits = classifier.extract_batches(worker.decode(tokens, settings.backend)).logits
        return {"scores": class_scores(logits[:, columns], ids % classes)}

    return worker.blocks_of(settings, key, make)


def _probability(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(scores, -700, 700)))


def _pictures(
    worker: Worker, settings: Sampling, tokens: np.ndarray, scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Of a few classes: the first sample, the surest and the least sure of the pool."""
    classes = worker.preset.num_classes
    every = max(1, classes // 10)
    shown = np.arange(0, classes, every)[:10]
    table = scores.reshape(-1, classes)
    best, worst = (pick(table, axis=0)[shown] * classes + shown for pick in (np.argmax, np.argmin))
    ids = np.concatenate([shown, best, worst])
    images = worker.images(tokens[ids], settings.backend)
    return {
        "images": images.reshape(3, len(shown), *images.shape[1:]),
        "labels": shown.astype(np.int64),
        "probability": _probability(scores[ids]).reshape(3, -1),
    }
