"""The pictures of the report on editing: Figures 6 and 14, 7, 16 and 17, and 20."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.figures.curves import Figure
from reports.figures.pictures import Strip, Tile, picture_grid, resized
from reports.load import Run
from reports.page import Section, Text
from reports.study import arrays, pick

if TYPE_CHECKING:
    import numpy as np

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
LABELS = {
    "outpaint-right": "outpaint right\n50%",
    "inpaint-center": "inpaint centre\n50% x 50%",
    "outpaint-left": "outpaint left\n50%",
    "outpaint-top": "outpaint top\n50%",
    "outpaint-bottom": "outpaint bottom\n50%",
    "inpaint-large": "inpaint centre\n75% x 75%",
    "surround-50": "centre known\n50% x 50%",
    "surround-31": "centre known\n31% x 31%",
    "strip": "strip known\n25% of the width",
}
MOST_INPUTS = 3  # of a task
FEW_INPUTS = 2  # of a task where there are more than three tasks
CHOSEN = "Not chosen by hand: the first held-out image of each class shown, and the first noise."


def filling_figures(run: Run, methods: Mapping[str, str]) -> list[Section]:
    """A section a group of tasks, with the pictures of those that ran."""
    sections = []
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
            rows = _strips(found, columns, inputs)
            for i, row in enumerate(rows):
                strips.append(
                    Strip(LABELS[task] if i == 0 else "", row, 10 if i == len(rows) - 1 else 0)
                )
        heads = [_head(column, methods) for column in columns]
        figure = picture_grid(name, alt, _caption(heading, baseline), strips, heads)
        sections.append(Section(heading, [figure]))
    return sections or [Section("Pictures", [Text("No pictures were stored with these cells.")])]


def edit_figure(run: Run) -> Figure | None:
    """Figures 6 and 14: a row an input, a column a class; None if there is no such cell."""
    found = [stored for entry in pick(run, part="edits") if (stored := arrays(entry))]
    if not found:
        return None
    stored = found[0]
    names = [str(name) for name in run.protocol.get("class_names", [])]

    def named(label: int) -> str:
        return names[label] if label < len(names) else f"class {label}"

    strips = []
    for i, label in enumerate(stored["labels"].tolist()):
        image = stored["inputs"][i]
        latent = resized(stored["latent"], image.shape)
        tiles = [Tile(image, box=stored["box"]), Tile(image, hidden=latent)]
        tiles += [Tile(edited) for edited in stored["edited"][i]]
        strips.append(Strip(f"input\n{named(label)}", tiles))
    heads = ["box", "tokens"] + [f"as {named(c)}" for c in stored["targets"].tolist()]
    return picture_grid(
        "figure6",
        "Held-out images whose box is decoded again as another class",
        "**Figures 6 and 14.** The box asked for, the tokens that are decoded again (the box, "
        "rounded and grown by a cell towards the top left), and the composite for every class "
        f"asked for. {CHOSEN}",
        strips,
        heads,
    )


def _stored(run: Run, task: str) -> dict[str, np.ndarray]:
    for entry in pick(run, part="pictures", task=task):
        stored = arrays(entry)
        if {"inputs", "mask", "maskgit", "mean"} <= set(stored):
            return stored
    return {}


def _columns(stored: Mapping[str, Any], samples: int, baseline: bool) -> list[tuple[str, int]]:
    """(what is shown, which sample of it) of each column."""
    columns = [("inputs", 0), ("known", 0)]
    columns += [("maskgit", s) for s in range(samples if not baseline else min(3, samples))]
    columns += [("autoregressive", s) for s in range(min(3, samples))] if baseline else []
    if any("biharmonic" in found for found in stored.values()):
        columns.append(("biharmonic", 0))
    return [*columns, ("mean", 0)]


def _strips(
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


def _caption(heading: str, baseline: bool) -> str:
    figure = heading.partition(":")[0]
    words = f"**{figure}.** The real image, what of it is known, several samples of MaskGIT"
    words += (
        ", as many of the autoregressive baseline, which can continue downwards only" * baseline
    )
    return f"{words}, and plain fillings. {CHOSEN}"
