"""The cells of `ablate_schedule` as curves against T, and as evidence for the verdicts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from maskgit.common.errors import UsageError
from reports.load import Entry, Run, canonical_json, one_line
from reports.means import Mean
from reports.provenance import weights_of
from reports.verdicts.schedules import Evidence

# What two cells must share for their numbers to stand in one column.
SHARED = (
    *("features", "extractor", "resize", "rounding"),
    *("reference", "reference_n", "reference_sha256", "real_n"),
)
METRICS = ("fid", "is", "precision", "recall", "kid", "nll")
VARIED = ("schedule", "steps", "seed")


@dataclass(frozen=True)
class ScheduleData:
    """A run whose cells of another protocol are set aside, and what was asked for in it.

    schedules, steps, seeds: in the order of the tables. metrics: those asked for.
    """

    run: Run
    schedules: tuple[str, ...]
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]

    def curves(self, metric: str) -> dict[str, dict[int, Mean]]:
        """Schedule -> T -> mean over seeds; only where there is a value."""
        curves = {s: self.run.means(metric, "steps", schedule=s) for s in self.schedules}
        return {s: {int(T): m for T, m in curve.items()} for s, curve in curves.items() if curve}

    def why_absent(self, metric: str) -> str:
        """Why finished cells have no value of a metric, in a few words; empty if they all do."""
        if metric not in self.metrics:
            return ""
        done = self.run.with_status("done")
        reasons = sorted(
            e.why_missing(metric) for e in done if e.metric(metric) != e.metric(metric)
        )
        return "; ".join(dict.fromkeys(brief(reason) for reason in reasons))


def brief(reason: str) -> str:
    """The head of a reason: what is missing, without where it was looked for and how to get it."""
    return re.split(r"; | \(|: expected ", reason, maxsplit=1)[0]


def collect(run: Run, order: Sequence[str]) -> ScheduleData:
    """The curves of a run. `order` is the paper's order of schedules; others follow by name.

    Raises:
        UsageError: a cell without schedule, T or seed, or the same one twice.
    """
    seen: set[tuple[object, ...]] = set()
    for entry in run.entries:
        _check(run, entry)
        place = tuple(entry.cell[name] for name in VARIED)
        if place in seen:
            raise UsageError(
                f"{run.folder / 'grid.json'}: schedule={place[0]} T={place[1]} "
                f"seed={place[2]} twice; expected each cell once"
            )
        seen.add(place)
    rank = {schedule: i for i, schedule in enumerate(order)}
    schedules = sorted(run.values_of("schedule"), key=lambda s: (rank.get(s, len(rank)), s))
    entries = sorted(
        _set_aside(run),
        key=lambda e: (schedules.index(e.cell["schedule"]), e.cell["steps"], e.cell["seed"]),
    )
    return ScheduleData(
        run=replace(run, entries=tuple(entries)),
        schedules=tuple(schedules),
        steps=tuple(run.values_of("steps")),
        seeds=tuple(run.values_of("seed")),
        metrics=run.asked_metrics(METRICS),
    )


def evidence(data: ScheduleData) -> Evidence:
    """The FID curves and what limits them, for the verdicts."""
    measured = sum(curve.n for curves in data.curves("fid").values() for curve in curves.values())
    unfinished = len(data.run.entries) - measured
    return Evidence(data.curves("fid"), unfinished, tuple(_obstacles(data)), data.why_absent("fid"))


def _check(run: Run, entry: Entry) -> None:
    schedule, steps, seed = (entry.cell.get(name) for name in VARIED)
    if isinstance(schedule, str) and type(steps) is int and type(seed) is int and steps > 0:
        return
    raise UsageError(
        f"{run.folder / 'grid.json'}: cell {entry.key} has schedule={schedule!r} steps={steps!r} "
        f"seed={seed!r}; expected a name, a whole number from 1 and a whole number"
    )


def _set_aside(run: Run) -> list[Entry]:
    """Different protocols never share a column: cells outside the largest group are set aside.

    The same holds for the transformer's weights within one schedule. A cell whose metric has
    another id than most keeps its other metrics.
    """
    protocols = {entry.key: _protocol(entry) for entry in run.with_status("done")}
    kept = _most_common(protocols.values())
    entries = [
        replace(e, status="set aside", reason="other protocol")
        if protocols.get(e.key, kept) != kept
        else e
        for e in run.entries
    ]
    for schedule in run.values_of("schedule"):
        of_schedule = {
            e.key: weights_of(e).get("transformer", "")
            for e in entries
            if e.status == "done" and e.cell["schedule"] == schedule
        }
        kept = _most_common(of_schedule.values())
        entries = [
            replace(e, status="set aside", reason="other transformer weights")
            if of_schedule.get(e.key, kept) != kept
            else e
            for e in entries
        ]
    done = [entry for entry in entries if entry.status == "done"]
    ids = {
        metric: _most_common(e.metric_id(metric) for e in done if e.metric_id(metric))
        for metric in {name for entry in done for name in entry.result["metrics"]}
    }
    return [_without_other_ids(e, ids) if e.status == "done" else e for e in entries]


def _without_other_ids(entry: Entry, ids: dict[str, str]) -> Entry:
    metrics = entry.result["metrics"]
    others = {name: entry.metric_id(name) for name in metrics if entry.metric_id(name) != ids[name]}
    if not others:
        return entry
    result = dict(entry.result)
    result["metrics"] = {name: value for name, value in metrics.items() if name not in others}
    result["missing"] = result.get("missing", {}) | {
        name: f"measured as {other}" for name, other in others.items()
    }
    return replace(entry, result=result)


def _protocol(entry: Entry) -> str:
    shared = {name: entry.protocol.get(name) for name in SHARED}
    shared["cell"] = {name: value for name, value in entry.cell.items() if name not in VARIED}
    shared["weights"] = {k: v for k, v in weights_of(entry).items() if k != "transformer"}
    return canonical_json(shared)


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value), default="")


# Reasons why the schedules cannot be ranked against each other.
def _obstacles(data: ScheduleData) -> list[str]:
    found = []
    used: dict[str, set[str]] = {}
    for entry in data.run.with_status("done"):
        sha = weights_of(entry).get("transformer")
        if sha:
            used.setdefault(sha, set()).add(entry.cell["schedule"])
    if any(len(schedules) > 1 for schedules in used.values()):
        found.append("one transformer serves several schedules; the paper trains one for each")
    cards = [data.run.models.get(schedule) for schedule in data.schedules]
    budgets = {canonical_json(card["budget"]) for card in cards if card and card.get("budget")}
    if len(budgets) > 1:
        texts = sorted(one_line(budget, 60) for budget in budgets)
        found.append(f"the transformers had different training budgets ({' / '.join(texts)})")
    return found
