"""The report of `experiments/decoding_trace.py`: Figure 2 of the paper, still and animated."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reports.figures.animation import Animation, animation
from reports.figures.pictures import Strip, Tile, mask_tile, picture_grid, render, resized
from reports.figures.style import Figure
from reports.load import Run
from reports.page import Page
from reports.paper import paper_values
from reports.tables import Column, Table
from reports.verdicts.decoding import judge_iterations
from reports.verdicts.numbers import PaperNumber, judge_iteration_count

COLUMNS = 8  # of the figure
FRAME_MS, LAST_MS = 220, 2500
NAMES = {"maskgit": "MaskGIT", "autoregressive": "baseline"}
STEPS = {"maskgit": "iteration", "autoregressive": "step"}
Trace = dict[str, np.ndarray]  # images and masks of some iterations, unknown tokens of all


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    needed = ("images", "masked", "iterations", "unknown")
    found = {name: run.pick(sampler=name) for name in NAMES}
    traces = {name: cells[0].arrays(*needed) for name, cells in found.items() if cells}
    traces = {name: trace for name, trace in traces.items() if trace}
    kept = _kept(run, traces["maskgit"]) if "maskgit" in traces else []
    unknown = traces["maskgit"]["unknown"].tolist() if kept else []
    half = [i for i, left in enumerate(unknown, 1) if 2 * left <= run.count("num_tokens")]
    return Page(
        experiment="decoding_trace",
        run=run,
        verdicts=[judge_iterations(kept, paper_values()["figure2_rule"])],
        numbers=_numbers(run, traces),
        facts={"kept": kept},
        values={
            "kept": kept,
            "half": half[:1],
            "rounds": {name: len(trace["unknown"]) for name, trace in traces.items()},
            "why": run.why_missing("the autoregressive baseline"),
            "figure2": _figure2(run, traces) if traces else None,
            "animated": _animation(traces) if traces else None,
            "unknown": _table(run, traces),
        },
    )


def _kept(run: Run, trace: Trace) -> list[int]:
    """Tokens that each iteration fixes; the last one all that were unknown before it."""
    left = [run.count("num_tokens"), *trace["unknown"].tolist()]
    return [before - after for before, after in pairwise(left)]


def _numbers(run: Run, traces: dict[str, Trace]) -> list[PaperNumber]:
    paper = paper_values()["figure2"]
    return [
        judge_iteration_count(
            f"Figure 2, {name}: iterations",
            paper[printed],
            len(traces[sampler]["unknown"]) if sampler in traces else None,
            is_setting=sampler == "maskgit",
            same=run.preset == paper["preset"],
            tokens=run.count("num_tokens"),
            why=run.why_missing("the autoregressive baseline"),
        )
        for sampler, name, printed in (
            ("maskgit", "MaskGIT", "iterations"),
            ("autoregressive", "sequential decoding", "sequential"),
        )
    ]


def _table(run: Run, traces: dict[str, Trace]) -> Table:
    rows = []
    for sampler, trace in traces.items():
        shown = list(range(len(trace["unknown"])))
        if sampler == "autoregressive":  # it fixes one token in each step: a few steps say it all
            shown = [int(trace["iterations"][i]) - 1 for i in _picked(trace)]
        kept = _kept(run, trace)
        rows += [(NAMES[sampler], i + 1, kept[i], int(trace["unknown"][i])) for i in shown]
    heads = ("Sampler", "Iteration", "Tokens fixed in it", "Still unknown after it")
    columns = [Column(head, head, align="r" if i else "l") for i, head in enumerate(heads)]
    return Table("unknown", columns, [dict(zip(heads, row, strict=True)) for row in rows])


# ---- pictures -----------------------------------------------------------------------------------


def _figure2(run: Run, traces: dict[str, Trace]) -> Figure:
    strips = []
    for j, label in enumerate(run.entries[0].cell.get("classes", [])):
        for sampler, trace in traces.items():
            masks, images = [], []
            for i in _picked(trace):
                tile = _tile(sampler, trace, i, j)
                masks.append(Tile(mask_tile(trace["masked"][i, j], render(tile).shape[0])))
                images.append(replace(tile, words=_words(sampler, trace, i)))
            head = f"{NAMES[sampler]}\n{run.class_name(label)}, known tokens"
            strips += [Strip(head, masks), Strip("\nimage", images)]
        strips[-1] = replace(strips[-1], below=14)
    alt = "Masks and images of each iteration, MaskGIT above the autoregressive baseline"
    return picture_grid("figure2", alt, strips, left=190)


def _words(sampler: str, trace: Trace, i: int) -> str:
    number, unknown = int(trace["iterations"][i]), trace["unknown"]
    return f"{STEPS[sampler]} {number}\n{int(unknown[number - 1] - unknown[-1])} unknown"


def _picked(trace: Trace) -> list[int]:
    count = len(trace["images"])
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, COLUMNS)).round())]


def _tile(sampler: str, trace: Trace, i: int, j: int) -> Tile:
    """MaskGIT predicts every token in every iteration; the baseline's rest is not drawn yet."""
    image, masked = trace["images"][i, j], trace["masked"][i, j]
    hide = sampler == "autoregressive" and masked.any()
    return Tile(image, resized(masked, image.shape) if hide else None)


def _animation(traces: dict[str, Trace]) -> Animation:
    """One frame for each step of the baseline; MaskGIT stands still when it is done."""
    steps = sorted({int(n) for trace in traces.values() for n in trace["iterations"]})
    frames = [_frame(traces, step) for step in steps]
    times = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    alt = f"The same as an animation over {steps[-1]} steps"
    return animation("figure2_animated", alt, frames, times)


def _frame(traces: dict[str, Trace], step: int) -> np.ndarray:
    rows, heads = [], []
    for sampler, trace in traces.items():
        total = int(trace["iterations"][-1])
        i = int(np.flatnonzero(trace["iterations"] <= min(step, total))[-1])
        images = [render(_tile(sampler, trace, i, j)) for j in range(len(trace["images"][i]))]
        parts = [part for image in images for part in (image, np.full_like(image[:, :6], 255))]
        rows.append(np.concatenate(parts[:-1], axis=1))
        done = int(trace["iterations"][i])
        heads.append(f"{NAMES[sampler]}: {STEPS[sampler]} {done} of {total}")
    margin, head = 10, 26
    height = sum(row.shape[0] + head for row in rows) + margin
    width = max(row.shape[1] for row in rows) + 2 * margin
    sheet = Image.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for row, text in zip(rows, heads, strict=True):
        draw.text((margin, y + 6), text, fill=(34, 34, 34), font=ImageFont.load_default(14))
        sheet.paste(Image.fromarray(row), (margin, y + head))
        y += row.shape[0] + head
    return np.asarray(sheet)
