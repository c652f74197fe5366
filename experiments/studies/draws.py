"""Samples that several studies share: one run of the sampler serves Tables 1, 4 and 5 and Figure 5.

Sample i of a cell depends on its seed, i and i's class only, so the first n samples of a pool of m
are those of a cell of n. A pool is kept in blocks of the cell's num_samples; the first of them is
the stage that every sweep of the sampler uses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Cell
from experiments.engine.keys import stage_key
from experiments.engine.store.lease import Leases
from experiments.sampler.compute import sample_parts
from experiments.sampler.request import make_task
from experiments.studies.base import SCHEDULE

if TYPE_CHECKING:
    from eval.features.registry import Features
    from experiments.engine.store.stages import Stages
    from experiments.studies.base import Context

POLL = 0.2  # seconds between two looks at what another worker makes
SETTINGS = ("sampler", "steps", "seed", "num_samples", "choice_temperature")


def sampling(
    sampler: str, steps: int, seed: int, num_samples: int, choice_temperature: float
) -> dict[str, Any]:
    """What a study's cell says of its sampling; the baseline has no choice temperature."""
    parallel = sampler == "maskgit"
    return {
        "sampler": sampler,
        "steps": steps,
        "seed": seed,
        "num_samples": num_samples,
        "choice_temperature": float(choice_temperature) if parallel else 0.0,
    }


def sampler_cell(context: Context, cell: dict[str, Any], features: str = "") -> Cell:
    """The sampler's own cell of a study's cell (see `sampling`)."""
    return Cell(
        context.study.experiment,
        context.preset.name,
        SCHEDULE if cell["sampler"] == "maskgit" else "raster",
        features=features or context.study.features[0],
        **{name: cell[name] for name in SETTINGS},
    )


def tokens_of(context: Context, cell: dict[str, Any], count: int = 0) -> np.ndarray:
    """Tokens uint16 (count, N) of the first samples (0: the cell's num_samples).

    Those beyond the cell's num_samples are made and kept a block of as many at a time.
    """
    count, block = count or cell["num_samples"], cell["num_samples"]
    found = sampler_cell(context, cell)
    stages = context.stages
    task = make_task(context.study.request, found)
    with exclusive(stages, "tokens", task.spec.tokens):
        blocks = [context.sampled(found)]
    for start in range(block, count, block):
        size = min(block, count - start)
        key = stage_key("more-tokens", first=task.spec.tokens, start=start, size=size)
        wider = replace(found, num_samples=start + size).as_dict()

        def make(ids: np.ndarray, wider: dict[str, Any] = wider, start: int = start) -> np.ndarray:
            return context.computer.sample(wider, ids=ids + start)

        with exclusive(stages, "tokens", key):
            parts = sample_parts(size, context.preset.num_classes)
            blocks.append(stages.tokens_in_parts(key, parts, make))
    return np.concatenate(blocks)[:count]


def features_of(context: Context, cell: dict[str, Any], features: str) -> Features | None:
    """Features of a cell's samples, from their stage file if they are there; None without a network
    (see `Context.why_missing`)."""
    found = sampler_cell(context, cell, features)
    task = make_task(context.study.request, found)
    tokens = tokens_of(context, cell)
    if context.extractor(features) is None:
        return None
    with exclusive(context.stages, "features", task.spec.features):
        return context.computer.images_and_features(task.cell, task.spec, tokens)[1]


@contextmanager
def exclusive(stages: Stages, kind: str, key: str) -> Iterator[None]:
    """Only one worker at a time makes a stage: the others wait, and find it made."""
    folder = Path(stages.root) / kind
    folder.mkdir(parents=True, exist_ok=True)
    leases = Leases()
    while (lease := leases.acquire(folder / f"{key}.lease")) is None:
        time.sleep(POLL)
    with lease:
        yield
