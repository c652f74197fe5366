"""The Classification Accuracy Score of a sampler, or of real images: cells of Tables 1 and 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome
from experiments.studies.draws import tokens_of
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.studies.base import Context, Study
    from experiments.studies.real_images import RealImages

METRICS = {"cas_top1": "cas-top1.v1", "cas_top5": "cas-top5.v1"}
REAL = "real"  # in place of a sampler
COST = 40  # of training on one image once, in forwards of a small transformer


def cas_settings(
    study: Study,
    real: RealImages,
    *,
    samples: int,
    epochs: int,
    rand: bool,
    validation: int,
) -> dict[str, Any]:
    """What every CAS cell of a study says beside its sampler; empty where there is to be none.

    samples: images in all, divided over the classes like the real ones. epochs: 0 takes the
    recipe's. rand: RandAugment. validation: held-out images that are tested on.

    Raises:
        UsageError: too few samples, or a negative number.
    """
    from eval.cas.recipe import get_recipe
    from eval.cas.score import proportional_counts

    if samples < 0 or epochs < 0:
        raise UsageError(f"--cas-samples {samples} --cas-epochs {epochs}: must be 0 or more")
    if validation < 1:
        raise UsageError(f"--cas-validation {validation}: must be at least 1")
    if samples == 0 or real.why or not study.preset.conditional:
        return {}
    classes = study.preset.num_classes
    have = np.bincount(np.asarray(real.labels), minlength=classes)
    samples = min(samples, int(have.sum()))
    counts = proportional_counts(have, samples)
    batch = get_recipe("auto", study.preset.image_size).batch_size
    if counts.min() < 1 or samples < batch:
        raise UsageError(
            f"--cas-samples {samples}: expected 0, or at least a batch of {batch} and one of each "
            f"of the {classes} classes"
        )
    return {
        "cas_samples": samples,
        "counts": digest_or_list(counts),
        "epochs": epochs,
        "randaugment": rand,
        "validation": validation,
        "real_images": real.sha256[:16],
    }


def digest_or_list(counts: np.ndarray) -> list[int] | str:
    """Counts of up to ten classes as they are, of more their hash: a cell should stay readable."""
    from experiments.engine.keys import digest

    values = [int(count) for count in counts]
    return values if len(values) <= 10 else digest(values)[:16]


def why_no_cas(study: Study, real: RealImages, samples: int) -> str:
    """Why there are no CAS cells; empty if there are."""
    if not study.preset.conditional:
        return "the preset has no classes"
    return real.why or ("not asked for: give --cas-samples" if samples == 0 else "")


def compute_cas(context: Context, cell: dict[str, Any]) -> Outcome:
    """Train on samples (or real images) and validate on held-out ones.

    cell: has sampler ("real" for real images), the settings of `cas_settings` and seed, and for
    samplers those of `draws.sampling`.
    """
    from eval.cas.recipe import get_recipe
    from eval.cas.score import classification_accuracy, proportional_counts
    from experiments.studies.real_images import real_images, validation_images

    preset, data = context.preset, context.study.data
    real = real_images(preset, data)
    have = np.bincount(np.asarray(real.labels), minlength=preset.num_classes)
    counts = proportional_counts(have, cell["cas_samples"])
    if cell["sampler"] == REAL:
        ids = real.first_of_classes(counts)
        images, labels = real.images(ids), np.asarray(real.labels)[ids].astype(np.int64)
    else:
        images, labels = generated(context, cell, counts)
    held_out = validation_images(preset, data, cell["validation"])
    recipe = get_recipe(
        "auto",
        preset.image_size,
        epochs=cell["epochs"] or None,
        randaugment=cell["randaugment"] or None,
    )
    result = classification_accuracy(
        images,
        labels,
        held_out["images"],
        held_out["labels"],
        recipe=recipe,
        seeds=(cell["seed"],),
        out=context.computer.run / "cas",
        device=context.device,
    )
    metrics, missing = {}, {}
    for name in METRICS:
        value = result["samples"][name.removeprefix("cas_")]
        if value is None:
            missing[name] = "fewer than six classes"
        else:
            metrics[name] = {"id": METRICS[name], "value": value}
    protocol = {
        "cas": result["id"],
        "cas_protocol": result["protocol"],
        "counts": result["counts"]["samples"][:10],
        "versions": context.versions(),
    }
    return Outcome(metrics, missing, protocol)


def generated(
    context: Context, cell: dict[str, Any], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first counts[c] samples of each class: (uint8 (n, H, W, C), classes int64 (n,)).

    Sample i is of class i mod the number of classes, so max(counts) rounds are drawn.
    """
    classes = len(counts)
    tokens = tokens_of(context, cell, classes * int(counts.max()))
    labels = np.arange(len(tokens)) % classes
    chosen = np.flatnonzero(np.arange(len(tokens)) // classes < counts[labels])
    images = np.concatenate(list(context.decode(tokens[chosen])))
    return images, labels[chosen].astype(np.int64)
