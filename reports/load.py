"""A run folder read from disk: which cells were asked for, which are done, and why others are not.

Reads only `RUN/grid.json` and `RUN/cells/KEY/{result,failure}.json`; the samples of a cell are
opened later, by the figure that shows them. Everything comes back in one canonical order, so what
is built from it does not depend on the order in which the cells were written.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskgit.common.errors import UsageError
from maskgit.common.files import read_described, read_json
from reports.means import Mean, sentence
from reports.tables import MEAN_SD, Column

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
KEY_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
ABSOLUTE_PATH = re.compile(r"(?<![\w./])/(?:[^\s:;,'\"()/]+/)+")
# What the pages read of a protocol, where it is there; any other value of it is only shown.
FORMS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("code", "gamma", "missing"), dict),
    **{"class_names": list, "metrics": (dict, list)},
    **dict.fromkeys(("num_images", "num_samples", "num_tokens"), int),
}
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


@dataclass(frozen=True)
class Entry:
    """One cell of the grid. `status` is done, failed, missing or set aside; `reason` is empty when
    it is done."""

    key: str
    cell: dict[str, Any]
    status: str
    reason: str
    result: dict[str, Any]
    folder: Path

    @property
    def protocol(self) -> dict[str, Any]:
        """What the result says about how it was measured."""
        return self.result.get("protocol", {})

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
        """Why the cell has no usable value of this metric, in one line."""
        if self.status != "done":
            return self.reason
        reason = self.result.get("missing", {}).get(name)
        if reason:
            return one_line(reason, 400)
        if name in self.result.get("metrics", {}):
            return "not a finite number"
        return "not in the result"

    def arrays(self, *needed: str) -> dict[str, Any]:
        """What the cell's samples.npz holds; empty where it is not the file that the result names,
        or lacks what is needed.

        needed: names of arrays.
        """
        description = self.result.get("files", {}).get("samples.npz")
        try:
            content = read_described(self.folder / "samples.npz", description)
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                found = {name: stored[name] for name in stored.files}
        except Exception:  # numpy raises whatever a forged file leads it to
            return {}
        return found if set(needed) <= set(found) else {}


@dataclass(frozen=True)
class Run:
    """A run folder: `grid.json` and the state of each of its cells."""

    folder: Path
    experiment: str
    preset: str
    protocol: dict[str, Any]
    models: dict[str, Any]
    entries: tuple[Entry, ...]
    metrics: dict[str, dict[str, Any]]  # name -> label, digits, direction, unit
    command: str = ""  # asks for the same cells

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row for each finite value of a cell that is done: its settings, `metric`, `value`.

        A metric that is measured at several rates (`fid@0.5`) is one metric with the rate in `at`.
        """
        import pandas as pd

        rows = []
        for entry in self.with_status("done"):
            for name in entry.result["metrics"]:
                metric, _, at = name.partition("@")
                value = entry.metric(name)
                place = {"metric": metric, "at": float(at) if at else math.nan, "value": value}
                if math.isfinite(value):
                    rows.append({**entry.cell, **place})
        names = {name: None for entry in self.entries for name in entry.cell}
        return pd.DataFrame(rows, columns=[*names, "metric", "at", "value"])

    def select(self, metric: str, **settings: Any) -> pd.DataFrame:
        """The rows of `frame` of one metric and of the cells that have these settings."""
        frame = self.frame[self.frame["metric"] == metric]
        for name, value in settings.items():
            frame = frame[frame[name] == value] if name in frame else frame[:0]
        return frame

    def mean(self, metric: str, **settings: Any) -> Mean:
        """Over the cells that have these settings and the metric, as a rule one a seed."""
        return Mean.of(self.select(metric, **settings)["value"])

    def means(self, metric: str, by: str, **settings: Any) -> dict[Any, Mean]:
        """The mean for each value of the setting `by`, in order; only where there is a value."""
        frame = self.select(metric, **settings)
        if by not in frame:
            return {}
        return {value: Mean.of(group) for value, group in frame.groupby(by)["value"]}

    def pick(self, **settings: Any) -> list[Entry]:
        """The cells that are done and have these settings."""
        return [entry for entry in self.asked(**settings) if entry.status == "done"]

    def asked(self, **settings: Any) -> list[Entry]:
        """The cells that were asked for and have these settings, done or not."""
        return [e for e in self.entries if all(e.cell.get(k) == v for k, v in settings.items())]

    def with_status(self, status: str) -> list[Entry]:
        """The cells in this state."""
        return [entry for entry in self.entries if entry.status == status]

    def why(self, metric: str, **settings: Any) -> str:
        """Why a cell with these settings has no value of a metric; empty if all have one."""
        for entry in self.asked(**settings):
            if not math.isfinite(entry.metric(metric)):
                return entry.why_missing(metric)
        return ""

    def why_missing(self, what: str) -> str:
        """Why the run as a whole does without something (`CAS`); empty if it does not."""
        return one_line(self.protocol.get("missing", {}).get(what, ""), 400)

    def values_of(self, name: str, **settings: Any) -> list[Any]:
        """The different values of a setting over all cells asked for, in order."""
        return sorted({e.cell[name] for e in self.asked(**settings) if name in e.cell})

    def told(self, name: str) -> Any:
        """What the protocol says about something, or a question mark."""
        return self.protocol.get(name, "?")

    def count(self, name: str = "num_samples") -> int:
        """A number of the protocol, such as how many samples or images a cell has; 0 without."""
        return int(self.protocol.get(name, 0))

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where the run has no names."""
        names = self.protocol.get("class_names", [])
        return str(names[label]) if label < len(names) else f"class {label}"

    def asked_metrics(self, first: Sequence[str], besides: Sequence[str] = ()) -> tuple[str, ...]:
        """The metrics that were asked for: those of `first` in this order, then others by name.

        besides: those that have their own place on the page. A run that does not say what was asked
        for was asked for `first`.
        """
        asked = self.protocol.get("metrics") or first
        names = dict.fromkeys([*first, *sorted(asked)])
        return tuple(name for name in names if name in asked and name not in besides)

    def label(self, metric: str) -> str:
        """The metric's label, as it stands in a sentence and beside an axis."""
        return str(self.metrics.get(metric, {}).get("label", metric))

    def column(
        self, metric: str, note: str = "", parts: Sequence[str] = MEAN_SD, **settings: Any
    ) -> Column:
        """The metric's column of a table: its label with an arrow, and its digits.

        note: stands in brackets behind the label.
        """
        about = self.metrics.get(metric, {})
        head = sentence(self.label(metric)) + ARROWS[about.get("direction", "")]
        head += f" ({note})" if note else ""
        digits = int(about.get("digits", 2))
        return Column(metric, head, **{"digits": digits, "parts": parts, **settings})


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
            f"RUN {run_dir}: no run, no grid.json in it; expected the --out folder of an experiment"
        )
    grid = read_json(path)
    if grid.get("schema") != SCHEMA:
        raise UsageError(
            f"{path}: of schema {grid.get('schema')!r}; this version reads schema {SCHEMA}"
        )
    if not isinstance(grid.get("experiment"), str):
        raise UsageError(f"{path}: experiment {grid.get('experiment')!r}; expected a name")
    cells = grid.get("cells")
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise UsageError(f"{path}: cells must be a list of {{key, cell}} with plain folder names")
    if "metrics" not in grid:
        raise UsageError(
            f"{path}: an older version wrote it, without the labels of the metrics; "
            "run the same command again"
        )
    for field in ("protocol", "models", "metrics"):
        if not isinstance(grid.setdefault(field, {}), dict):
            raise UsageError(f"{path}: {field} must be an object, not {grid[field]!r:.40}")
    for field, form in FORMS.items():
        if field in grid["protocol"] and not isinstance(grid["protocol"][field], form):
            raise UsageError(f"{path}: protocol: {field} is {grid['protocol'][field]!r:.40}")
    if not all(map(_is_metric, grid["metrics"].values())):
        raise UsageError(f"{path}: metrics must be {{name: {{label, digits, direction}}}}")
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
    return Run(
        folder=run_dir,
        experiment=grid["experiment"],
        preset=str(grid.get("preset", "")),
        protocol=grid["protocol"],
        models=grid["models"],
        entries=tuple(entries),
        metrics=grid["metrics"],
        command=str(grid.get("command", "")),
    )


def _is_cell(item: object) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("key"), str)
        and KEY_PATTERN.fullmatch(item["key"]) is not None
        and isinstance(item.get("cell"), dict)
    )


def _is_metric(about: object) -> bool:
    return (
        isinstance(about, dict)
        and isinstance(about.get("label"), str)
        and about.get("digits") in range(10)
        and about.get("direction") in ARROWS
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
        result = read_json(path)
    except UsageError:
        return {}, "result.json unreadable"
    if result.get("checksum") != checksum(result):
        return {}, "checksum"
    if result.get("schema") != SCHEMA:
        return {}, f"schema {result.get('schema')!r}, expected {SCHEMA}"
    if result.get("key") != key or result.get("cell") != cell:
        return {}, "result of another cell"
    metrics = result.get("metrics")
    parts = [metrics, *(result.get(name, {}) for name in ("missing", "protocol", "files"))]
    if isinstance(metrics, dict):
        parts += metrics.values()
    if not all(isinstance(part, dict) for part in parts):
        return {}, "result.json has another form"
    return result, ""


def _failure_line(path: Path) -> str:
    try:
        return one_line(read_json(path)["error"]) or "no error line"
    except (UsageError, KeyError):
        return "failure.json unreadable"
