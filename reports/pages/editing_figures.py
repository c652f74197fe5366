"""The pictures of the report on editing: Figures 6 and 14, 7, 16 and 17, and 20."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.figures.pictures import Strip, Tile, picture_grid, resized
from reports.figures.style import Figure
from reports.load import Run

# Section -> (files' name, alternative text, tasks shown).
GROUPS = {
    "Figure 7: inpainting and outpainting": (
        "figure7",
        "Inpainting of the centre and outpainting to the right and left",
        ("inpaint-center", "outpaint-right", "outpaint-left"),
    ),
    "Figures 16 and 17: downwards and upwards": (
        "figure16",
        "Outpainting downwards, beside the autoregressive baseline, and upwards",
        ("outpaint-bottom", "outpaint-top"),
    ),
    "Figure 20: large masks": (
        "figure20",
        "Large masks: three quarters inpainted, or only a centre or a strip known",
        ("inpaint-large", "surround-50", "surround-31", "strip"),
    ),
}
TASKS = {
    "outpaint-right": "outpaint right 50%",
    "inpaint-center": "inpaint centre 50% x 50%",
    "outpaint-left": "outpaint left 50%",
    "outpaint-top": "outpaint top 50%",
    "outpaint-bottom": "outpaint bottom 50%",
    "inpaint-large": "inpaint centre 75% x 75%",
    "surround-50": "known centre 50% x 50%",
    "surround-31": "known centre 31% x 31%",
    "strip": "known strip 25% of the width",
}
MOST_INPUTS = 3  # of a task
FEW_INPUTS = 2  # of a task where there are more than three tasks


def filling_figures(run: Run, methods: Mapping[str, str]) -> dict[str, tuple[Figure, bool]]:
    """Heading -> the pictures of a group of tasks, and whether the baseline is among them."""
    figures = {}
    for heading, (name, alt, group) in GROUPS.items():
        stored = {task: found for task in group if (found := _stored(run, task))}
        if not stored:
            continue
        inputs = MOST_INPUTS if len(stored) <= 3 else FEW_INPUTS
        samples = max(found["maskgit"].shape[1] for found in stored.values())
        baseline = any("autoregressive" in found for found in stored.values())
        columns = _columns(stored, samples, baseline)
        strips = []
        for task, found in stored.items():
            rows = _rows(found, columns, inputs)
            words, size = re.split(r" (?=\d)", TASKS[task], maxsplit=1)
            labels = [f"{words}\n{size}", *[""] * (len(rows) - 1)]
            gaps = [*[0] * (len(rows) - 1), 10]
            strips += list(map(Strip, labels, rows, gaps))
        heads = [_head(column, methods) for column in columns]
        figures[heading] = picture_grid(name, alt, strips, heads), baseline
    return figures


def edit_figure(run: Run) -> Figure | None:
    """Figures 6 and 14: one row for each input, one column for each class.

    None where no such cell is done.
    """
    found = [stored for entry in run.pick(part="edits") if (stored := entry.arrays("edited"))]
    if not found:
        return None
    stored = found[0]
    strips = []
    for i, label in enumerate(stored["labels"].tolist()):
        image = stored["inputs"][i]
        latent = resized(stored["latent"], image.shape)
        tiles = [Tile(image, box=stored["box"]), Tile(image, hidden=latent)]
        tiles += [Tile(edited) for edited in stored["edited"][i]]
        strips.append(Strip(f"input\n{run.class_name(label)}", tiles))
    heads = ["box", "tokens"] + [f"as {run.class_name(c)}" for c in stored["targets"].tolist()]
    alt = "Held-out images whose box is decoded again as another class"
    return picture_grid("figure6", alt, strips, heads)


def _stored(run: Run, task: str) -> dict[str, np.ndarray]:
    needed = ("inputs", "mask", "maskgit", "mean")
    cells = [entry.arrays(*needed) for entry in run.pick(part="pictures", task=task)]
    return next(filter(None, cells), {})


def _columns(stored: Mapping[str, Any], samples: int, baseline: bool) -> list[tuple[str, int]]:
    """(what is shown, which sample of it) of each column."""
    columns = [("inputs", 0), ("known", 0)]
    columns += [("maskgit", s) for s in range(samples if not baseline else min(3, samples))]
    columns += [("autoregressive", s) for s in range(min(3, samples))] if baseline else []
    if any("biharmonic" in found for found in stored.values()):
        columns.append(("biharmonic", 0))
    return [*columns, ("mean", 0)]


def _rows(
    found: Mapping[str, np.ndarray], columns: Sequence[tuple[str, int]], inputs: int
) -> list[list[Tile | None]]:
    rows: list[list[Tile | None]] = []
    for i, image in enumerate(found["inputs"][:inputs]):
        row: list[Tile | None] = []
        for what, sample in columns:
            if what == "inputs":
                row.append(Tile(image))
            elif what == "known":
                row.append(Tile(image, hidden=found["mask"]))
            else:
                row.append(Tile(found[what][i, sample]) if what in found else None)
        rows.append(row)
    return rows


def _head(column: tuple[str, int], methods: Mapping[str, str]) -> str:
    what, sample = column
    first = {"inputs": "real", "known": "input", "mean": "mean fill", "biharmonic": "biharmonic"}
    if what in first:
        return first[what]
    return f"{'baseline' if what == 'autoregressive' else methods[what]} {sample + 1}"
