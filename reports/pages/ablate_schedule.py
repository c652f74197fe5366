"""The report of `experiments/ablate_schedule.py`: Table 3 and Figure 8 of the paper."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from reports.figures.curves import Figure
from reports.figures.samples import Row, first_of_each_class, sample_grid
from reports.load import Run
from reports.page import Page, Section, Text
from reports.pages.finding import sentences
from reports.pages.schedule_data import METRICS, ScheduleData, collect, evidence
from reports.pages.schedule_figures import NAMES, figure8, gamma_of, metric_figure, spread_words
from reports.provenance import cells_section, protocol_section
from reports.tables import DASH, Table, and_list, mean_sd, number, ranges
from reports.verdicts.schedules import Point, best_of, judge, sweet_spot, within_noise

DIGITS = {"fid": 2, "is": 2, "precision": 3, "recall": 3, "kid": 4, "nll": 3}
HEADS = {"fid": "FID ↓", "is": "IS ↑", "precision": "Precision ↑", "recall": "Recall ↑"}
HEADS |= {"nll": "NLL"}
FEW_SAMPLES = 10_000
PAPER_PRESET = "imagenet256"  # of the paper's Table 3
MIDDLE = 8  # the T whose samples are shown where no FID says which is best


@lru_cache(maxsize=1)
def declared() -> dict[str, Any]:
    """`reports/paper_values.toml`, parsed."""
    path = Path(__file__).parents[1] / "paper_values.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def make_page(run: Run) -> Page:
    """The page of one run of `ablate_schedule`; see `reports.build.build`."""
    data = collect(run, declared()["figure8"]["order"])
    found = evidence(data)
    rule = {
        "one_seed_relative": declared()["shapes"]["one_seed_relative"],
        **declared()["shapes"]["sweet_spot"],
    }
    bests = {s: best.T for s, curve in found.curves.items() if (best := best_of(curve))}
    return Page(
        experiment="ablate_schedule",
        title=f"Mask schedule and number of iterations ({run.preset})",
        finding=sentences(found, declared()),
        status=_status(data),
        verdicts=judge(found, declared()),
        sections=[
            _table3_section(data, rule),
            _figure8_section(data, rule),
            _metrics_section(data),
            _samples_section(data, bests),
            protocol_section(data),
            cells_section(data),
        ],
        facts={"best_T": bests, "cells": len(data.frame), "done": data.count("done")},
    )


def _status(data: ScheduleData) -> str:
    total, done = len(data.frame), data.count("done")
    parts = [f"{done} of {total} cells"]
    parts += [
        f"{data.count(status)} {status}"
        for status in ("failed", "missing", "set aside")
        if data.count(status)
    ]
    sizes = _sizes(data)
    seeds = and_list([str(seed) for seed in data.seeds])
    text = f"{', '.join(parts)}: {len(data.schedules)} schedules, T = "
    text += f"{ranges(data.steps, range(1, data.steps[-1] + 1))}" if data.steps else DASH
    text += f", seed{'s' if len(data.seeds) > 1 else ''} {seeds} (n={len(data.seeds)}), "
    return text + f"{and_list([str(size) for size in sizes])} samples a cell."


def _sizes(data: ScheduleData) -> list[int]:
    cells = [entry.cell for entry in data.entries.values()]
    return sorted({cell["num_samples"] for cell in cells if "num_samples" in cell})


# ---- Table 3 ------------------------------------------------------------------------------------


def _table3_section(data: ScheduleData, rule: Mapping[str, Any]) -> Section:
    curves = {metric: data.curves(metric) for metric in METRICS}
    paper = {row["schedule"]: row for row in declared()["table3"]["rows"]}
    head = ["Schedule", "T", "T level with it", *HEADS.values(), "n"]
    head += ["Paper: T", "FID", "IS", "NLL"]
    rows, exact = [], []
    for schedule in data.schedules:
        printed = paper.get(schedule, {})
        theirs = [printed.get(name) for name in ("T", "fid", "is", "nll")]
        best = best_of(curves["fid"].get(schedule, {}))
        texts: list[str] = [DASH] * 7 + ["0"]
        values: list[object] = [None] * (2 * len(METRICS) + 2)
        if best:
            level = ranges(within_noise(curves["fid"][schedule], rule), data.steps)
            points = {m: curves[m].get(schedule, {}).get(best.T) for m in METRICS}
            texts = [str(best.T), level]
            texts += [_value(points[metric], metric) for metric in HEADS]
            texts.append(str(best.n))
            values = [best.T, best.n]
            for point in points.values():
                values += [point.mean, point.sd] if point else [None, None]
        rows.append([schedule, *texts, *(DASH if v is None else str(v) for v in theirs)])
        exact.append([schedule, *values, *theirs])
    names = ["schedule", "best_T", "n"]
    names += [f"{metric}_{part}" for metric in METRICS for part in ("mean", "sd")]
    names += ["paper_T", "paper_fid", "paper_is", "paper_nll"]
    caption = (
        "**Table 3.** The T of the lowest mean FID of each schedule, beside the paper's ImageNet "
        f"256x256 numbers. Ours: {_mean_words(data)}. NLL in nats per masked token. “T level with "
        "it”: every T whose FID cannot be told from the best by the tolerance of the sweet spot."
    )
    table = Table("table3", caption, head, rows, align="lr" + "l" + "r" * 10, data=(names, exact))
    note = _difference(data)
    sizes = _sizes(data)
    if curves["fid"] and sizes and sizes[-1] < FEW_SAMPLES:
        note += (
            f" FID of {sizes[-1]} samples lies above that of many (the bias falls like 1/N and "
            "depends on the model), so these values are for comparison within this table alone."
        )
    blocks: list[Text | Table | Figure] = [table, Text(note)]
    if missing := data.missing_words():
        blocks.append(Text("Finished cells lack metrics, for these reasons:", missing))
    return Section("Table 3: the best T of each schedule", blocks)


def _mean_words(data: ScheduleData) -> str:
    if len(data.seeds) < 2:
        return "n=1 seed, so there is no standard deviation"
    return f"mean ± standard deviation over {len(data.seeds)} seeds"


def _difference(data: ScheduleData) -> str:
    protocol = data.run.protocol
    features, reference = protocol.get("features", "?"), protocol.get("reference", "?")
    ours = f"FID here is between features of {features} and the reference {reference}"
    if data.run.preset == PAPER_PRESET:
        return (
            f"{ours}. Hold the numbers against the paper's only where that is the paper's protocol "
            "and the samples are as many as the paper's."
        )
    return (
        f"The numbers themselves are not comparable with the paper's: {ours}. Only the shapes are."
    )


# A model's NLL does not depend on the seed of sampling: then there is no spread to print.
def _value(point: Point | None, metric: str) -> str:
    if point is None:
        return DASH
    if metric == "nll" and point.sd == 0:
        return number(point.mean, DIGITS[metric])
    return mean_sd(point.mean, point.sd, DIGITS[metric])


# ---- figures ------------------------------------------------------------------------------------


def _figure8_section(data: ScheduleData, rule: Mapping[str, Any]) -> Section:
    figure = figure8(data, rule)
    why = data.why_absent("fid")
    none = f"No cell has a FID: {why}." if why else "No cell has a FID."
    blocks: list[Text | Table | Figure] = [figure] if figure else [Text(none)]
    drawn = gamma_of(data.run.protocol, data.schedules)
    without = [schedule for schedule in data.schedules if schedule not in drawn]
    if without and not drawn:
        blocks.append(Text("The run stored no curve gamma(r), so the left panel is left out."))
    elif without:
        blocks.append(Text(f"The run stored no curve gamma(r) for {and_list(without)}."))
    spots = _sweet_spot_table(data, rule)
    if spots:
        blocks.append(spots)
    return Section("Figure 8: schedules, and FID against T", blocks)


def _sweet_spot_table(data: ScheduleData, rule: Mapping[str, Any]) -> Table | None:
    rows, exact = [], []
    for schedule, curve in data.curves("fid").items():
        spot = sweet_spot(schedule, curve, rule)
        if spot is None:
            continue
        where = "yes" if spot.found else "no"
        rows.append(
            [
                schedule,
                str(spot.best.T),
                number(spot.best.mean, 2),
                f"+{number(spot.rise_first, 2)} at T = {spot.first}",
                f"+{number(spot.rise_last, 2)} at T = {spot.last}",
                number(spot.tolerance, 2),
                where,
            ]
        )
        ends = [spot.first, spot.rise_first, spot.last, spot.rise_last]
        exact.append([schedule, spot.best.T, spot.best.mean, *ends, spot.tolerance, where])
    if not rows:
        return None
    names = ["schedule", "best_T", "fid", "first_T", "rise_first", "last_T", "rise_last"]
    head = ["Schedule", "Best T", "FID", "Rise to the first T", "Rise to the last T", "Tolerance"]
    caption = (
        "**Sweet spots.** How much FID rises from the best T to both ends of the range; a sweet "
        "spot needs both rises above the tolerance."
    )
    data_columns = ([*names, "tolerance", "sweet_spot"], exact)
    return Table("sweet_spots", caption, [*head, "Sweet spot"], rows, data=data_columns)


def _metrics_section(data: ScheduleData) -> Section:
    figures = [
        metric_figure(data, "inception_score", ["is"]),
        metric_figure(data, "precision_recall", ["precision", "recall"]),
    ]
    blocks: list[Text | Table | Figure] = [figure for figure in figures if figure]
    curves = {metric: data.curves(metric) for metric in METRICS}
    blocks += [
        Text(f"No cell has a value of {NAMES[metric]}: {why}.")
        for metric in ("is", "precision", "recall")
        if not curves[metric] and (why := data.why_absent(metric))
    ]
    if not blocks:
        blocks = [Text("No cell has these metrics.")]
    names = ["schedule", "T"]
    names += [f"{metric}_{part}" for metric in METRICS for part in ("mean", "sd", "n")]
    rows = []
    for schedule in data.schedules:
        for T in data.steps:
            points = [curves[metric].get(schedule, {}).get(T) for metric in METRICS]
            if any(points):
                values = [(p.mean, p.sd, p.n) if p else (None, None, 0) for p in points]
                rows.append([schedule, T, *(value for triple in values for value in triple)])
    first = [[HEADS.get(m, m.upper()).split(" ")[0], data.metric_ids.get(m, DASH)] for m in METRICS]
    caption = (
        f"**Curves.** The metrics and their versions; every value of the figures "
        f"({spread_words(data)}) is in the CSV."
    )
    blocks.append(
        Table("curves", caption, ["Metric", "Id"], first, "ll", data=(names, rows), latex=False)
    )
    return Section("Inception score, precision and recall against T", blocks)


# ---- samples ------------------------------------------------------------------------------------


def _samples_section(data: ScheduleData, bests: Mapping[str, int]) -> Section:
    names = [str(name) for name in data.run.protocol.get("class_names", [])]
    best_rows: list[Row] = []
    figures: list[Figure] = []
    for schedule in data.schedules:
        steps = _steps_to_show(data, schedule, bests.get(schedule))
        if steps is None:
            continue
        first, best, last = steps
        rows = []
        middle = "best FID" if schedule in bests else "no FID"
        for T, word in {first: "fewest", last: "most", best: middle}.items():
            row = _row(data, schedule, T, f"T = {T}\n{word}")
            if row:
                rows.append((T, row))
                if best == T:
                    best_rows.append(Row(f"{schedule}\nT = {T}", row.images, row.classes))
        if rows:
            shown = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
            figures.append(
                sample_grid(
                    f"samples_{schedule}",
                    f"Samples of the {schedule} schedule, one column a class",
                    f"**{schedule}** at the fewest iterations, {_middle_words(schedule, bests)} "
                    "and at the most.",
                    shown,
                    names,
                )
            )
    if not best_rows:
        return Section("Samples", [Text("No samples were stored with these cells.")])
    overview = sample_grid(
        "samples_best",
        f"Samples of each schedule at {'its best T' if bests else 'one T'}, one column a class",
        "Every schedule at its best T."
        if bests
        else f"Every schedule at its T next to {MIDDLE}, as no cell has a FID.",
        best_rows,
        names,
    )
    words = (
        "The first sample of each class of the first seed, not chosen by hand; the same sample "
        "number and seed in every row. Grey images are shown dark on light."
    )
    return Section("Samples", [Text(words), overview, *figures])


def _middle_words(schedule: str, bests: Mapping[str, int]) -> str:
    return "at its best T" if schedule in bests else f"at T next to {MIDDLE}"


def _steps_to_show(
    data: ScheduleData, schedule: str, best: int | None
) -> tuple[int, int, int] | None:
    frame = data.frame[(data.frame["schedule"] == schedule) & (data.frame["status"] == "done")]
    there = sorted(set(map(int, frame["T"])))
    if not there:
        return None
    first = 4 if 4 in there else there[0]
    last = 60 if 60 in there else there[-1]
    return first, best or min(there, key=lambda T: (abs(T - MIDDLE), T)), last


def _row(data: ScheduleData, schedule: str, T: int, label: str) -> Row | None:
    frame = data.frame
    chosen = frame[
        (frame["schedule"] == schedule) & (frame["T"] == T) & (frame["status"] == "done")
    ]
    for key in chosen.sort_values("seed")["key"]:
        samples = first_of_each_class(data.entries[key])
        if samples:
            return Row(label, *samples)
    return None
