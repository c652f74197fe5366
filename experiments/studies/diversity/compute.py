"""Table 5: precision and recall on the network in Inception's place, CAS without RandAugment.

A cell is one of

- measure: a sampler, a number of iterations and a seed; precision and recall;
- cas: the same; Classification Accuracy Score, or with the sampler "real" that of real images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome
from experiments.studies import cas
from experiments.studies.draws import exclusive, features_of

if TYPE_CHECKING:
    from experiments.sampler.measuring import Real
    from experiments.studies.base import Context

METRICS = {"precision": "precision.v1", "recall": "recall.v1", **cas.METRICS}


def compute(context: Context, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    return {"measure": _measure, "cas": cas.compute_cas}[cell["part"]](context, cell)


def _measure(context: Context, cell: dict[str, Any]) -> Outcome:
    from experiments.sampler.measuring import measure

    name = cell["features"]
    side = context.study.request.sides[name]
    if side.no_features:
        return Outcome({}, dict.fromkeys(("precision", "recall"), side.no_features))
    real = _reference(context, name, cell["num_samples"])
    reason = "" if real else side.no_reference
    samples = features_of(context, cell, name)
    found = measure(("precision", "recall"), name, samples, real, "", reason)
    protocol: dict[str, Any] = {"versions": context.versions()}
    if real is not None:
        reference = real.reference
        protocol |= {
            "reference": reference.description,
            "real_n": len(reference.features[: cell["num_samples"]]),
        }
    return Outcome(*found, protocol)


def _reference(context: Context, name: str, count: int) -> Real | None:
    """The preset's reference on this network, or one of as many real images as samples, built once.

    None where there is neither.
    """
    from eval.reference.build import build_reference
    from experiments.sampler.measuring import Real
    from experiments.studies.real_images import real_images

    found = context.real(name)
    if found is not None:
        return found
    real = real_images(context.preset, context.study.data)
    if real.why:
        return None
    classes = context.preset.num_classes
    ids = real.first_of_classes(np.full(classes, count // classes))
    extractor = context.extractor(name)
    if extractor is None:
        return None
    with exclusive(context.stages, "features", f"reference-{name}"):
        labels = np.asarray(real.labels)[ids]
        reference = build_reference(
            None,
            real.images(ids),
            extractor,
            labels,
            description=f"{len(ids)} of {real.words}, as many of each class",
        )
    return Real(reference)
