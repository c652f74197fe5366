"""The report of `experiments/editing.py`: Table 2 and Figures 6, 7, 14 and 16 to 20."""

from __future__ import annotations

import math
from typing import Any

from reports.declared import declared
from reports.figures.curves import Figure
from reports.load import Run
from reports.page import Page, Section, Text
from reports.pages.editing_figures import edit_figure, filling_figures
from reports.rows import Row
from reports.study import Mean, mean, pick, protocol_section, status_words
from reports.tables import DASH, Table, and_list, number
from reports.verdicts.editing import (
    judge_baselines,
    judge_class,
    number_row,
    percent,
)
from reports.verdicts.schedules import Verdict

TASKS = {
    "outpaint-right": "outpaint right 50%",
    "inpaint-center": "inpaint centre 50% x 50%",
    "outpaint-left": "outpaint left 50%",
    "outpaint-top": "outpaint top 50%",
    "outpaint-bottom": "outpaint bottom 50%",
    "inpaint-large": "inpaint centre 75% x 75%",
    "surround-50": "centre 50% x 50% known",
    "surround-31": "centre 31% x 31% known",
    "strip": "centre strip of 25% known",
}
METHODS = {
    "maskgit": "MaskGIT",
    "autoregressive": "autoregressive baseline",
    "biharmonic": "biharmonic inpainting",
    "mean": "mean fill",
}
SAMPLED = ("maskgit", "autoregressive")
BOUNDS = {"real": "the real images themselves", "tokenizer": "their reconstructions"}
FEW_SAMPLES = 10_000


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    tasks = [task for task in TASKS if task in _asked(run)]
    fids = {task: {m: _value(run, task, m, "fid") for m in METHODS} for task in tasks}
    return Page(
        experiment="editing",
        title=f"Editing, inpainting and outpainting ({run.preset})",
        finding=_finding(run, fids),
        status=f"{status_words(run)} {_count(run)} held-out images a cell.",
        verdicts=_verdicts(run, fids),
        sections=[
            _table2(run, [task for task in tasks if task in declared()["table2"]["tasks"]]),
            _other(run, [task for task in tasks if task not in declared()["table2"]["tasks"]]),
            _edits(run),
            *filling_figures(run, METHODS),
            protocol_section(run, _command(run)),
        ],
        facts={
            "fid": {t: {m: _plain(v.mean) for m, v in found.items()} for t, found in fids.items()},
        },
        rows=_rows(run, tasks),
    )


def _asked(run: Run) -> set[str]:
    return {entry.cell["task"] for entry in run.entries if "task" in entry.cell}


def _count(run: Run) -> int:
    return int(run.protocol.get("num_images", 0))


def _value(run: Run, task: str, method: str, metric: str) -> Mean:
    return mean(pick(run, part="measure", task=task, method=method), metric)


def _plain(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _why(run: Run, method: str, task: str, metric: str) -> str:
    """Why a method has no value of a metric in a task; empty if it was not asked for."""
    reasons = [
        entry.why_missing(metric) if entry.status == "done" else entry.reason
        for entry in run.entries
        if (entry.cell.get("method"), entry.cell.get("task")) == (method, task)
        and not math.isfinite(entry.metric(metric))
    ]
    if not reasons and method == "autoregressive":
        return str(run.protocol.get("missing", {}).get("the autoregressive baseline", ""))
    return reasons[0] if reasons else ""


# ---- words --------------------------------------------------------------------------------------


def _finding(run: Run, fids: dict[str, dict[str, Mean]]) -> list[str]:
    sentences = []
    for task in declared()["table2"]["tasks"]:
        found = fids.get(task, {})
        if "maskgit" not in found or not found["maskgit"].n:
            continue
        others = {m: found[m] for m in ("biharmonic", "mean") if found[m].n}
        beside = and_list([f"{METHODS[m]} {number(v.mean, 2)}" for m, v in others.items()])
        text = f"{_capital(TASKS[task])}: FID {found['maskgit'].words(2)}"
        sentences.append(text + (f", against {beside}" if beside else "") + ".")
    real = _value(run, "none", "real", "fid")
    if sentences and real.n:
        through = _value(run, "none", "tokenizer", "fid").words(2)
        sentences.append(
            f"The inputs themselves have {real.words(2)}, through the tokenizer {through}."
        )
    share = mean(pick(run, part="edit"), "target")
    if share.n:
        sentences.append(
            f"After an edit of a box the classifier names the class asked for in "
            f"{percent(share.mean)} of the images, and still the input's in "
            f"{percent(mean(pick(run, part='edit'), 'original').mean)}."
        )
    return sentences or ["No number is there: nothing can be said about editing."]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _verdicts(run: Run, fids: dict[str, dict[str, Mean]]) -> list[Verdict]:
    claims = ("table2_baselines", "figure16_directions")
    verdicts = []
    for claim in claims:
        rule = declared()[claim]
        absent = {m: _why(run, m, rule["tasks"][0], "fid") for m in METHODS}
        verdicts.append(judge_baselines(claim, fids, rule, absent))
    edits = pick(run, part="edit")
    why = edits[0].why_missing("target") if edits else "the preset has no classes, or not run"
    classes = max(1, len(run.protocol.get("class_names", [])))
    share, before = mean(edits, "target"), mean(edits, "before")
    return [*verdicts, judge_class(share, before, classes, declared()["figure6_class"], why)]


def _rows(run: Run, tasks: list[str]) -> list[Row]:
    paper = declared()["table2"]
    same, rows = run.preset == paper["preset"], []
    for task, words in paper["tasks"].items():
        printed = next(
            row
            for row in paper["rows"]
            if row["task"] == task and row["model"].startswith("MaskGIT")
        )
        for metric, name in (("fid", "FID"), ("is", "IS")):
            ours = _value(run, task, "maskgit", metric)
            why = _why(run, "maskgit", task, metric) if task in tasks else "not asked for"
            rows.append(
                number_row(
                    f"Table 2, {words}: {name}",
                    printed[metric],
                    ours,
                    samples=_count(run),
                    same_preset=same,
                    rule=paper,
                    why=why,
                )
            )
    return rows


# ---- tables -------------------------------------------------------------------------------------


def _table2(run: Run, tasks: list[str]) -> Section:
    rows: list[list[str]] = []
    exact: list[list[object]] = []
    for task in tasks:
        _ours(run, task, rows, exact)
        for printed in declared()["table2"]["rows"]:
            if printed["task"] == task:
                values = [number(printed["fid"], 2), number(printed["is"], 2)]
                rows.append(["", f"{printed['model']}, paper's value", *values, DASH, DASH])
                theirs = [printed["fid"], None, printed["is"], None, None, None]
                exact.append([task, printed["model"], "paper", *theirs])
    _bounds(run, rows, exact)
    same = run.preset == declared()["table2"]["preset"]
    caption = (
        f"**Table 2.** FID and Inception Score of the filled images, on the features of "
        f"{run.protocol.get('features', '?')} against {run.protocol.get('reference', '?')}. Ours: "
        "mean ± standard deviation over seeds; plain fillings draw nothing and have none. The "
        "paper's values are of Places2"
        + ("." if same else ": another data set and feature network, not to be held against ours.")
    )
    blocks: list[Text | Table | Figure] = [_table("table2", caption, rows, exact)]
    blocks += [*_notes(run), *_gaps(run, tasks)]
    return Section("Table 2: inpainting and outpainting", blocks)


def _other(run: Run, tasks: list[str]) -> Section:
    rows: list[list[str]] = []
    exact: list[list[object]] = []
    for task in tasks:
        _ours(run, task, rows, exact)
    if not rows:
        return Section("The other tasks", [Text("None was asked for.")])
    caption = "**The other tasks**, measured as in Table 2; the paper has pictures of them only."
    blocks: list[Text | Table | Figure] = [_table("other_tasks", caption, rows, exact)]
    return Section("The other tasks", blocks + _gaps(run, tasks))


def _ours(run: Run, task: str, rows: list[list[str]], exact: list[list[object]]) -> None:
    first = TASKS[task]
    for method, name in METHODS.items():
        if not any(
            (e.cell.get("task"), e.cell.get("method")) == (task, method) for e in run.entries
        ):
            continue
        found = {metric: _value(run, task, method, metric) for metric in ("fid", "is", "kept")}
        kept = percent_or_dash(found["kept"])
        rows.append([first, name, *_texts(found, method in SAMPLED), kept])
        exact.append([task, method, "ours", *_numbers(found), _plain(found["kept"].mean)])
        first = ""


def _bounds(run: Run, rows: list[list[str]], exact: list[list[object]]) -> None:
    first = "the inputs"
    for method, name in BOUNDS.items():
        found = {metric: _value(run, "none", method, metric) for metric in ("fid", "is")}
        rows.append([first, name, *_texts(found, False), DASH])
        exact.append(["none", method, "ours", *_numbers(found), None])
        first = ""


def _texts(found: dict[str, Mean], sampled: bool) -> list[str]:
    seeds = str(found["fid"].n) if sampled and found["fid"].n else DASH
    return [found["fid"].words(2), found["is"].words(2), seeds]


def _numbers(found: dict[str, Mean]) -> list[object]:
    values: list[object] = []
    for metric in ("fid", "is"):
        values += [found[metric].mean, found[metric].sd]
    return [*values, found["fid"].n]


def percent_or_dash(value: Mean) -> str:
    """`99.1%`, or a dash where there is none."""
    return percent(value.mean) if value.n else DASH


def _table(name: str, caption: str, rows: list[list[str]], exact: list[list[object]]) -> Table:
    head = ["Task", "Method", "FID ↓", "IS ↑", "Seeds", "Known pixels kept"]
    names = ["task", "method", "source", "fid", "fid_sd", "is", "is_sd", "n", "kept"]
    return Table(name, caption, head, rows, "llrrrr", data=(names, exact))


def _notes(run: Run) -> list[Text | Table | Figure]:
    count = _count(run)
    words = (
        f"{count} held-out images are the inputs of every row; samplers are told "
        f"{run.protocol.get('classes_told', '?')}. “Known pixels kept” is the share of the pixels "
        "outside the mask whose value is the input's: the blend changes a rim along the mask, and "
        "a token that the mask touches is decoded as a whole."
    )
    if 0 < count < FEW_SAMPLES:
        words += (
            f" FID of {count} images lies above that of many; the row of the real images shows "
            "by how much."
        )
    return [Text(words)]


def _gaps(run: Run, tasks: list[str]) -> list[Text | Table | Figure]:
    reasons = {
        f"{METHODS[method]}: {why}"
        for method in METHODS
        for task in tasks
        if (why := _why(run, method, task, "fid"))
    }
    return [Text("Missing:", sorted(reasons))] if reasons else []


def _edits(run: Run) -> Section:
    found = pick(run, part="edit")
    blocks: list[Text | Table | Figure] = []
    figure = edit_figure(run)
    blocks += [figure] if figure else []
    names = {"target": "the class asked for", "original": "the input's class"}
    rows = []
    before = mean(found, "before")
    for metric, name in names.items():
        value = mean(found, metric)
        sd = f" ± {number(100 * value.sd, 1)}" if math.isfinite(value.sd) else ""
        told = percent(value.mean) + sd if value.n else DASH
        rows.append([name, percent_or_dash(before) if metric == "target" else DASH, told])
    if found:
        caption = (
            f"**What the classifier names** in {_count(run)} held-out images, each edited into "
            "another class (all other classes in turn), mean ± sd over "
            f"{len(found)} seed{'s' if len(found) > 1 else ''}."
        )
        head = ["The classifier names", "Before the edit", "After the edit"]
        blocks.append(Table("edited_classes", caption, head, rows))
    if not blocks:
        blocks = [Text("No edit is there: the preset has no classes, or they were not run.")]
    return Section("Figures 6 and 14: class-conditional editing", blocks)


def _command(run: Run) -> str:
    words = ["python experiments/editing.py"]
    seeds = sorted({e.cell["seed"] for e in run.entries if e.cell.get("method") == "maskgit"})
    tasks = run.protocol.get("tasks", [])
    if seeds:
        words.append(f"--seeds {','.join(map(str, seeds))}")
    if tasks and len(tasks) < len(TASKS):
        words.append(f"--tasks {','.join(tasks)}")
    words.append(f"--num-samples {_count(run)}")
    words += [
        f"--{name} {run.protocol[name]}" for name in ("steps", "start") if name in run.protocol
    ]
    return " ".join([*words, f"--preset {run.preset}", *_box(run)])


def _box(run: Run) -> list[str]:
    boxes: set[Any] = {tuple(e.cell["box"]) for e in run.entries if "box" in e.cell}
    return [f"--box {','.join(map(str, box))}" for box in boxes]
