"""What stands behind the numbers of every page: protocol, networks, versions, states of cells.

The words are in templates/provenance.md.jinja, which closes every page.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from reports.load import Entry, Run, one_line
from reports.means import DASH
from reports.tables import Column, Table, text_table

MOST_LETTERS = 100  # of a printed value; the CSV has it whole
MOST_LISTED = 40  # cells with one reason
ELSEWHERE = ("class_names", "code", "flags", "gamma", "metrics", "missing", "transformer")


def provenance(run: Run) -> dict[str, Any]:
    """The values that the template prints."""
    states = status_words(run)
    return {
        "protocol_table": _protocol_table(run),
        "card_tables": _card_tables(run),
        "provenance_table": _provenance_table(run),
        "cells_table": _cells_table(run),
        "cells_missing": _not_done(run),
        "lacking": missing_words(run),
        "states": states,
        "cells_and_seeds": f"{states}{_seed_words(run)}",
    }


def status_words(run: Run) -> str:
    """`6 of 8 cells, 1 failed, 1 missing`."""
    counts = Counter(entry.status for entry in run.entries)
    parts = [f"{counts['done']} of {len(run.entries)} cells"]
    states = ("failed", "missing", "set aside")
    return ", ".join(parts + [f"{counts[state]} {state}" for state in states if counts[state]])


def _seed_words(run: Run) -> str:
    seeds = run.values_of("seed")
    return f", seeds {', '.join(map(str, seeds))} (n={len(seeds)})" if seeds else ""


def missing_words(run: Run) -> list[str]:
    """Why cells that are done lack metrics that were asked for: `fid, kid: 4 x reason`."""
    reasons: dict[str, Counter[str]] = {}
    for entry in run.with_status("done"):
        for metric in entry.result.get("missing", {}):
            reasons.setdefault(metric, Counter())[entry.why_missing(metric)] += 1
        for metric in entry.result["metrics"]:
            if entry.metric(metric) != entry.metric(metric):
                reasons.setdefault(metric, Counter())[entry.why_missing(metric)] += 1
    found: dict[tuple[str, int], list[str]] = {}
    for metric in sorted(reasons, key=_by_label(run)):
        for reason, count in sorted(reasons[metric].items()):
            found.setdefault((reason, count), []).append(metric)
    return [f"{', '.join(names)}: {n} x {reason}" for (reason, n), names in found.items()]


def _by_label(run: Run) -> Any:
    order = list(run.metrics)
    return lambda name: (order.index(name) if name in order else len(order), name)


def _protocol_table(run: Run) -> Table:
    rows = [
        [name, _words(value)]
        for name, value in sorted(run.protocol.items())
        if name not in ELSEWHERE
    ]
    seeds = run.values_of("seed")
    rows += [["seeds", ", ".join(map(str, seeds))], ["n", str(len(seeds))]]
    return text_table("protocol", ["Setting", "Value"], rows)


def _card_tables(run: Run) -> list[Table]:
    """What all cards of the networks say alike, and what differs, a row for each network.

    The CSV has every field. A value that differs only by the network's name counts as alike.
    """
    cards = {
        str(name): {field: _words(value) for field, value in _flat(card).items()}
        for name, card in sorted(run.models.items())
        if isinstance(card, dict)
    }
    fields = sorted({field for card in cards.values() for field in card})
    if not fields:
        return []
    alike, differing = [], []
    for field in fields:
        values = {card.get(field, DASH) for card in cards.values()}
        named = {card.get(field, DASH).replace(_own(n), "SCHEDULE") for n, card in cards.items()}
        same = values if len(values) == 1 else named
        if len(same) == 1:
            alike.append([field, one_line(same.pop(), MOST_LETTERS)])
        else:
            differing.append(field)
    columns = [Column("name", "Network", align="l")]
    columns += [
        Column(field, field.replace("_", " ") if field in differing else "", align="l")
        for field in fields
    ]
    whole = Table("", columns, [{"name": name} | card for name, card in cards.items()])
    rows = [
        {field: one_line(_short(value), MOST_LETTERS) for field, value in row.items()}
        for row in whole.rows
    ]
    tables = [Table("models", columns, rows, latex=False, detail=whole)]
    return tables + ([text_table("", ["Card", "Value"], alike)] if alike else [])


# A network's name is its schedule, or ends in it: `transformer-cosine`.
def _own(name: str) -> str:
    return name.rpartition("-")[2]


def _flat(card: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"results": {"nll": 3.6}} is "results nll" in a table."""
    flat: dict[str, Any] = {}
    for field, value in card.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{field} ")
        else:
            flat[f"{prefix}{field}"] = value
    return flat


def _provenance_table(run: Run) -> Table:
    """Ids of metrics, fingerprints of code, weights and versions, with the cells that have them."""
    used: Counter[tuple[str, str, str]] = Counter()
    for entry in run.with_status("done"):
        for metric in entry.result["metrics"]:
            used["metric", metric.partition("@")[0], entry.metric_id(metric)] += 1
        for role, sha in weights_of(entry).items():
            schedule = entry.cell.get("schedule")
            name = f"{role} ({schedule})" if role == "transformer" and schedule else role
            used["weights", name, sha] += 1
        for library, version in entry.protocol.get("versions", {}).items():
            used["version", str(library), str(version)] += 1
    for name, sha in run.protocol.get("code", {}).items():
        used["code", str(name), str(sha)] = len(run.entries)
    names = ("kind", "name", "value", "cells")
    rows = [dict(zip(names, (*key, n), strict=True)) for key, n in sorted(used.items())]
    columns = [Column(name, name.capitalize(), align="l") for name in names[:3]]
    return Table("provenance", [*columns, Column("cells", "Cells")], rows, latex=False)


def _cells_table(run: Run) -> Table:
    """How many cells are in each state; the CSV has a row for each cell instead."""
    counts = Counter(entry.status for entry in run.entries)
    settings = dict.fromkeys(name for entry in run.entries for name in sorted(entry.cell))
    metrics = dict.fromkeys(m for e in run.entries for m in e.result.get("metrics", {}))
    lines = [
        {
            **{name: _words(entry.cell.get(name, "")) for name in settings},
            **{name: entry.metric(name) for name in metrics},
            **{"status": entry.status, "reason": entry.reason, "key": entry.key},
        }
        for entry in run.entries
    ]
    columns = [*settings, "status", "reason", *metrics, "key"]
    return Table(
        "cells",
        [Column("state", "State", align="l"), Column("count", "Cells")],
        [{"state": s, "count": counts[s]} for s in ("done", "failed", "missing", "set aside")],
        latex=False,
        detail=Table("", [Column(name) for name in columns], lines),
    )


def _not_done(run: Run) -> dict[str, list[str]]:
    """State -> lines such as `2 x reason: seed=0 steps=4; seed=1 steps=4`."""
    varied = _varied(run)
    found: dict[str, list[str]] = {}
    for state in ("failed", "missing", "set aside"):
        by_reason: dict[str, list[str]] = {}
        for entry in run.with_status(state):
            words = " ".join(f"{k}={_words(entry.cell[k])}" for k in varied if k in entry.cell)
            by_reason.setdefault(entry.reason, []).append(words)
        for reason, cells in sorted(by_reason.items()):
            more = len(cells) - MOST_LISTED
            listed = "; ".join(cells[:MOST_LISTED])
            listed += f" and {more} more (in the CSV)" if more > 0 else ""
            found.setdefault(state, []).append(f"{len(cells)} x {reason}: {listed}")
    return found


def _varied(run: Run) -> list[str]:
    """The settings that tell one cell from another."""
    names = sorted({name for entry in run.entries for name in entry.cell})
    return [
        name
        for name in names
        if len({_words(entry.cell.get(name, "")) for entry in run.entries}) > 1
    ] or names


def weights_of(entry: Entry) -> dict[str, str]:
    """The sha256 of each weights file that a done cell used, by role."""
    weights = entry.protocol.get("weights", {})
    return {str(role): str(value) for role, value in weights.items()}


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(_words(v))}" for k, v in sorted(value.items())) or DASH
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or DASH
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else one_line(value)


# A sha256 stands in full among the weights; here its head is enough.
def _short(text: str) -> str:
    is_sha = len(text) == 64 and not set(text) - set("0123456789abcdef")
    return f"{text[:12]}…" if is_sha else text
