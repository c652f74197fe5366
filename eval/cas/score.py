"""Classification Accuracy Score, CAS (Ravuri & Vinyals 2019): how well a classifier does on real
images when it has only ever seen generated ones.

A ResNet-50 is trained from scratch on the samples, as many of each class as there are real
training images, and validated on real images: that top-1 accuracy is the score. The same training
on as many real images is reported beside it, and the ratio of the two. That training is shared by
all samples that have as many images of each class.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.cas.data import Geometry, Labelled, geometry, labelled
from eval.cas.recipe import METRIC, Recipe, get_recipe
from eval.cas.training import Progress, Training
from eval.features.registry import IMAGENET_MEAN, IMAGENET_STD
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError

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
    samples: np.ndarray | str | Path | Labelled,
    labels: np.ndarray | None,
    validation: np.ndarray | str | Path | Labelled,
    validation_labels: np.ndarray | None = None,
    *,
    real: np.ndarray | str | Path | Labelled | None = None,
    real_labels: np.ndarray | None = None,
    recipe: str | Recipe = "auto",
    randaugment: bool | None = None,
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    pad: int | None = None,
    device: str = "cpu",
    workers: int | None = None,
    checkpoint_seconds: float = 60,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The CAS of samples, and the accuracy after the same training on real images.

    Args:
        samples, validation, real: uint8 arrays (n, H, W, C), C of 1 or 3, or paths that
            `eval.images.source` opens. Grey images are given to the network as three equal
            channels.
        labels, validation_labels, real_labels: int (n,), from 0; None where the path has classes.
        recipe: of `eval.cas.recipe`, by name or whole; `auto` chooses by the images' size.
        randaugment: overrides the recipe's.
        seeds: of the trainings; the results are means over them.
        out: folder for checkpoints and results; None keeps nothing.
        pad: put every image in the middle of a black square of so many pixels.
        device: torch device.
        workers: processes that load images; None is one per core for images in files, else 0.
        checkpoint_seconds: time between checkpoints.
        progress: called as (what, done, total).

    Returns:
        value: the score, top-1 accuracy in [0, 1]. samples and real (None without real images):
        top1, top5, their standard deviation over seeds (None for one), and `runs` as
        `cas_training.Training.run` gives them. ratio_top1, ratio_top5: samples' accuracy over
        real images'. id, protocol, counts (by class), class_names, notes.

    Raises:
        UsageError: images or labels that do not fit, or a recipe that cannot be trained.
    """

    on = check_device(device)
    if len(seeds) == 0 or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UsageError(f"--seeds {list(seeds)}: expected different whole numbers from 0")
    sets = {
        "samples": labelled(samples, labels, what="samples", pad=pad),
        "validation": labelled(validation, validation_labels, what="--validation", pad=pad),
    }
    if real is not None:
        sets["real"] = labelled(real, real_labels, what="--real-train", pad=pad)
    class_names = _align(sets)
    first = sets["samples"].images[0]
    shape = geometry(first)
    if isinstance(recipe, str):
        recipe = get_recipe(recipe, max(first.shape[:2]), randaugment=randaugment)
    elif randaugment is not None:
        raise UsageError("randaugment: set it in the recipe that is given whole")
    recipe.check()

    num_classes = 1 + max(int(data.labels.max()) for data in sets.values())
    if num_classes < 2:
        raise UsageError("classification accuracy: all images are of one class, expected two")
    trained, notes = _same_budget(sets, num_classes)
    results: dict[str, Any] = {}
    for name, data in trained.items():
        runs = [
            _train(
                name, data, sets["validation"], num_classes, shape, recipe, seed,
                folder=None if out is None else Path(out), device=on, workers=workers,
                checkpoint_seconds=checkpoint_seconds, progress=progress,
            )
            for seed in seeds
        ]  # fmt: skip
        results[name] = _summary(runs)
    compared = results.get("real")
    return {
        "id": metric_id(recipe, shape.size),
        "value": results["samples"]["top1"],
        "samples": results["samples"],
        "real": compared,
        "ratio_top1": _ratio(results["samples"]["top1"], compared and compared["top1"]),
        "ratio_top5": _ratio(results["samples"]["top5"], compared and compared["top5"]),
        "protocol": _protocol(recipe, shape, sets, on),
        "counts": {
            name: data.counts(num_classes).tolist()
            for name, data in {**trained, "validation": sets["validation"]}.items()
        },
        "class_names": class_names,
        "notes": notes,
    }


def _align(sets: dict[str, Labelled]) -> list[str] | None:
    """Make the labels of all sets mean the same classes; returns the classes' names, if known."""
    named = {name: data.class_names for name, data in sets.items() if data.class_names is not None}
    if not named:
        return None
    all_names = sorted(set().union(*named.values()))
    for name in ("validation", "real"):  # a class that only one real set has is a mistake
        for cls in all_names:
            if name in named and cls not in named[name]:
                raise UsageError(f"{sets[name].name}: no class {cls}, which other images have")
    if len(named) < len(sets) and any(len(names) < len(all_names) for names in named.values()):
        raise UsageError("classes: some sets name them and miss one, others number them")
    for name, names in named.items():
        new = np.searchsorted(all_names, names)[sets[name].labels]
        sets[name] = dataclasses.replace(sets[name], labels=new)
    return all_names


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


def _train(
    name: str, train: Labelled, validation: Labelled, *rest: Any, workers: int | None,
    progress: Progress | None, **settings: Any,
) -> dict[str, Any]:  # fmt: skip

    if workers is None:
        workers = 0 if train.in_memory and validation.in_memory else os.cpu_count() or 1
    return Training(name, train, validation, *rest, workers=workers, **settings).run(progress)


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

    channels = sets["samples"].images[0].shape[2]
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
