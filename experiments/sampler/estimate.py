"""`--dry-run`: what is left to do, and how long it would take here, from a short measurement."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from experiments.engine.cells import Task
from experiments.engine.store.stages import Stages
from experiments.sampler.compute import SamplerComputer, gpu_count

MEASURED_SECONDS = 1.0
LONGEST = 4.0  # seconds from which larger batches are not tried any more
MOST_IMAGES = 64  # in one round


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


def _once(computer: SamplerComputer, cell: dict, images: int, measured: int) -> tuple[float, float]:
    """Seconds for the tokens of `images` samples of a cell, and for the rest of `measured` ones."""
    from experiments.sampler.measuring import measure

    began = time.monotonic()
    tokens = computer.sample({**cell, "num_samples": images})
    sampled = time.monotonic()
    tokens = np.resize(tokens, (measured, tokens.shape[1]))  # again and again the same
    batches, found = computer.decode(tokens, cell["backend"]), None
    if computer.request.sides[cell["features"]].no_features:
        deque(batches, maxlen=0)
    else:
        found = computer.extractor(cell["features"]).extract_batches(batches)
    names = [name for name in computer.request.metrics if name != "nll"]
    measure(names, cell["features"], found, computer.real(cell["features"]))
    return sampled - began, time.monotonic() - sampled


def _chunk(computer: SamplerComputer, cell: dict) -> int:
    from experiments.sampler.imaging import chunk_size
    from maskgit.presets import get_preset

    size = chunk_size(get_preset(computer.request.preset).image_size ** 2)
    if computer.request.sides[cell["features"]].no_features:
        return size
    return max(size, computer.extractor(cell["features"]).chunk)


def seconds_of(tasks: Sequence[Task], computer: SamplerComputer, workers: int) -> float:
    """Estimated seconds for `tasks` on this machine, from some seconds of their own work.

    One image of a cheap cell is run to load and warm everything, then the median cell on more and
    more images for a second or a few; the last round counts, as small batches are slow. The
    time of the samples is taken as proportional to images x iterations, the rest as proportional to
    images; a likelihood is one forward per held-out image, and encoding those images is taken to
    cost what decoding and measuring samples does. The start of the processes and loading come on
    top.
    """
    computer.start(0, max(1, workers))
    by_cost = sorted(tasks, key=lambda task: task.cell["steps"])
    cell = by_cost[len(by_cost) // 2].cell
    most = min(MOST_IMAGES, cell["num_samples"])
    # Decoder and extractor fill their chunks up, so one image costs as much as a chunk of them.
    chunk = _chunk(computer, cell)
    _once(computer, {**cell, "steps": 1}, 1, 1)
    images, passed = 1, 0.0
    while True:
        measured = min(max(images, chunk), cell["num_samples"])
        sampling, measuring = _once(computer, cell, images, measured)
        passed += sampling + measuring
        if passed >= (MEASURED_SECONDS if images == most else LONGEST):
            break
        images = min(4 * images, most)
    per_forward = sampling / (images * cell["steps"])
    per_image = measuring / measured
    total = sum(
        task.cell["num_samples"] * (task.cell["steps"] * per_forward + per_image) for task in tasks
    )
    stages = Stages(computer.run)
    if "nll" in computer.request.metrics:
        kept = {
            task.spec.likelihood: stages.has("likelihood", task.spec.likelihood)
            for task in tasks
            if task.spec.likelihood
        }
        missing = sum(not there for there in kept.values())
        held_out = len(computer.request.held_out)
        total += held_out * (missing * per_forward + (missing > 0) * per_image)
    # Workers that share a GPU share its time, and what they gain by that was not measured.
    return total / max(1, min(workers, len(tasks), gpu_count(computer.device) or workers))
