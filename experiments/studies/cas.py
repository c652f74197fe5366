"""The Classification Accuracy Score of a sampler, or of real images: cells of Tables 1 and 5."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.cas.data import IN_MEMORY, Labelled, labelled
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
from maskgit.common.files import output_file
from maskgit.common.image_file import decode_image

METRICS = tuple(own_metric("cas", f"cas_top{k}", f"CAS top-{k}", 3, "higher") for k in (1, 5))
REAL = "real"  # in place of a sampler
COST = 40  # of training on one image once, in forwards of a small transformer
QUICK_EPOCHS, QUICK_VALIDATION = 4, 1000
SHARD = 10_000  # images of a file where they do not fit into memory
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
    batch = get_recipe(options.cas_recipe, preset.image_size).batch_size
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
        "recipe": options.cas_recipe,
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
        training = selected(real, real.first_of_each(counts))
    else:
        training = generated(worker, Sampling.of(cell), counts)
    held_out = validation_images(preset, data, cell["validation"])
    validation = selected(held_out, np.arange(len(held_out)))
    recipe = get_recipe(
        cell["recipe"],
        preset.image_size,
        epochs=cell["epochs"] or None,
        randaugment=cell["randaugment"] or None,
    )
    result = classification_accuracy(
        training,
        validation,
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


def selected(selection: ImageSelection, ids: np.ndarray) -> Labelled:
    """Some of a selection's images; read one by one as they are needed where they are many."""
    labels = np.asarray(selection.labels, np.int64)[ids]
    first = selection.pick(ids[:1])[0]
    if len(ids) * first.nbytes <= IN_MEMORY:
        return labelled(selection.pick(ids)[0], labels)
    identity = digest([selection.sha256, digest(ids.tolist())])
    return Labelled(selection.words, Picked(selection), ids, labels, None, identity)


@dataclass(frozen=True)
class Picked:
    """The images of a selection by their number, each read when it is asked for."""

    selection: ImageSelection

    def __len__(self) -> int:
        return len(self.selection)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.selection.pick([index])[0][0]


def generated(worker: Worker, settings: Sampling, counts: np.ndarray) -> Labelled:
    """The first counts[c] samples of each class.

    Sample i is of class i mod the number of classes, so max(counts) rounds are drawn. Where they
    are many, their images lie as PNG in zip files of SHARD images below the run's folder, which a
    run that was stopped goes on with; they are read from there as they are needed.
    """
    classes = len(counts)
    tokens = worker.tokens(settings, classes * int(counts.max()))
    labels = np.arange(len(tokens)) % classes
    chosen = np.flatnonzero(np.arange(len(tokens)) // classes < counts[labels])
    labels = labels[chosen].astype(np.int64)
    first = worker.images(tokens[chosen[:1]], settings.backend)
    if len(chosen) * first.nbytes <= IN_MEMORY:
        return labelled(worker.images(tokens[chosen], settings.backend), labels)
    resources = worker.resources
    keys, tokenizer = resources.stage_keys(settings), resources.networks["tokenizer"]
    identity = digest([keys.tokens, tokenizer.identity, resources.code, digest(chosen.tolist())])
    folder = worker.run / "cas" / f"images-{identity[:16]}"
    for number, start in enumerate(range(0, len(chosen), SHARD)):
        part = tokens[chosen[start : start + SHARD]]
        decode = partial(worker.decode, part, settings.backend)
        write_shard(folder / f"{number:05}.zip", decode)
    return Labelled(
        f"samples {keys.tokens[:12]}",
        Shards(folder, len(chosen)),
        np.arange(len(chosen)),
        labels,
        None,
        identity,
    )


def write_shard(path: Path, batches: Callable[[], Iterable[np.ndarray]]) -> None:
    """Write batches of images uint8 (m, H, W, C) as 0.png, 1.png, ... of a zip, if it is not there;
    whole or not at all."""
    if path.is_file():
        return
    with output_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        number = 0
        for images in batches():
            for image in images:
                encoded = io.BytesIO()
                Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
                    encoded, "PNG", compress_level=1
                )
                archive.writestr(zipfile.ZipInfo(f"{number}.png"), encoded.getvalue())
                number += 1


class Shards:
    """The images of `write_shard`'s files in a folder, of SHARD images each, by their number."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._open: dict[int, zipfile.ZipFile] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        shard, place = divmod(index, SHARD)
        if shard not in self._open:
            self._open[shard] = zipfile.ZipFile(self.folder / f"{shard:05}.zip")
        return decode_image(self._open[shard].read(f"{place}.png"), f"{self.folder}[{index}]")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}
