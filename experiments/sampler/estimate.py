"""`--dry-run`: what is left to do, and how long it would take here, from a short measurement."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from experiments.engine.cells import Sampling, Task
from experiments.engine.options import SamplingOptions
from experiments.engine.run.progress import clock
from experiments.sampler.imaging import chunk_size
from experiments.sampler.resources import Resources
from experiments.sampler.worker import Worker
from maskgit.common.device import gpu_count

MEASURED_SECONDS = 1.0
LONGEST = 4.0  # seconds from which larger batches are not tried any more
MOST_IMAGES = 64  # in one round


def estimate_lines(
    resources: Resources, options: SamplingOptions, tasks: Sequence[Task], workers: int
) -> list[str]:
    """What --dry-run says of tasks that are not done."""
    folder = options.stages_folder(resources.experiment)
    worker = Worker(resources, folder, options.batch_size, options.device)
    count = forwards(tasks, worker)
    seconds = seconds_of(tasks, worker, workers) if tasks else 0.0
    return [
        f"{count} transformer forwards (images x iterations)",
        f"about {clock(seconds)} with {workers} workers, from a short measurement",
    ]


def forwards(tasks: Sequence[Task], worker: Worker) -> int:
    """Forwards of the transformer, one per image and iteration, for samples without kept tokens.

    An upper bound: the first iteration is shared within a class, and images with one token left
    skip ahead.
    """
    cells = [Sampling.of(task.cell) for task in tasks]
    return sum(worker.token_blocks(cell).missing() * cell.steps for cell in cells)


def _once(worker: Worker, cell: Sampling, features: str, measured: int) -> tuple[float, float]:
    """Seconds for the tokens of a cell's samples, and for the rest of `measured` ones."""
    began = time.monotonic()
    tokens = worker.sample(cell)
    sampled = time.monotonic()
    tokens = np.resize(tokens, (measured, tokens.shape[1]))  # again and again the same
    batches, found = worker.decode(tokens, cell.backend), None
    extractor = worker.extractor(features)
    if extractor is None:
        deque(batches, maxlen=0)
    else:
        found = extractor.extract_batches(batches)
    worker.measure(features, found)
    return sampled - began, time.monotonic() - sampled


def _chunk(worker: Worker, features: str) -> int:
    """Images that decoder and extractor take at a time: one costs as much as so many."""
    size, extractor = chunk_size(math.prod(worker.preset.size)), worker.extractor(features)
    return size if extractor is None else max(size, extractor.chunk)


def seconds_of(tasks: Sequence[Task], worker: Worker, workers: int) -> float:
    """Estimated seconds for `tasks` on this machine, from some seconds of their own work.

    One image of a cheap cell is run to load and warm everything, then the median cell on more and
    more images for a second or a few; the last round counts, as small batches are slow. The
    time of the samples is taken as proportional to the forwards that are left, the rest as
    proportional to images; a likelihood is one forward per held-out image, and encoding those
    images is taken to cost what decoding and measuring samples does. The start of the processes and
    loading come on top.
    """
    worker.start(0, max(1, workers))
    by_cost = sorted(tasks, key=lambda task: task.cell["steps"])
    median = by_cost[len(by_cost) // 2].cell
    cell, features = Sampling.of(median), median["features"]
    most = min(MOST_IMAGES, cell.num_samples)
    chunk = _chunk(worker, features)
    _once(worker, replace(cell, steps=1, num_samples=1), features, 1)
    images, passed = 1, 0.0
    while True:
        measured = min(max(images, chunk), cell.num_samples)
        sampling, measuring = _once(worker, replace(cell, num_samples=images), features, measured)
        passed += sampling + measuring
        if passed >= (MEASURED_SECONDS if images == most else LONGEST):
            break
        images = min(4 * images, most)
    per_forward = sampling / (images * cell.steps)
    per_image = measuring / measured
    total = forwards(tasks, worker) * per_forward
    total += sum(task.cell["num_samples"] * per_image for task in tasks)
    total += _likelihood_seconds(tasks, worker, per_forward, per_image)
    # Workers that share a GPU share its time, and what they gain by that was not measured.
    at_once = min(workers, sum(task.blocks for task in tasks))
    return total / max(1, min(at_once, gpu_count(worker.asked_device) or workers))


def _likelihood_seconds(
    tasks: Sequence[Task], worker: Worker, per_forward: float, per_image: float
) -> float:
    if "nll" not in worker.resources.metrics:
        return 0.0
    keys = {worker.resources.stage_keys(Sampling.of(task.cell)).likelihood for task in tasks}
    missing = sum(not worker.stages.has("likelihood", key) for key in keys - {""})
    images = len(worker.resources.held_out)
    return images * (missing * per_forward + (missing > 0) * per_image)
