"""Grids: the grammar of the list flags, the product of their values, and grid.json."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from experiments.engine.cells import Cell, Task
from experiments.engine.keys import SCHEMA
from experiments.engine.store.store import atomic_write
from maskgit.common.errors import UsageError

MAX_VALUES = 100_000  # of one range: a slip of the hand should not fill the memory
_ITEM = re.compile(r"([0-9]+)(?:\.\.([0-9]+)(?::([0-9]+))?)?", re.ASCII)


def parse_integers(text: str, flag: str, minimum: int = 0, maximum: int | None = None) -> list[int]:
    """Integers from `4..60`, `4..60:4`, `8,10,12` or a mixture such as `1,4..60:4`.

    Both ends of a range belong to it; after the colon stands the stride. The result is sorted and
    has no value twice.

    Raises:
        UsageError: an item that is none of these, an empty one, a range that goes down, a stride of
            0, a value outside minimum..maximum.
    """
    values: set[int] = set()
    for item in text.split(","):
        item = item.strip()
        match = _ITEM.fullmatch(item)
        if match is None:
            raise UsageError(f"{flag} {text}: {item!r} is not of the form 8, 4..60 or 4..60:4")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        stride = 1 if match[3] is None else int(match[3])
        if last < first:
            raise UsageError(
                f"{flag} {text}: the range {item} goes down; write {last}..{first} instead"
            )
        if stride == 0:
            raise UsageError(f"{flag} {text}: the stride in {item} must be at least 1")
        if first < minimum:
            raise UsageError(f"{flag} {text}: {first} is too small; at least {minimum}")
        if maximum is not None and last > maximum:
            raise UsageError(f"{flag} {text}: {last} is too large; at most {maximum}")
        if (last - first) // stride >= MAX_VALUES:
            raise UsageError(f"{flag} {text}: {item} has too many values; at most {MAX_VALUES}")
        values.update(range(first, last + 1, stride))
    return sorted(values)


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean cosine?)` if a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def parse_names(text: str, flag: str, known: Sequence[str]) -> list[str]:
    """Names from `a,b` or `all`, each once, in the order of `known`.

    Raises:
        UsageError: a name that is not known, or none at all.
    """
    if text.strip() == "all":
        return list(known)
    chosen = [name.strip() for name in text.split(",")]
    for name in chosen:
        if name not in known:
            raise UsageError(
                f"{flag} {text}: unknown {name!r}{suggestion(name, known)}; "
                f"one of {', '.join(known)}, or all"
            )
    return [name for name in known if name in chosen]


def sampler_cells(
    experiment: str,
    preset: str,
    *,
    schedules: Sequence[str],
    steps: Sequence[int],
    seeds: Sequence[int],
    num_samples: int,
    choice_temperature: float = 4.5,
    sampling_temperature: float = 1.0,
    features: str = "",
    backend: str = "torch",
    precision: str = "float32",
    mode: str = "eager",
) -> list[Cell]:
    """Every combination of schedule, number of steps and seed, in this order.

    features: name of the feature network; empty stands for the preset's.
    """
    return [
        Cell(
            experiment,
            preset,
            schedule,
            step,
            seed,
            num_samples,
            choice_temperature,
            sampling_temperature,
            features,
            backend,
            precision=precision,
            mode=mode,
        )
        for schedule, step, seed in product(schedules, steps, seeds)
    ]


def autoregressive_cells(
    experiment: str,
    preset: str,
    *,
    num_tokens: int,
    seeds: Sequence[int],
    num_samples: int,
    sampling_temperature: float = 1.0,
    features: str = "",
) -> list[Cell]:
    """One cell a seed of the autoregressive baseline, which takes a step for each token.

    What it has no use for stands at fixed values, so that one request is one key.
    """
    return [
        Cell(
            experiment,
            preset,
            "raster",
            num_tokens,
            seed,
            num_samples,
            0.0,
            sampling_temperature,
            features,
            sampler="autoregressive",
        )
        for seed in seeds
    ]


def grid_json(
    experiment: str,
    preset: str,
    tasks: Sequence[Task],
    protocol: dict[str, Any],
    models: dict[str, Any],
) -> dict[str, Any]:
    """What grid.json says: the request and nothing of the machine, so that it is deterministic."""
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "preset": preset,
        "cells": [{"key": task.key, "cell": task.cell} for task in tasks],
        "protocol": protocol,
        "models": models,
    }


def write_grid(run: Path, grid: dict[str, Any]) -> None:
    """Write RUN/grid.json; the same request gives the same bytes."""
    text = json.dumps(grid, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    atomic_write(run / "grid.json", text.encode("ascii"))
