"""The cells of `ablate_schedule` as one pandas frame, and the curves and evidence drawn from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskgit.common.errors import UsageError
from reports.load import Entry, Run, canonical_json, one_line
from reports.verdicts.schedules import Evidence, Point

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("fid", "is", "precision", "recall", "kid", "nll")
# What two cells must share for their numbers to stand in one column.
_SHARED = (
    *("features", "extractor", "resize", "rounding"),
    *("reference", "reference_n", "reference_sha256", "real_n"),
)
_VARIED = ("schedule", "steps", "seed")


@dataclass(frozen=True)
class ScheduleData:
    """Everything the page needs, in canonical order.

    `frame` has one row a cell: key, schedule, T, seed, status ("done", "failed", "missing" or
    "set aside"), reason, and a float column a metric (NaN where there is no value). `entries` is
    by key. `metric_ids` names what a column holds. `steps` and `seeds` are those asked for.
    """

    run: Run
    frame: pd.DataFrame
    entries: Mapping[str, Entry]
    schedules: tuple[str, ...]
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    metric_ids: Mapping[str, str]
    absent: Mapping[str, Mapping[str, int]]  # metric -> reason -> done cells

    def curves(self, metric: str) -> dict[str, dict[int, Point]]:
        """Mean, sd and number of seeds by schedule and T; only where there is a value."""
        done = self.frame[self.frame["status"] == "done"].dropna(subset=[metric])
        grouped = done.groupby(["schedule", "T"])[metric].agg(["mean", "std", "count"])
        curves: dict[str, dict[int, Point]] = {}
        for schedule in self.schedules:
            if schedule in grouped.index.get_level_values("schedule"):
                rows = grouped.loc[schedule].sort_index()
                curves[schedule] = {
                    int(T): Point(float(row["mean"]), float(row["std"]), int(row["count"]))
                    for T, row in rows.iterrows()
                }
        return curves

    def why_absent(self, metric: str) -> str:
        """Why finished cells have no value of a metric, in a few words; empty if they all do."""
        return "; ".join(dict.fromkeys(brief(reason) for reason in self.absent[metric]))

    def missing_words(self) -> list[str]:
        """The reasons why finished cells lack metrics, in full: `fid, kid: 4 x reason`."""
        found: dict[tuple[str, int], list[str]] = {}
        for metric, reasons in self.absent.items():
            for reason, count in reasons.items():
                found.setdefault((reason, count), []).append(metric)
        return [
            f"{', '.join(metrics)}: {count} x {reason}"
            for (reason, count), metrics in found.items()
        ]

    def count(self, status: str) -> int:
        return int((self.frame["status"] == status).sum())


def brief(reason: str) -> str:
    """The head of a reason: what is missing, without where it was looked for and how to get it."""
    return re.split(r"; | \(|: expected ", reason, maxsplit=1)[0]


def collect(run: Run, order: Sequence[str]) -> ScheduleData:
    """The frame of a run. `order` is the paper's order of schedules; others follow by name.

    Raises:
        UsageError: a cell without schedule, T or seed, or the same one twice.
    """
    import pandas as pd

    aside, metric_ids = _set_aside(run)
    asked = run.protocol.get("metrics", METRICS)
    rows, absent = [], {metric: Counter[str]() for metric in METRICS}
    for entry in run.entries:
        status, reason = entry.status, entry.reason
        if entry.key in aside:
            status, reason = "set aside", aside[entry.key]
        row: dict[str, Any] = dict(
            zip(("schedule", "T", "seed"), _identity(run, entry), strict=True)
        )
        row |= {"key": entry.key, "status": status, "reason": reason}
        for metric in METRICS:
            row[metric] = entry.metric(metric) if status == "done" else float("nan")
            if status != "done" or metric not in asked:
                continue
            if metric_ids.get(metric) != entry.metric_id(metric) and row[metric] == row[metric]:
                row[metric] = float("nan")
                absent[metric][f"measured as {entry.metric_id(metric)}"] += 1
            elif row[metric] != row[metric]:
                absent[metric][entry.why_missing(metric)] += 1
        rows.append(row)
    names = ["schedule", "T", "seed", "key", "status", "reason", *METRICS]
    frame = pd.DataFrame(rows, columns=names)
    frame[list(METRICS)] = frame[list(METRICS)].astype(float)
    place = {schedule: i for i, schedule in enumerate(order)}
    schedules = sorted(set(frame["schedule"]), key=lambda s: (place.get(s, len(place)), s))
    rank = frame["schedule"].map({schedule: i for i, schedule in enumerate(schedules)})
    frame = frame.assign(_rank=rank).sort_values(["_rank", "T", "seed"], ignore_index=True)
    twice = frame[frame.duplicated(["schedule", "T", "seed"])]
    if len(twice):
        first = twice.iloc[0]
        raise UsageError(
            f"{run.folder / 'grid.json'}: schedule={first['schedule']} T={first['T']} "
            f"seed={first['seed']} twice; expected each cell once"
        )
    return ScheduleData(
        run=run,
        frame=frame.drop(columns="_rank"),
        entries={entry.key: entry for entry in run.entries},
        schedules=tuple(schedules),
        steps=tuple(sorted(set(map(int, frame["T"])))),
        seeds=tuple(sorted(set(map(int, frame["seed"])))),
        metric_ids=metric_ids,
        absent={metric: dict(sorted(reasons.items())) for metric, reasons in absent.items()},
    )


def evidence(data: ScheduleData) -> Evidence:
    """The FID curves and what limits them, for the verdicts."""
    return Evidence(
        data.curves("fid"), _unfinished(data), tuple(_obstacles(data)), data.why_absent("fid")
    )


def weights_of(entry: Entry) -> dict[str, str]:
    """The sha256 of each weights file that a done cell used, by role."""
    weights = entry.result.get("protocol", {}).get("weights", {})
    return {str(role): str(value) for role, value in weights.items()}


def _identity(run: Run, entry: Entry) -> tuple[str, int, int]:
    cell = entry.cell
    schedule, steps, seed = (cell.get(name) for name in _VARIED)
    if isinstance(schedule, str) and type(steps) is int and type(seed) is int and steps > 0:
        return schedule, steps, seed
    raise UsageError(
        f"{run.folder / 'grid.json'}: cell {entry.key} has schedule={schedule!r} steps={steps!r} "
        f"seed={seed!r}; expected a name, a whole number from 1 and a whole number"
    )


# Different protocols never share a column: the largest group stays, the rest is set aside and said.
def _set_aside(run: Run) -> tuple[dict[str, str], dict[str, str]]:
    done = run.with_status("done")
    aside: dict[str, str] = {}
    protocols = {entry.key: _protocol(entry) for entry in done}
    kept = _most_common(protocols.values())
    aside |= {key: "other protocol" for key, value in protocols.items() if value != kept}
    for schedule in {str(entry.cell.get("schedule")) for entry in done}:
        models = {
            entry.key: weights_of(entry).get("transformer", "")
            for entry in done
            if str(entry.cell.get("schedule")) == schedule and entry.key not in aside
        }
        kept = _most_common(models.values())
        aside |= {key: "other transformer weights" for key, v in models.items() if v != kept}
    ids = {
        metric: _most_common(
            entry.metric_id(metric)
            for entry in done
            if entry.key not in aside and entry.metric_id(metric)
        )
        for metric in METRICS
    }
    return aside, {metric: value for metric, value in ids.items() if value}


def _protocol(entry: Entry) -> str:
    protocol = entry.result.get("protocol", {})
    shared = {name: protocol.get(name) for name in _SHARED}
    shared["cell"] = {name: value for name, value in entry.cell.items() if name not in _VARIED}
    shared["weights"] = {k: v for k, v in weights_of(entry).items() if k != "transformer"}
    return canonical_json(shared)


def _most_common(values: Any) -> str:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value), default="")


def _unfinished(data: ScheduleData) -> int:
    done = data.frame["status"] == "done"
    return int((~(done & data.frame["fid"].notna())).sum())


# Reasons why the schedules cannot be ranked against each other.
def _obstacles(data: ScheduleData) -> list[str]:
    found = []
    used: dict[str, set[str]] = {}
    for _, row in data.frame[data.frame["status"] == "done"].iterrows():
        sha = weights_of(data.entries[row["key"]]).get("transformer")
        if sha:
            used.setdefault(sha, set()).add(row["schedule"])
    if any(len(schedules) > 1 for schedules in used.values()):
        found.append("one transformer serves several schedules; the paper trains one for each")
    cards = [data.run.models.get(schedule) for schedule in data.schedules]
    budgets = {canonical_json(card["budget"]) for card in cards if card and card.get("budget")}
    if len(budgets) > 1:
        texts = sorted(one_line(budget, 60) for budget in budgets)
        found.append(f"the transformers had different training budgets ({' / '.join(texts)})")
    return found
