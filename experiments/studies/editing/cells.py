"""The cells of `experiments/editing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import Task
from experiments.engine.grid import parse_integers
from experiments.studies.choices import (
    first_images,
    image_count,
    labels_of_images,
    missing_words,
    no_baseline,
    parse_box,
)
from experiments.studies.filling import AUTOREGRESSIVE_TASKS, SAMPLERS, library
from maskgit.common.errors import UsageError
from maskgit.sampling.editing import latent_box

if TYPE_CHECKING:
    from experiments.studies.base import Study

IMAGES = 2000  # of a cell, or all held-out ones if there are fewer
QUICK_IMAGES = 100
SAMPLES = 4  # pictured of an input
BLEND = (
    "decoded pixels inside the mask, Gaussian blend of the latent mask outside it; "
    "edits: Gaussian blend of the latent box on both sides, as officially"
)


def editing_tasks(
    study: Study, options: Any, names: Sequence[str]
) -> tuple[list[Task], dict[str, Any]]:
    """(cells, what the report says of all of them).

    options: of experiments/editing.py. names: of filling.TASKS.

    Raises:
        UsageError: a flag does not fit the preset.
    """
    preset, seeds = study.preset, options.seed_list()
    decoding = {"steps": options.steps, "start": options.start}
    count = image_count(study, options, IMAGES, QUICK_IMAGES)
    images = first_images(study, "--classes", options.classes)
    shown = {"images": images, "labels": labels_of_images(study, images), "seed": seeds[0]}
    absent = no_baseline(options)

    def measured(task: str, method: str, **more: Any) -> list[dict[str, Any]]:
        cell = {"part": "measure", "task": task, "method": method, "num_images": count, **more}
        return [{**cell, "seed": s} for s in (seeds if method in SAMPLERS else seeds[:1])]

    cells = [cell for method in ("real", "tokenizer") for cell in measured("none", method)]
    for name in names:
        baseline = name in AUTOREGRESSIVE_TASKS and not absent
        cells += measured(name, "maskgit", **decoding)
        cells += measured(name, "autoregressive") if baseline else []
        cells += measured(name, "mean") + measured(name, "biharmonic", library=library())
        picture = {"part": "pictures", "task": name, "samples": SAMPLES, "library": library()}
        cells.append({**picture, "baseline": baseline, **shown, **decoding})
    if preset.conditional:
        cells += _edits(study, options, seeds, count, {**shown, **decoding})
    tasks = [study.task(c, _cost(c, preset.num_tokens), c.get("num_images", 1)) for c in cells]
    protocol = {
        "num_images": count,
        "tasks": list(names),
        "classes_told": "the class of each input" if preset.conditional else "none",
        "hidden_pixels": "at the mean of the known ones when the input is encoded",
        "composite": BLEND,
        "biharmonic": library(),
        **decoding,
        **missing_words(study, absent),
    }
    return tasks, protocol


def _edits(
    study: Study, options: Any, seeds: Sequence[int], count: int, shown: dict[str, Any]
) -> list[dict[str, Any]]:
    preset = study.preset
    box = parse_box(options.box, preset.image_size)
    size = (preset.image_size, preset.image_size)
    if latent_box(box, size, preset.tokenizer.downsampling).all():
        raise UsageError(f"--box {options.box}: covers every token; expected a part")
    targets = parse_integers(options.targets, "--targets", 0, preset.num_classes - 1)
    shared = {"box": [box.top, box.left, box.height, box.width]}
    shared |= {name: shown[name] for name in ("steps", "start")}
    cells = [{"part": "edit", "num_images": count, "seed": seed, **shared} for seed in seeds]
    return [*cells, {"part": "edits", "targets": targets, **shared, **shown}]


def _cost(cell: dict[str, Any], num_tokens: int) -> float:
    forwards = {"autoregressive": num_tokens}.get(cell.get("method", ""), cell.get("steps", 1))
    images = cell.get("num_images", 0) or len(cell["images"]) * SAMPLES
    return float(images * (4 + forwards))
