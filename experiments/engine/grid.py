"""Grids: the grammar of the list flags, the product of their values, and grid.json."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.engine.cells import Task
from experiments.engine.keys import SCHEMA
from maskgit.common.cli import suggestion
from maskgit.common.errors import UsageError
from maskgit.common.files import atomic_write, json_bytes

MAX_VALUES = 100_000  # of one range: a slip of the hand should not fill the memory
# Up to 18 digits: what is longer is a slip of the hand too.
_ITEM = re.compile(r"([0-9]{1,18})(?:\.\.([0-9]{1,18})(?::([0-9]{1,18}))?)?", re.ASCII)


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


def grid_json(
    experiment: str,
    preset: str,
    tasks: Sequence[Task],
    protocol: dict[str, Any],
    models: dict[str, Any],
    *,
    metrics: dict[str, dict[str, Any]] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """What grid.json says: the request and nothing of the machine, so that it is deterministic.

    metrics: name -> label, digits, direction and unit, as reports show it. command: to paste.
    """
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "preset": preset,
        "cells": [{"key": task.key, "cell": task.cell} for task in tasks],
        "protocol": protocol,
        "models": models,
        "metrics": metrics or {},
        "command": command,
    }


def write_grid(run: Path, grid: dict[str, Any]) -> None:
    """Write RUN/grid.json; the same request gives the same bytes."""
    atomic_write(run / "grid.json", json_bytes(grid))
