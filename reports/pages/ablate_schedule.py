"""The report of `experiments/ablate_schedule.py`: Table 3 and Figure 8 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.figures.pictures import Strip, Tile, first_of_each_class, picture_grid
from reports.figures.style import Figure
from reports.load import Run
from reports.means import DASH, Mean, number, ranges
from reports.page import Page
from reports.pages.schedule_data import ScheduleData, collect, evidence
from reports.pages.schedule_figures import figure8, gamma_of, metric_figure
from reports.paper import paper_values
from reports.tables import Column, Table
from reports.verdicts.schedule_finding import finding
from reports.verdicts.schedules import best_of, judge, sweet_spot, within_noise

PANELS = {
    "inception_score": ("is",),
    "precision_recall": ("precision", "recall"),
    "density_coverage": ("density", "coverage"),
}
PAPER = {"T": "Paper: T", "fid": "FID", "is": "IS", "nll": "NLL"}  # columns of the paper's Table 3
MIDDLE = 8  # the T whose samples are shown where no FID says which is best
ENDS = (4, 60)  # the T whose samples are shown, if they ran


def make_page(run: Run) -> Page:
    """The page of one run of `ablate_schedule`; see `reports.build.build`."""
    paper = paper_values()
    data = collect(run, paper["figure8"]["order"])
    found = evidence(data)
    shapes = paper["shapes"]
    rule = {"one_seed_relative": shapes["one_seed_relative"], **shapes["sweet_spot"]}
    bests = {s: best.T for s, curve in found.curves.items() if (best := best_of(curve))}
    figure, logarithmic = figure8(data, rule)
    gamma = gamma_of(data)
    panels = [metric_figure(data, name, metrics) for name, metrics in PANELS.items()]
    absent = {m: data.why_absent(m) for ms in PANELS.values() for m in ms if not data.curves(m)}
    done = len(data.run.with_status("done"))
    return Page(
        experiment="ablate_schedule",
        run=data.run,
        verdicts=judge(found, paper),
        facts={"best_T": bests, "cells": len(run.entries), "done": done},
        values={
            "data": data,
            "steps": ranges(data.steps, range(1, data.steps[-1] + 1)),
            "sizes": run.values_of("num_samples"),
            "found": finding(found, paper),
            "table3": _table3(data, rule),
            "has_fid": bool(bests),
            "why_fid": data.why_absent("fid"),
            "figure8": figure,
            "logarithmic": logarithmic,
            "gamma": gamma,
            "without_gamma": [s for s in data.schedules if s not in gamma],
            "sweet_spots": _sweet_spots(data, rule),
            "panels": [panel for panel in panels if panel],
            "absent": {run.label(m): why for m, why in absent.items() if why},
            "curves": _curves_table(data),
            "samples": _samples(data, bests),
            "bests": bests,
            "middle": MIDDLE,
        },
    )


def _table3(data: ScheduleData, rule: Mapping[str, Any]) -> Table:
    curves = {metric: data.curves(metric) for metric in data.metrics}
    paper = {row["schedule"]: row for row in paper_values()["table3"]["rows"]}
    columns = [
        Column("schedule", "Schedule", align="l"),
        Column("best_T", "T"),
        Column("level", "T within the noise", align="l", in_csv=False),
        *(data.run.column(m, parts=("_mean", "_sd"), text=_words(data, m)) for m in data.metrics),
        Column("n", "n"),
        *(Column(f"paper_{name}", head, text=str) for name, head in PAPER.items()),
    ]
    rows = []
    for schedule in data.schedules:
        row: dict[str, Any] = {"schedule": schedule, "n": 0}
        row |= {f"paper_{name}": paper.get(schedule, {}).get(name) for name in PAPER}
        best = best_of(data.curves("fid").get(schedule, {}))
        if best:
            level = within_noise(data.curves("fid")[schedule], rule)
            row |= {"best_T": best.T, "level": ranges(level, data.steps), "n": best.n}
            row |= {m: curves[m].get(schedule, {}).get(best.T) for m in data.metrics}
        rows.append(row)
    return Table("table3", columns, rows)


# A model's NLL does not depend on the seed of sampling: then there is no spread to print.
def _words(data: ScheduleData, metric: str) -> Any:
    digits = data.run.column(metric).digits

    def words(value: Mean) -> str:
        return number(value.mean, digits) if value.sd == 0 else value.words(digits)

    return words


def _sweet_spots(data: ScheduleData, rule: Mapping[str, Any]) -> Table | None:
    spots = [sweet_spot(s, curve, rule) for s, curve in data.curves("fid").items()]
    rows = [
        {
            "schedule": spot.schedule,
            "best_T": spot.best.T,
            "fid": spot.best.mean,
            "first_T": spot.first,
            "rise_first": spot.rise_first,
            "to_first": f"+{number(spot.rise_first)} at T = {spot.first}",
            "last_T": spot.last,
            "rise_last": spot.rise_last,
            "to_last": f"+{number(spot.rise_last)} at T = {spot.last}",
            "tolerance": spot.tolerance,
            "sweet_spot": "yes" if spot.found else "no",
        }
        for spot in spots
        if spot
    ]
    columns = [
        Column("schedule", "Schedule", align="l"),
        Column("best_T", "Best T"),
        Column("fid", "FID"),
        *map(Column, ("first_T", "rise_first", "last_T", "rise_last")),
        Column("to_first", "Rise to the first T", in_csv=False),
        Column("to_last", "Rise to the last T", in_csv=False),
        Column("tolerance", "Tolerance"),
        Column("sweet_spot", "Sweet spot"),
    ]
    return Table("sweet_spots", columns, rows) if rows else None


def _curves_table(data: ScheduleData) -> Table:
    """The metrics and their ids; the CSV has the mean, sd and n of each at every T."""
    curves = {metric: data.curves(metric) for metric in data.metrics}
    columns = [Column("schedule"), Column("T")]
    columns += [Column(metric, parts=("_mean", "_sd", "_n")) for metric in data.metrics]
    values = []
    for schedule in data.schedules:
        for T in data.steps:
            found = {m: curves[m].get(schedule, {}).get(T, Mean.of([])) for m in data.metrics}
            if any(value.n for value in found.values()):
                values.append({"schedule": schedule, "T": T, **found})
    done = data.run.with_status("done")
    rows = [
        {
            "metric": data.run.column(metric).head,
            "id": next((e.metric_id(metric) for e in done if e.metric_id(metric)), DASH),
        }
        for metric in data.metrics
    ]
    shown = [Column("metric", "Metric", align="l"), Column("id", "Id", align="l")]
    return Table("curves", shown, rows, latex=False, detail=Table("", columns, values))


# ---- samples ------------------------------------------------------------------------------------


def _samples(data: ScheduleData, bests: Mapping[str, int]) -> dict[str, Figure]:
    """One figure with every schedule at its best T, and one of each schedule at three T."""
    best_rows: dict[str, dict[int, Any]] = {}
    figures: dict[str, Figure] = {}
    for schedule in data.schedules:
        steps = _steps_to_show(data, schedule, bests.get(schedule))
        rows = {T: (word, _first_samples(data, schedule, T)) for T, word in steps.items()}
        rows = {T: row for T, row in sorted(rows.items()) if row[1]}
        if not rows:
            continue
        middle = next((T for T, (word, _) in rows.items() if word in ("best FID", "no FID")), None)
        if middle is not None:
            best_rows[f"{schedule}\nT = {middle}"] = rows[middle][1]
        alt = f"Samples of the {schedule} schedule, one column for each class"
        labelled = {f"T = {T}\n{word}": images for T, (word, images) in rows.items()}
        figures[schedule] = _class_grid(data, f"samples_{schedule}", alt, labelled)
    if not best_rows:
        return figures
    where = "its best T" if bests else "one T"
    alt = f"Samples of each schedule at {where}, one column for each class"
    return {"": _class_grid(data, "samples_best", alt, best_rows), **figures}


def _steps_to_show(data: ScheduleData, schedule: str, best: int | None) -> dict[int, str]:
    """The T shown and why: the fewest, the most, and the best or one in the middle."""
    there = sorted({e.cell["steps"] for e in data.run.pick(schedule=schedule)})
    if not there:
        return {}
    first, last = (
        T if T in there else end for T, end in zip(ENDS, (there[0], there[-1]), strict=True)
    )
    middle = best or min(there, key=lambda T: (abs(T - MIDDLE), T))
    return {first: "fewest", last: "most", middle: "best FID" if best else "no FID"}


def _first_samples(data: ScheduleData, schedule: str, T: int) -> dict[int, Any]:
    """Class -> its first sample of the first seed that has samples."""
    for entry in data.run.pick(schedule=schedule, steps=T):
        found = first_of_each_class(entry.arrays("images", "labels"))
        if found:
            return {label: images[0] for label, images in found.items()}
    return {}


def _class_grid(
    data: ScheduleData, name: str, alt: str, rows: Mapping[str, Mapping[int, Any]]
) -> Figure:
    classes = sorted({label for images in rows.values() for label in images})
    strips = [
        Strip(label, [Tile(images[c]) if c in images else None for c in classes])
        for label, images in rows.items()
    ]
    return picture_grid(name, alt, strips, [data.run.class_name(c) for c in classes])
