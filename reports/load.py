"""A run folder read from disk: which cells were asked for, which are done, and why others are not.

Reads only `RUN/grid.json` and `RUN/cells/KEY/{result,failure}.json`; the samples of a cell are
opened later, by the figure that shows them. Everything comes back in one canonical order, so what
is built from it does not depend on the order in which the cells were written.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskgit.common.errors import UsageError

SCHEMA = 1
KEY_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
ABSOLUTE_PATH = re.compile(r"(?<![\w./])/(?:[^\s:;,'\"()/]+/)+")


@dataclass(frozen=True)
class Entry:
    """One cell of the grid. `status` is done, failed or missing; `reason` is empty when done."""

    key: str
    cell: dict[str, Any]
    status: str
    reason: str
    result: dict[str, Any]
    folder: Path

    def metric(self, name: str) -> float:
        """The metric's value, or NaN where it is absent, null or not finite."""
        value = self.result.get("metrics", {}).get(name, {}).get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return math.nan
        return float(value) if math.isfinite(value) else math.nan

    def metric_id(self, name: str) -> str:
        """The id and version of the metric (`fid.fashion-resnet.v1`), or "" where it is absent."""
        return str(self.result.get("metrics", {}).get(name, {}).get("id", ""))

    def why_missing(self, name: str) -> str:
        """The reason, in one line, why a done cell has no usable value of this metric."""
        reason = self.result.get("missing", {}).get(name)
        if reason:
            return one_line(reason, 400)
        if name in self.result.get("metrics", {}):
            return "not a finite number"
        return "not in the result"


@dataclass(frozen=True)
class Run:
    """A run folder: `grid.json` and the state of each of its cells."""

    folder: Path
    experiment: str
    preset: str
    protocol: dict[str, Any]
    models: dict[str, Any]
    entries: tuple[Entry, ...]

    def with_status(self, status: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.status == status]


def one_line(text: object, limit: int = 200) -> str:
    """`text` on one line, without the folders of absolute paths, cut at `limit` characters."""
    line = " ".join(str(text).split())
    line = ABSOLUTE_PATH.sub("…/", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def canonical_json(value: object) -> str:
    """The form that checksums are taken over: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def checksum(result: dict[str, Any]) -> str:
    """sha256 (hex) over the canonical JSON of a result without its "checksum"."""
    body = {name: value for name, value in result.items() if name != "checksum"}
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def read_grid(run_dir: Path) -> dict[str, Any]:
    """`RUN/grid.json`, checked. Raises UsageError, in one line, for anything else."""
    path = Path(run_dir) / "grid.json"
    if not path.is_file():
        raise UsageError(
            f"RUN {run_dir}: no grid.json in it; expected the --out folder of an experiment"
        )
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not readable as JSON ({one_line(error)})") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error.strerror)})") from None
    if not isinstance(grid, dict) or grid.get("schema") != SCHEMA:
        got = grid.get("schema") if isinstance(grid, dict) else type(grid).__name__
        raise UsageError(f"{path}: schema {got!r}; this report reads schema {SCHEMA}")
    if not isinstance(grid.get("experiment"), str):
        raise UsageError(f"{path}: experiment {grid.get('experiment')!r}; expected a name")
    cells = grid.get("cells")
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise UsageError(f"{path}: cells must be a list of {{key, cell}} with plain folder names")
    for field in ("protocol", "models"):
        if not isinstance(grid.setdefault(field, {}), dict):
            raise UsageError(f"{path}: {field} must be an object, not {grid[field]!r:.40}")
    return grid


def load_run(run_dir: Path) -> Run:
    """Reads a run folder. A cell whose result does not hold is missing, with the reason.

    Raises:
        UsageError: see `read_grid`; or the grid has no cells.
    """
    run_dir = Path(run_dir)
    grid = read_grid(run_dir)
    if not grid["cells"]:
        raise UsageError(f"{run_dir / 'grid.json'}: no cells; expected at least one")
    unique = {item["key"]: item["cell"] for item in grid["cells"]}
    entries = [_entry(run_dir / "cells" / key, key, cell) for key, cell in unique.items()]
    entries.sort(key=lambda entry: (canonical_json(entry.cell), entry.key))
    preset = str(grid.get("preset", ""))
    return Run(
        run_dir, grid["experiment"], preset, grid["protocol"], grid["models"], tuple(entries)
    )


def _is_cell(item: object) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("key"), str)
        and KEY_PATTERN.fullmatch(item["key"]) is not None
        and isinstance(item.get("cell"), dict)
    )


# Done means: the result is there, whole, and about this cell. Anything less is said in a few words.
def _entry(folder: Path, key: str, cell: dict[str, Any]) -> Entry:
    result, reason = _result(folder / "result.json", key, cell)
    if not reason:
        return Entry(key, cell, "done", "", result, folder)
    failure = folder / "failure.json"
    if reason == "no result" and failure.is_file():
        return Entry(key, cell, "failed", _failure_line(failure), {}, folder)
    return Entry(key, cell, "missing", reason, {}, folder)


def _result(path: Path, key: str, cell: dict[str, Any]) -> tuple[dict[str, Any], str]:
    if not path.is_file():
        return {}, "no result"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}, "result.json unreadable"
    if not isinstance(result, dict) or result.get("checksum") != checksum(result):
        return {}, "checksum"
    if result.get("schema") != SCHEMA:
        return {}, f"schema {result.get('schema')!r}, expected {SCHEMA}"
    if result.get("key") != key or result.get("cell") != cell:
        return {}, "result of another cell"
    metrics = result.get("metrics")
    parts = [metrics, result.get("missing", {}), result.get("protocol", {})]
    if isinstance(metrics, dict):
        parts += metrics.values()
    if not all(isinstance(part, dict) for part in parts):
        return {}, "result.json has another form"
    return result, ""


def _failure_line(path: Path) -> str:
    try:
        failure = json.loads(path.read_text(encoding="utf-8"))
        return one_line(failure["error"]) or "no error line"
    except (OSError, ValueError, KeyError, TypeError):
        return "failure.json unreadable"
