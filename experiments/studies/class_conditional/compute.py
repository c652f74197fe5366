"""Table 1 and Figures 5, 11 to 13: class-conditional samples, measured and shown.

A cell is one of

- measure: a sampler, a number of iterations and a seed; FID, IS, precision, recall, parameters,
  and the first samples of a few classes;
- cas: the same; Classification Accuracy Score of a classifier trained on the samples, or, with the
  sampler "real", on as many real images;
- pictures: real images of the same classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome
from experiments.studies import cas
from experiments.studies.draws import features_of, tokens_of

if TYPE_CHECKING:
    from experiments.studies.base import Context

METRICS = {
    "fid": "fid.v1",
    "is": "is.v1",
    "precision": "precision.v1",
    "recall": "recall.v1",
    "parameters": "parameters.v1",
    **cas.METRICS,
}
MEASURED = (("fid", "is"), ("precision", "recall"))  # by the features of each


def compute(context: Context, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    parts = {"measure": _measure, "cas": cas.compute_cas, "pictures": _pictures}
    return parts[cell["part"]](context, cell)


def _measure(context: Context, cell: dict[str, Any]) -> Outcome:
    from experiments.sampler.measuring import measure

    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for names, features in zip(MEASURED, cell["features"], strict=True):
        side = context.study.request.sides[features]
        found = measure(
            names,
            features,
            features_of(context, cell, features),
            context.real(features),
            side.no_features,
            side.no_reference,
        )
        metrics |= found[0]
        missing |= found[1]
    sampler = context.transformer if cell["sampler"] == "maskgit" else context.autoregressive
    count = sum(p.numel() for model in (sampler, context.tokenizer) for p in model.parameters())
    metrics["parameters"] = {"id": METRICS["parameters"], "value": count}
    classes = np.array(cell["shown"], np.int64)
    ids = classes[:, None] + context.preset.num_classes * np.arange(cell["columns"])
    ids = ids[:, (ids < cell["num_samples"]).all(axis=0)]
    tokens = tokens_of(context, cell)[ids.ravel()]
    images = np.concatenate(list(context.decode(tokens)))
    return Outcome(
        metrics,
        missing,
        {"versions": context.versions()},
        {"images": images, "labels": np.repeat(classes, ids.shape[1])},
    )


def _pictures(context: Context, cell: dict[str, Any]) -> Outcome:
    from experiments.studies.real_images import real_images

    real, classes = real_images(context.preset, context.study.data), cell["shown"]
    if real.why:
        images, labels = context.held_out(len(context.study.request.held_out))
        words = context.study.request.held_out.words
    else:
        labels = np.asarray(real.labels)
        words = real.words
    ids = np.concatenate([np.flatnonzero(labels == c)[: cell["columns"]] for c in classes])
    images = images[ids] if real.why else real.images(ids)
    return Outcome({}, {}, {"images": words}, {"images": images, "labels": labels[ids]})
