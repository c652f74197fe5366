"""What stands behind the numbers: protocol, models, weights, versions, the state of cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reports.figures.curves import Figure
from reports.load import Entry, one_line
from reports.page import Section, Text
from reports.pages.schedule_data import METRICS, ScheduleData, weights_of
from reports.tables import DASH, Table

MOST_LISTED = 40
USUAL_FEATURES = {"embedded": "fashion-resnet"}


def protocol_section(data: ScheduleData) -> Section:
    """What every cell shares, the model cards, weights and library versions."""
    told = ("gamma", "class_names", "metrics", "transformer", "flags", "missing")
    rows = [
        [name, _short(value)]
        for name, value in sorted(data.run.protocol.items())
        if name not in told
    ]
    rows += [["seeds", ", ".join(map(str, data.seeds))], ["n", str(len(data.seeds))]]
    done = [data.entries[k] for k in data.frame[data.frame["status"] == "done"]["key"]]
    blocks: list[Text | Table | Figure] = [
        Text(f"The command: `{command(data)}`"),
    ]
    if transformer := data.run.protocol.get("transformer"):
        blocks.append(Text(f"Models: {one_line(transformer)}."))
    blocks.append(
        Table("protocol", "What every cell shares.", ["Setting", "Value"], rows, "ll", latex=False)
    )
    blocks += _model_tables(data)
    blocks.append(_provenance_table(done))
    return Section("Protocol and provenance", blocks)


def command(data: ScheduleData) -> str:
    """The command line that asks for these cells: what the report shows can be made again."""
    script, cells = data.run.experiment, [entry.cell for entry in data.entries.values()]
    words = [f"python experiments/{script}.py --T {_compact(data.steps)}"]
    words.append(f"--schedules {','.join(data.schedules)}")
    words.append(f"--seeds {','.join(map(str, data.seeds))}")
    for flag, name in (("--num-samples", "num_samples"), ("--preset", "preset")):
        values = sorted({str(cell[name]) for cell in cells if name in cell})
        words += [f"{flag} {value}" for value in values]
    asked = data.run.protocol.get("metrics", METRICS)
    if not set(METRICS) <= set(asked):
        words.append(f"--metrics {','.join(metric for metric in METRICS if metric in asked)}")
    temperatures = {cell.get("choice_temperature", 4.5) for cell in cells} - {4.5}
    words += [f"--choice-temperature {value:g}" for value in sorted(temperatures)]
    # The embedded benchmark's command is short: what its preset has anyway is not repeated.
    usual = {"features": USUAL_FEATURES.get(data.run.preset, "")}
    usual |= {"backend": "torch", "precision": "float32", "mode": "eager"}
    for name, value in usual.items():
        others = {str(cell[name]) for cell in cells if name in cell} - {value}
        words += [f"--{name} {other}" for other in sorted(others)]
    flags = data.run.protocol.get("flags", [])
    words += [f"{one_line(flag)} FOLDER" for flag in flags if isinstance(flag, str)]
    return " ".join(words)


# 4, 5, 6, 8 is "4..6,8": the grammar of --T.
def _compact(steps: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    parts = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    return ",".join(parts)


# What all cards say alike stands once; what differs has a row a schedule. The CSV has every field.
def _model_tables(data: ScheduleData) -> list[Table]:
    cards = {
        schedule: {field: _short(value) for field, value in _flat(card).items()}
        for schedule in data.schedules
        if isinstance(card := data.run.models.get(schedule), dict)
    }
    fields = sorted({field for card in cards.values() for field in card})
    if not fields:
        return []
    alike, differing = [], []
    for field in fields:
        values = {card.get(field, DASH) for card in cards.values()}
        named = {card.get(field, DASH).replace(s, "SCHEDULE") for s, card in cards.items()}
        same = values if len(values) == 1 else named
        if len(same) == 1 and len(cards) > 1:
            alike.append([field, same.pop()])
        else:
            differing.append(field)
    exact = [[s, *(card.get(field, "") for field in fields)] for s, card in cards.items()]
    rows = [
        [s, *(_shorter(card.get(field, DASH)) for field in differing)] for s, card in cards.items()
    ]
    head = ["Schedule", *(field.replace("_", " ") for field in differing)]
    caption = "**Models.** From the cards of the transformers, one a schedule: what differs."
    data_columns = (["schedule", *fields], exact)
    tables = [Table("models", caption, head, rows, data=data_columns, latex=False)]
    if alike:
        caption = "What the cards of the transformers have in common."
        tables.append(Table("", caption, ["Card", "Value"], alike, "ll"))
    return tables


# {"results": {"nll": 3.6}} is "results nll" in a table.
def _flat(card: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field, value in card.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{field} ")
        else:
            flat[prefix + field] = value
    return flat


# A sha256 stands in full among the weights; here its head is enough.
def _shorter(text: str) -> str:
    is_sha = len(text) == 64 and not set(text) - set("0123456789abcdef")
    return f"{text[:12]}…" if is_sha else text


def _provenance_table(done: Sequence[Entry]) -> Table:
    used: Counter[tuple[str, str, str]] = Counter()
    for entry in done:
        for role, sha in weights_of(entry).items():
            label = f"{role} ({entry.cell.get('schedule')})" if role == "transformer" else role
            used["weights", label, sha] += 1
        versions = entry.result.get("protocol", {}).get("versions", {})
        for library, version in versions.items():
            used["version", str(library), str(version)] += 1
    rows = [[kind, name, f"`{value}`", str(n)] for (kind, name, value), n in sorted(used.items())]
    exact = [[*key, n] for key, n in sorted(used.items())]
    caption = "**Provenance.** Weights (sha256) and library versions, as noted in the results."
    return Table(
        "provenance",
        caption,
        ["Kind", "Name", "Value", "Cells"],
        rows,
        "lllr",
        data=(["kind", "name", "value", "cells"], exact),
        latex=False,
    )


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shorter(_short(v))}" for k, v in sorted(value.items())) or DASH
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or DASH
    if isinstance(value, float):
        return f"{value:.6g}"
    return one_line(value) if not isinstance(value, bool) else str(value).lower()


def cells_section(data: ScheduleData) -> Section:
    """How many cells are done, and each that is not, with its reason."""
    frame = data.frame
    names = ["schedule", "T", "seed", "status", "reason", *METRICS, "key"]
    everything = (names, frame[names].astype(object).values.tolist())
    counts = [[s, str(data.count(s))] for s in ("done", "failed", "missing", "set aside")]
    caption = f"**Cells.** {len(frame)} were asked for; the CSV has one row a cell."
    blocks: list[Text | Table | Figure] = [
        Table("cells", caption, ["State", "Cells"], counts, data=everything, latex=False)
    ]
    for status in ("failed", "missing", "set aside"):
        rows = frame[frame["status"] == status]
        if not len(rows):
            continue
        grouped = Counter(rows["reason"])
        lines = []
        for reason, count in sorted(grouped.items()):
            same = rows[rows["reason"] == reason]
            which = [f"{r.schedule} T={r.T} seed={r.seed}" for r in same.itertuples()]
            more = f" and {count - MOST_LISTED} more (in the CSV)" if count > MOST_LISTED else ""
            lines.append(f"{count} x {reason}: {'; '.join(which[:MOST_LISTED])}{more}")
        blocks.append(Text(f"{status.capitalize()} cells:", lines))
    gaps = data.missing_words()
    if gaps:
        blocks.append(Text("Metrics that finished cells do not have:", gaps))
    return Section("Cells", blocks)
