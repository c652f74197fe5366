"""`--dry-run`: what is left to do, and how long it would take here, from a short measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence

from experiments.engine import held_out
from experiments.engine.cells import Task
from experiments.engine.compute import SamplerComputer
from experiments.engine.stages import Stages

MEASURED_SECONDS = 1.0


def forwards(tasks: Sequence[Task], stages: Stages) -> int:
    """Forwards of the transformer, one per image and iteration, for cells without kept tokens.

    An upper bound: the first iteration is shared within a class, and images with one token left
    skip ahead.
    """
    return sum(
        task.cell["num_samples"] * task.cell["steps"]
        for task in tasks
        if not stages.has("tokens", task.spec.tokens)
    )


def _once(computer: SamplerComputer, cell: dict, images: int) -> tuple[float, float]:
    """Seconds for the tokens and for the rest of `images` samples of a cell."""
    from eval.statistics import load_reference
    from experiments.engine.imaging import decode_images
    from experiments.engine.measuring import measure
    from experiments.engine.sampling import sample_tokens
    from maskgit.presets import get_preset

    request = computer.request
    grid = get_preset(request.preset).grid
    began = time.monotonic()
    cell = {**cell, "num_samples": images}
    tokens = sample_tokens(computer.transformer(cell["schedule"]), cell, computer.batch_size)
    sampled = time.monotonic()
    found = computer.extractor().extract(decode_images(computer.tokenizer(), tokens, grid))
    names = [name for name in request.metrics if name != "nll"]
    measure(names, found, load_reference(request.reference, request.features))
    return sampled - began, time.monotonic() - sampled


def seconds_of(tasks: Sequence[Task], computer: SamplerComputer, workers: int) -> float:
    """Estimated seconds for `tasks` on this machine, from about a second of their own work.

    A cheap cell is run once to load and warm everything, then the median cell is run on few images
    for a second. The time of the samples is taken as proportional to images x iterations, the rest
    as proportional to images; a likelihood is one forward per held-out image, and encoding those
    images is taken to cost what decoding and measuring samples does. The start of the processes and
    loading come on top.
    """
    computer.start(0, max(1, workers))
    by_cost = sorted(tasks, key=lambda task: task.cell["steps"])
    cell = by_cost[len(by_cost) // 2].cell
    images = min(64, cell["num_samples"])
    _once(computer, {**cell, "steps": 1}, images)
    sampling = measuring = 0.0
    rounds = 0
    while rounds == 0 or sampling + measuring < MEASURED_SECONDS:
        first, second = _once(computer, cell, images)
        sampling, measuring, rounds = sampling + first, measuring + second, rounds + 1
    per_forward = sampling / (rounds * images * cell["steps"])
    per_image = measuring / (rounds * images)
    total = sum(
        task.cell["num_samples"] * (task.cell["steps"] * per_forward + per_image) for task in tasks
    )
    stages = Stages(computer.run)
    if "nll" in computer.request.metrics:
        kept = {
            task.spec.likelihood: stages.has("likelihood", task.spec.likelihood) for task in tasks
        }
        missing = sum(not there for there in kept.values())
        total += held_out.IMAGES * (missing * per_forward + (missing > 0) * per_image)
    return total / max(1, min(workers, len(tasks)))
