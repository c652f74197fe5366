"""The report of `experiments/editing.py`: Table 2 and Figures 6, 7, 14 and 16 to 20."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reports.load import Run
from reports.means import DASH, Mean, number, percent
from reports.page import Page
from reports.pages.editing_figures import TASKS, edit_figure, filling_figures
from reports.paper import paper_values
from reports.tables import Column, Table
from reports.verdicts import Verdict
from reports.verdicts.editing import judge_baselines, judge_class
from reports.verdicts.numbers import PaperNumber, judge_number

METHODS = {
    "maskgit": "MaskGIT",
    "autoregressive": "autoregressive baseline",
    "biharmonic": "biharmonic inpainting",
    "mean": "mean fill",
}
SAMPLED = ("maskgit", "autoregressive")
INPUTS = {"real": "the real images themselves", "tokenizer": "their reconstructions"}
METRICS = ("fid", "is")
OTHERS = ("kept", "target", "original", "before")  # metrics that have their own columns


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    asked, paper = run.values_of("task"), paper_values()["table2"]
    tasks = [task for task in TASKS if task in asked]
    others = [task for task in tasks if task not in paper["tasks"]]
    fids = {
        task: {m: run.mean("fid", part="measure", task=task, method=m) for m in METHODS}
        for task in tasks
    }
    edits = {m: run.mean(m, part="edit") for m in ("target", "original", "before")}
    return Page(
        experiment="editing",
        run=run,
        verdicts=_verdicts(run, fids, edits),
        numbers=_numbers(run, tasks),
        facts={
            "fid": {t: {m: _fact(v.mean) for m, v in found.items()} for t, found in fids.items()},
        },
        values={
            "task_names": TASKS,
            "methods": METHODS,
            "fids": {t: fids[t] for t in paper["tasks"] if t in fids and fids[t]["maskgit"].n},
            "inputs": {m: run.mean("fid", part="measure", method=m) for m in INPUTS},
            "edits": edits,
            "table2": _table2(run, [task for task in tasks if task in paper["tasks"]]),
            "comparable": run.preset == paper["preset"],
            "gaps": _gaps(run, [task for task in tasks if task in paper["tasks"]]),
            "others": _table("other_tasks", _ours(run, others), run) if others else None,
            "other_gaps": _gaps(run, others),
            "edit_figure": edit_figure(run),
            "edited": _edited(edits) if run.pick(part="edit") else None,
            "edit_seeds": len(run.pick(part="edit")),
            "filled": filling_figures(run, METHODS),
        },
    )


def _value(run: Run, task: str, method: str) -> dict[str, Mean]:
    metrics = (*_metrics(run), "kept")
    return {m: run.mean(m, part="measure", task=task, method=method) for m in metrics}


def _metrics(run: Run) -> tuple[str, ...]:
    return run.asked_metrics(METRICS, OTHERS)


def _fact(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _why(run: Run, method: str, task: str, metric: str) -> str:
    """Why a method has no value of a metric in a task; empty if it was not asked for."""
    if not run.asked(method=method, task=task) and method == "autoregressive":
        return run.why_missing("the autoregressive baseline")
    return run.why(metric, method=method, task=task)


def _gaps(run: Run, tasks: Sequence[str]) -> list[str]:
    found = {
        f"{METHODS[method]}: {why}"
        for method in METHODS
        for task in tasks
        if (why := _why(run, method, task, "fid"))
    }
    return sorted(found)


def _verdicts(run: Run, fids: dict[str, dict[str, Mean]], edits: dict[str, Mean]) -> list[Verdict]:
    verdicts = []
    for claim in ("table2_baselines", "figure16_directions"):
        rule = paper_values()[claim]
        absent = {method: _why(run, method, rule["tasks"][0], "fid") for method in METHODS}
        verdicts.append(judge_baselines(claim, fids, rule, absent))
    cells = run.pick(part="edit")
    why = cells[0].why_missing("target") if cells else "the preset has no classes, or not run"
    classes = max(1, len(run.protocol.get("class_names", [])))
    rule = paper_values()["figure6_class"]
    return [*verdicts, judge_class(edits["target"], edits["before"], classes, rule, why)]


def _numbers(run: Run, tasks: Sequence[str]) -> list[PaperNumber]:
    paper = paper_values()["table2"]
    printed = {r["task"]: r for r in paper["rows"] if r["model"].startswith("MaskGIT")}
    return [
        judge_number(
            f"Table 2, {words}: {run.label(metric)}",
            printed[task][metric],
            run.mean(metric, part="measure", task=task, method="maskgit"),
            samples=run.count("num_images"),
            same_preset=run.preset == paper["preset"],
            rule=paper,
            why=_why(run, "maskgit", task, metric) if task in tasks else "not asked for",
        )
        for task, words in paper["tasks"].items()
        for metric in METRICS
    ]


# ---- tables -------------------------------------------------------------------------------------


def _table2(run: Run, tasks: Sequence[str]) -> Table:
    rows = []
    for task in tasks:
        rows += _ours(run, [task])
        rows += [
            {
                **{"task": task, "task_name": "", "method": row["model"], "source": "paper"},
                **{"method_name": f"{row['model']}, paper's value"},
                **{metric: row[metric] for metric in METRICS},
            }
            for row in paper_values()["table2"]["rows"]
            if row["task"] == task
        ]
    for i, (method, name) in enumerate(INPUTS.items()):
        values = _value(run, "none", method)
        row: dict[str, Any] = {
            "task": "none",
            "task_name": "" if i else "the inputs",
            "method": method,
        }
        row |= {"method_name": name, "source": "ours", "n": max(v.n for v in values.values())}
        rows.append(row | {metric: values[metric] for metric in _metrics(run)})
    return _table("table2", rows, run)


def _ours(run: Run, tasks: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for task in tasks:
        name = TASKS[task]
        for method in [method for method in METHODS if run.asked(task=task, method=method)]:
            values = _value(run, task, method)
            n = max(value.n for value in values.values())
            row = {"task": task, "task_name": name, "method": method, "source": "ours", "n": n}
            row |= {
                "method_name": METHODS[method],
                "seeds": (n or None) if method in SAMPLED else None,
            }
            rows.append(row | values)
            name = ""
    return rows


def _table(name: str, rows: list[dict[str, Any]], run: Run) -> Table:
    columns = [
        *map(Column, ("task", "method", "source")),
        Column("task_name", "Task", align="l", in_csv=False),
        Column("method_name", "Method", align="l", in_csv=False),
        *(run.column(metric) for metric in _metrics(run)),
        Column("n"),
        Column("seeds", "Seeds", in_csv=False),
        Column("kept", "Known pixels kept", text=lambda value: percent(value.mean)),
    ]
    return Table(name, columns, rows)


def _edited(edits: dict[str, Mean]) -> Table:
    names = {"target": "the class asked for", "original": "the input's class"}
    heads = ("The classifier names", "Before the edit", "After the edit")
    columns = [Column(head, head, align="r" if i else "l") for i, head in enumerate(heads)]
    rows = []
    for metric, name in names.items():
        value = edits[metric]
        before = percent(edits["before"].mean) if metric == "target" else DASH
        spread = f" ± {number(100 * value.sd, 1)}" if math.isfinite(value.sd) else ""
        rows.append((name, before, percent(value.mean) + spread))
    return Table("edited_classes", columns, [dict(zip(heads, row, strict=True)) for row in rows])
