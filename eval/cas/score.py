"""Classification Accuracy Score, CAS (Ravuri & Vinyals 2019): how well a classifier does on real
images when it has only ever seen generated ones.

A ResNet-50 is trained from scratch on the samples, as many of each class as there are real
training images, and validated on real images: that top-1 accuracy is the score. The same training
on as many real images is reported beside it, and the ratio of the two. That training is shared by
all samples that have as many images of each class.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.cas.data import Geometry, Labelled, geometry
from eval.cas.recipe import METRIC, Recipe
from eval.cas.training import Progress, Training
from eval.features.registry import IMAGENET_MEAN, IMAGENET_STD
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError
from maskgit.common.image_folder import class_labels, class_order

if TYPE_CHECKING:
    import torch

SUBSET_SEED = 0  # which real images are trained on, where there are more than samples


def metric_id(recipe: Recipe, size: Sequence[int]) -> str:
    """`cas.RECIPE-EPOCHS-STEM-HxW[-randaugment].vN`: what may share a column."""
    height, width = size
    more = "-randaugment" if recipe.randaugment else ""
    name = f"{recipe.name}-{recipe.epochs}-{recipe.stem}-{height}x{width}{more}"
    return METRIC.id(name)


def proportional_counts(real: np.ndarray, total: int) -> np.ndarray:
    """`total` samples divided over the classes like the real images: int64 (C,).

    Args:
        real: real images of each class, int (C,), at least one in all.
        total: samples in all; as many as there are real images gives `real` itself.

    Raises:
        UsageError: no real images, or a negative total.
    """
    real = np.asarray(real, np.int64)
    if total < 0 or real.ndim != 1 or real.sum() < 1 or real.min() < 0:
        raise UsageError(f"counts {real.tolist()} for {total} samples: expected images and a total")
    whole, rest = np.divmod(real * total, real.sum())  # integers: the parts must add up
    first = np.argsort(-rest, kind="stable")[: total - whole.sum()]
    whole[first] += 1
    return whole


def classification_accuracy(
    samples: Labelled,
    validation: Labelled,
    real: Labelled | None = None,
    *,
    recipe: Recipe,
    seeds: Sequence[int] = (0,),
    out: Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    checkpoint_seconds: float = 60,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The CAS of samples, and the accuracy after the same training on real images.

    Args:
        samples, validation, real: images with classes, of `eval.cas.data.labelled`. Grey images
            are given to the network as three equal channels.
        recipe: how the classifier is trained.
        seeds: of the trainings; the results are means over them.
        out: folder for checkpoints and results; None keeps nothing.
        device: torch device.
        workers: processes that load images; None is one per core for images in files, else 0.
        checkpoint_seconds: time between checkpoints.
        progress: called as (what, done, total).

    Returns:
        value: the score, top-1 accuracy in [0, 1]. samples and real (None without real images):
        top1, top5, their standard deviation over seeds (None for one), and `runs` as
        `eval.cas.training.Training.run` gives them. ratio_top1, ratio_top5: samples' accuracy
        over real images'. id, protocol, counts (by class), class_names, notes.

    Raises:
        UsageError: images or labels that do not fit, or a recipe that cannot be trained.
    """
    on = check_device(device)
    if len(seeds) == 0 or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UsageError(f"--seeds {list(seeds)}: expected different whole numbers from 0")
    recipe.check()
    sets = {"samples": samples, "validation": validation}
    if real is not None:
        sets["real"] = real
    class_names, notes = _align(sets)
    num_classes = 1 + max(int(data.labels.max()) for data in sets.values())
    if num_classes < 2:
        raise UsageError("classification accuracy: all images are of one class, expected two")
    shape = geometry(samples[0])
    trained, more_notes = _same_budget(sets, num_classes)
    results: dict[str, Any] = {"real": None}
    for name, data in trained.items():
        in_files = not (data.in_memory and validation.in_memory)
        loading = (in_files and os.cpu_count()) or 0 if workers is None else workers
        if multiprocessing.current_process().daemon:  # such a process may not start others
            loading = 0
        runs = [
            Training(
                name, data, sets["validation"], num_classes, shape, recipe, seed, folder=out,
                device=on, workers=loading, checkpoint_seconds=checkpoint_seconds,
            ).run(progress)
            for seed in seeds
        ]  # fmt: skip
        results[name] = _summary(runs)
    compared = results["real"] or {}
    return {
        "id": metric_id(recipe, shape.size),
        "value": results["samples"]["top1"],
        **results,
        **{f"ratio_{k}": _ratio(results["samples"][k], compared.get(k)) for k in ("top1", "top5")},
        "protocol": _protocol(recipe, shape, sets, on),
        "counts": {
            name: data.counts(num_classes).tolist()
            for name, data in {**trained, "validation": sets["validation"]}.items()
        },
        "class_names": class_names,
        "notes": notes + more_notes,
    }


def _align(sets: dict[str, Labelled]) -> tuple[list[str] | None, list[str]]:
    """Make the labels of all sets mean the same classes; returns the classes' names, if known, and
    a note where that is not certain."""
    named = {name: data.class_names for name, data in sets.items() if data.class_names is not None}
    if not named:
        return None, []
    all_names = class_order([cls for names in named.values() for cls in names])
    for name in ("validation", "real"):  # a class that only one real set has is a mistake
        for cls in all_names:
            if name in named and cls not in named[name]:
                raise UsageError(f"{sets[name].name}: no class {cls}, which other images have")
    numbered = [name for name in sets if name not in named]
    if numbered and any(len(names) < len(all_names) for names in named.values()):
        raise UsageError("classes: some sets name them and miss one, others number them")
    for name, names in named.items():
        new = class_labels(all_names, names)[sets[name].labels]
        sets[name] = dataclasses.replace(sets[name], labels=new)
    if not numbered or all(str(i) == cls.lstrip("0") or i == 0 for i, cls in enumerate(all_names)):
        return all_names, []
    pairs = ", ".join(f"{i} is {cls}" for i, cls in enumerate(all_names[:5]))
    return all_names, [f"the numbers of {' and '.join(numbered)} are taken for classes so: {pairs}"]


def _same_budget(
    sets: dict[str, Labelled], num_classes: int
) -> tuple[dict[str, Labelled], list[str]]:
    """The samples and real images to train on, equally many of each class, and notes on what was
    left out."""
    samples, notes = sets["samples"], []
    counts = samples.counts(num_classes)
    validated = sets["validation"].counts(num_classes)
    if missing := np.flatnonzero((counts == 0) & (validated > 0)).tolist():
        notes.append(f"no samples of {len(missing)} classes that are validated ({missing[:5]} ...)")
    if "real" not in sets:
        return {"samples": samples}, notes
    real = sets["real"]
    available = real.counts(num_classes)
    wanted = proportional_counts(available, len(samples))
    if np.abs(counts - wanted).max() > 1:
        worst = int(np.abs(counts - wanted).argmax())
        notes.append(
            f"the samples do not follow the real classes: {counts[worst]} of class {worst}, in "
            f"proportion it would be {wanted[worst]}"
        )
    used = np.minimum(counts, available)
    if used.sum() < len(samples):
        notes.append(
            f"{len(samples) - used.sum()} samples left out, of classes with fewer real images"
        )
        samples = samples.subset(_pick(samples.labels, used))
    if used.sum() < len(real):
        notes.append(f"real images: {used.sum()} of {len(real)}, as many of each class as samples")
        real = real.subset(_pick(real.labels, used))
    return {"samples": samples, "real": real}, notes


def _pick(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Indices of counts[c] images of each class c, drawn with a fixed seed, in order."""
    rng = np.random.default_rng(SUBSET_SEED)
    chosen = [
        rng.permutation(np.flatnonzero(labels == c))[:count] for c, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(chosen))


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key in ("top1", "top5"):
        values = [run[key] for run in runs]
        known = None not in values
        result[key] = float(np.mean(values)) if known else None
        several = known and len(values) > 1
        result[f"{key}_deviation"] = float(np.std(values, ddof=1)) if several else None
    return {**result, "runs": runs}


def _ratio(value: float | None, real: float | None) -> float | None:
    return value / real if value is not None and real else None


def _protocol(
    recipe: Recipe, shape: Geometry, sets: dict[str, Labelled], device: torch.device
) -> dict[str, Any]:
    import torch
    import torchvision

    channels = sets["samples"][0].shape[2]
    return {
        "recipe": recipe.describe(),
        **shape.describe(),
        "channels": "grey, as three equal channels" if channels == 1 else "RGB",
        "normalisation": f"(x / 255 - {list(IMAGENET_MEAN)}) / {list(IMAGENET_STD)}",
        "precision": "bfloat16 autocast" if device.type == "cuda" else "float32",
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "sets": {name: f"{data.name}, sha256 {data.sha256[:12]}" for name, data in sets.items()},
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }
