"""The report of `experiments/panorama.py`: Figure 15 of the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from reports.figures.curves import draw_curve
from reports.figures.pictures import Strip, Tile, picture_grid
from reports.figures.style import Figure, darker, house_style, new_canvas, style_of
from reports.load import Run
from reports.means import Mean
from reports.page import Page
from reports.paper import paper_values
from reports.tables import Column, Table
from reports.verdicts.editing import judge_seams
from reports.verdicts.numbers import without_paper

ACROSS = 8  # widths of the input in one row of pictures
METRICS = {
    "seams": "Windows meet",
    "seams_beside": "Beside",
    "ratio": "Ratio",
    "tokens": "Other token boundaries",
    "tokens_beside": "Beside",
    "tokens_ratio": "Ratio",
}


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    means = {metric: run.means(metric, "factor") for metric in METRICS}
    factors = list(means["ratio"])
    widest = factors[-1] if factors else None
    ratio = means["ratio"].get(widest, Mean.of([]))
    verdict = judge_seams(ratio, widest, paper_values()["figure15_rule"])
    what = f"Figure 15, {widest or '?'} times the width: change across seams against beside them"
    count = run.count("num_images")
    pictures = {factor: _pictures(run, factor) for factor in factors}
    return Page(
        experiment="panorama",
        run=run,
        verdicts=[verdict],
        numbers=[without_paper(what, ratio, verdict, samples=count, why="no panorama")],
        facts={"ratio": {str(factor): value.mean for factor, value in means["ratio"].items()}},
        values={
            "means": means,
            "pictures": {factor: figure for factor, figure in pictures.items() if figure},
            "seams": _seams(means) if factors else None,
            "gradients": _gradients(run, factors[-1]) if factors else None,
            "seeds": run.values_of("seed"),
        },
    )


def _pictures(run: Run, factor: int) -> Figure | None:
    stored = [found for entry in run.pick(factor=factor) if (found := entry.arrays("images"))]
    if not stored:
        return None
    images, left = stored[0]["images"], int(stored[0]["left"])
    box = np.zeros(images[0].shape[:2], bool)
    box[:, left : left + images.shape[1]] = True
    tiles = [Tile(image, box=box if i == 0 else None) for i, image in enumerate(images)]
    row = max(1, ACROSS // factor)
    strips = [Strip("", tiles[i : i + row]) for i in range(0, len(tiles), row)]
    alt = f"Held-out images outpainted sideways to {factor} times their width"
    return picture_grid(f"figure15_{factor}x", alt, strips, left=8, gap=24)


def _seams(means: dict[str, dict[int, Mean]]) -> Table:
    columns = [
        Column("factor", "Width", text=lambda factor: f"{factor}x", align="l"),
        *(Column(m, head, parts=("_mean", "_sd")) for m, head in METRICS.items()),
        Column("n", "n", in_csv=False),
    ]
    rows = [
        {"factor": factor, "n": value.n, **{m: means[m].get(factor) for m in METRICS}}
        for factor, value in means["ratio"].items()
    ]
    return Table("seams", columns, rows)


def _gradients(run: Run, factor: int) -> Figure | None:
    """The difference of each column of pixels and the one before it, with the seams marked."""
    cells = [found for entry in run.pick(factor=factor) if (found := entry.arrays("gradients"))]
    if not cells:
        return None
    columns = zip(*(found["gradients"].tolist() for found in cells), strict=True)
    curve = [Mean.of(column) for column in columns]
    seams, left = cells[0]["seams"].tolist(), int(cells[0]["left"])
    side = len(curve) - 2 * left if factor > 1 else len(curve)
    line, mark = replace(style_of("sqrt"), dashes="-", width=1.4), style_of("logarithmic")
    dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 7}
    dots["color"] = mark.color
    top = max(value.mean + value.bar for value in curve)
    with house_style():
        canvas = new_canvas(10.0, 3.8)
        ax = canvas.add_axes((0.075, 0.16, 0.9, 0.72))
        ax.axvspan(left, left + side, color="#eeeeee", zorder=0)
        draw_curve(ax, range(1, len(curve)), curve[1:], line, every=[])
        ax.plot(seams, [curve[x].mean for x in seams], markeredgecolor="white", zorder=4, **dots)
        ax.set_ylim(0, 1.22 * top)
        ax.set_xlim(0, len(curve))
        ax.set_xlabel("column, in pixels")
        ax.set_ylabel("difference, grey levels")
        ax.set_title(f"Difference of neighbouring columns, {factor} times the width")
        ax.text(left + side / 2, 1.12 * top, "input", ha="center", va="center")
        ax.plot([0.012 * len(curve)], [1.12 * top], **dots)
        place = (0.022 * len(curve), 1.12 * top)
        ax.text(*place, "where windows meet", color=darker(mark.color), va="center")
    alt = "Difference of neighbouring columns, with the windows' boundaries marked"
    return Figure("seam_gradients", alt, canvas)
