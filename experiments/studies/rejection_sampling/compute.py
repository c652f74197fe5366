"""Table 4: samples that a classifier is surest of, at falling acceptance rates.

A cell is one seed: a pool of num_samples / (lowest rate) samples is drawn once and scored; at rate
r the first num_samples / r of it compete, so that num_samples are kept at every rate, and at rate 1
they are the plain sampler's own.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome
from experiments.engine.keys import stage_key
from experiments.studies.draws import exclusive, tokens_of

if TYPE_CHECKING:
    from eval.features.registry import Extractor
    from experiments.studies.base import Context

METRICS = {
    name: f"{name}.rejection.v1" for name in ("fid", "is", "precision", "recall", "drawn", "own")
}
MEASURED = ("fid", "is", "precision", "recall")
ROUND = 1000  # samples classified at a time


def compute(context: Context, cell: dict[str, Any]) -> Outcome:
    """One seed at all its rates; metrics are named `fid@0.05`."""
    from eval.rejection import num_drawn
    from experiments.sampler.measuring import measure

    classes, count = context.preset.num_classes, cell["num_samples"]
    per_class = count // classes
    drawn = {rate: classes * num_drawn(per_class, rate) for rate in cell["rates"]}
    tokens = tokens_of(context, cell, max(drawn.values()))
    scores = _scores(context, cell, tokens)
    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    name = cell["features"]
    side = context.study.request.sides[name]
    extractor = context.extractor(name)
    for rate in cell["rates"]:
        kept = kept_of_each_class(scores[: drawn[rate]], classes, per_class)
        samples = None
        if extractor is not None:
            samples = extractor.extract_batches(context.decode(tokens[kept]))
        found, absent = measure(
            MEASURED, name, samples, context.real(name), side.no_features, side.no_reference
        )
        found["drawn"] = {"id": METRICS["drawn"], "value": drawn[rate]}
        found["own"] = {"id": METRICS["own"], "value": float(_probability(scores[kept]).mean())}
        metrics |= {f"{metric}@{rate:g}": value for metric, value in found.items()}
        missing |= {f"{metric}@{rate:g}": why for metric, why in absent.items()}
    protocol = {"classifier": cell["classifier"], "versions": context.versions()}
    return Outcome(metrics, missing, protocol, _pictures(context, tokens, scores, drawn, classes))


def kept_of_each_class(scores: np.ndarray, classes: int, count: int) -> np.ndarray:
    """Numbers of the `count` samples of each class with the highest scores, int64, ascending.

    scores: float64 (n,); sample i is of class i mod `classes`. Of equal scores the earlier is kept.
    """
    table = scores.reshape(-1, classes)
    order = np.argsort(-table, axis=0, kind="stable")[:count]
    return np.sort((order * classes + np.arange(classes)).ravel()).astype(np.int64)


def _scores(context: Context, cell: dict[str, Any], tokens: np.ndarray) -> np.ndarray:
    """The classifier's log odds of each sample's own class, float64 (n,), kept as a stage."""
    from eval.rejection import class_scores

    classes = context.preset.num_classes
    labels = np.arange(len(tokens)) % classes
    key = stage_key(
        "scores",
        tokens=_sha256(tokens),
        tokenizer=context.study.request.networks["tokenizer"].identity,
        classifier=[cell["classifier"], cell["classifier_sha256"]],
        code=context.study.code,
    )

    def make() -> dict[str, np.ndarray]:
        classifier = _classifier(context, cell)
        parts = []
        for start in range(0, len(tokens), ROUND):
            rows = slice(start, start + ROUND)
            logits = classifier.extract_batches(context.decode(tokens[rows])).logits
            parts.append(class_scores(logits, labels[rows]))
        return {"scores": np.concatenate(parts)}

    with exclusive(context.stages, "features", key):
        return context.stages.arrays("features", key, len(tokens), make)["scores"]


def _classifier(context: Context, cell: dict[str, Any]) -> Extractor:
    from eval.rejection import get_classifier
    from maskgit.common.errors import UsageError

    classifier = get_classifier(cell["classifier"], context.study.weights_dir, context.device)
    if classifier.num_logits < context.preset.num_classes:
        raise UsageError(
            f"--classifier {cell['classifier']}: has {classifier.num_logits} classes, "
            f"the preset {context.preset.num_classes}"
        )
    return classifier


def _sha256(array: np.ndarray) -> str:
    import hashlib

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def _probability(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(scores, -700, 700)))


def _pictures(
    context: Context,
    tokens: np.ndarray,
    scores: np.ndarray,
    drawn: dict[float, int],
    classes: int,
) -> dict[str, np.ndarray]:
    """Of a few classes: the first sample, the surest and the least sure of the pool."""
    every = max(1, classes // 10)
    shown = np.arange(0, classes, every)[:10]
    table = scores.reshape(-1, classes)
    best, worst = (pick(table, axis=0)[shown] * classes + shown for pick in (np.argmax, np.argmin))
    ids = np.concatenate([shown, best, worst])
    images = np.concatenate(list(context.decode(tokens[ids])))
    return {
        "images": images.reshape(3, len(shown), *images.shape[1:]),
        "labels": shown.astype(np.int64),
        "probability": _probability(scores[ids]).reshape(3, -1),
    }
