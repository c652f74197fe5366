"""What the pages of all studies share: picking cells, means over seeds, protocol and provenance."""

from __future__ import annotations

import math
import statistics
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.load import Entry, Run, one_line
from reports.page import Section, Text
from reports.tables import DASH, Table, mean_sd

MOST = 100  # characters of a setting's value


@dataclass(frozen=True)
class Mean:
    """Mean and sd over n cells; NaN where there are none (sd: fewer than two)."""

    mean: float
    sd: float
    n: int

    def words(self, digits: int) -> str:
        """`1.20 ± 0.05`, `1.20`, or a dash."""
        return mean_sd(self.mean, self.sd, digits)


def pick(run: Run, **wanted: Any) -> list[Entry]:
    """The cells that are done and have these settings."""
    return [
        entry
        for entry in run.entries
        if entry.status == "done" and all(entry.cell.get(k) == v for k, v in wanted.items())
    ]


def mean(entries: Sequence[Entry], metric: str) -> Mean:
    """Over the cells that have the metric."""
    values = [v for entry in entries if math.isfinite(v := entry.metric(metric))]
    if not values:
        return Mean(math.nan, math.nan, 0)
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Mean(statistics.fmean(values), sd, len(values))


def arrays(entry: Entry) -> dict[str, Any]:
    """What a cell's samples.npz holds; empty where it cannot be read."""
    import numpy as np

    try:
        with np.load(entry.folder / "samples.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}


def values_of(run: Run, name: str) -> list[Any]:
    """The different values of a setting over all cells asked for, in order."""
    return sorted({entry.cell[name] for entry in run.entries if name in entry.cell})


def status_words(run: Run) -> str:
    """`6 of 6 cells, seeds 0, 1 and 2 (n=3).`"""
    done = len(run.with_status("done"))
    parts = [f"{done} of {len(run.entries)} cells"]
    failed = [entry for entry in run.entries if entry.status != "done"]
    parts += [f"{len(failed)} not there"] if failed else []
    seeds = values_of(run, "seed")
    if seeds:
        parts.append(f"seeds {', '.join(map(str, seeds))} (n={len(seeds)})")
    return ", ".join(parts) + "."


def protocol_section(run: Run, command: str) -> Section:
    """What every cell shares, the networks, the libraries, and which cells are not there.

    command: the command line that asks for these cells.
    """
    told = ("class_names", "metrics", "missing", "code")
    rows = [
        [name, one_line(value, MOST)]
        for name, value in sorted(run.protocol.items())
        if name not in told
    ]
    blocks: list[Any] = [Text(f"The command: `{command}`")]
    missing = run.protocol.get("missing", {})
    if missing:
        items = [f"{what}: {one_line(why, 300)}" for what, why in missing.items()]
        blocks.append(Text("Missing here:", items))
    blocks.append(_plain("protocol", "What every cell shares.", ["Setting", "Value"], rows))
    cards = [
        [name, *(one_line(card.get(field, DASH), MOST) for field in ("command", "budget"))]
        for name, card in sorted(run.models.items())
        if isinstance(card, dict)
    ]
    if cards:
        head = ["Name", "Command", "Budget"]
        blocks.append(_plain("", "Networks, from their cards.", head, cards))
    blocks.append(_plain("provenance", "Ids, hashes, versions.", ["What", "Value"], _facts(run)))
    cells = [
        [entry.key[:12], _cell_words(entry), entry.status, entry.reason or DASH]
        for entry in run.entries
    ]
    head = ["Key", "Cell", "State", "Reason"]
    blocks.append(_plain("cells", "All cells; the folders have the full keys.", head, cells))
    return Section("Protocol and provenance", blocks)


def _plain(name: str, caption: str, head: list[str], rows: list[list[str]]) -> Table:
    return Table(name, caption, head, rows, "l" * len(head), latex=False)


def _facts(run: Run) -> list[list[str]]:
    """Metric ids, fingerprints, library versions: each once."""
    metrics, code = run.protocol.get("metrics", {}), run.protocol.get("code", {})
    rows = [[f"metric {name}", str(value)] for name, value in sorted(metrics.items())]
    rows += [[f"code {name}", str(value)[:16]] for name, value in sorted(code.items())]
    versions: dict[str, set[str]] = {}
    for entry in run.with_status("done"):
        for name, value in entry.result.get("protocol", {}).get("versions", {}).items():
            versions.setdefault(name, set()).add(str(value))
    return rows + [[name, ", ".join(sorted(found))] for name, found in sorted(versions.items())]


def _cell_words(entry: Entry) -> str:
    skip = ("experiment", "preset")
    words = " ".join(f"{k}={v}" for k, v in sorted(entry.cell.items()) if k not in skip)
    return one_line(words, MOST)
