"""The figures of `ablate_schedule`: Figure 8 of the paper, and the other metrics against T."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from reports.figures.curves import curves_against_steps, empty_axes, letters, names_beside
from reports.figures.style import Figure, house_style, new_canvas, style_of
from reports.means import and_list, sentence
from reports.pages.schedule_data import ScheduleData
from reports.verdicts.schedules import best_of, sweet_spot

GAMMA_POINTS = 101
# Height at which the line from a name meets its curve: where the neighbours are far apart.
ANCHORS = {"exponential": 0.62, "cubic": 0.5, "square": 0.38, "cosine": 0.25, "linear": 0.14}
INSIDE = {"sqrt": 0.36, "logarithmic": 0.24}  # the convex ones have room below their curves


def gamma_of(data: ScheduleData) -> dict[str, list[float]]:
    """The stored curves gamma(r) at r = 0, 0.01, ... 1 of those schedules that have one."""
    stored = data.run.protocol.get("gamma", {})
    return {name: stored[name] for name in data.schedules if _is_curve(stored.get(name))}


def _is_curve(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) == GAMMA_POINTS
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def figure8(data: ScheduleData, rule: Mapping[str, Any]) -> tuple[Figure | None, bool]:
    """Left gamma(r) (left out where the run did not store it), right FID against T.

    Where no cell has a FID, the right panel says why; where no cell is done either, it is left out.
    Returns the figure, None where there is nothing to draw, and whether its axes of FID and T are
    logarithmic.
    """
    curves, gamma, why = data.curves("fid"), gamma_of(data), data.why_absent("fid")
    if not curves and not gamma:
        return None, False
    panels = [name for name, there in (("gamma", gamma), ("fid", curves or why)) if there]
    logarithmic = False
    with house_style():
        canvas = new_canvas({1: 7.6, 2: 12.0}[len(panels)], 5.0)
        boxes = {"gamma": (0.065, 0.135, 0.29, 0.775), "fid": (0.525, 0.135, 0.355, 0.775)}
        if len(panels) == 1:
            boxes = {panels[0]: (0.1, 0.135, 0.70, 0.775)}
        axes = {panel: canvas.add_axes(boxes[panel]) for panel in panels}
        if gamma:
            _draw_gamma(axes["gamma"], gamma, data.schedules)
        if "fid" in axes:
            axes["fid"].set_title("Quality against the number of iterations")
        if curves:
            spots = {s: sweet_spot(s, curve, rule) for s, curve in curves.items()}
            marks = {s: (spot.best.T, spot.found) for s, spot in spots.items() if spot}
            logarithmic = curves_against_steps(axes["fid"], curves, data.schedules, marks)
            axes["fid"].set_ylabel("FID (log scale)" if logarithmic else "FID")
        elif why:
            empty_axes(axes["fid"], f"No cell has a FID: {why}")
    alt = "Mask scheduling functions, and FID against the number of iterations T"
    return Figure("figure8", alt, canvas), logarithmic


def metric_figure(data: ScheduleData, name: str, metrics: Sequence[str]) -> Figure | None:
    """One panel for each metric against T, with a ring at the T of the best FID.

    None where no cell has any of the metrics.
    """
    curves = {metric: data.curves(metric) for metric in metrics}
    curves = {metric: found for metric, found in curves.items() if found}
    if not curves:
        return None
    best = {s: best_of(curve) for s, curve in data.curves("fid").items()}
    single = len(curves) == 1
    with house_style():
        canvas = new_canvas(7.6 if single else 12.0, 4.6)
        for i, (metric, found) in enumerate(curves.items()):
            x, width = (0.1, 0.70) if single else (0.065 + 0.5 * i, 0.325)
            ax = canvas.add_axes((x, 0.145, width, 0.755))
            marks = {s: (b.T, False) for s in found if (b := best.get(s)) and b.T in found[s]}
            curves_against_steps(ax, found, data.schedules, marks, log=False)
            ax.set_title(f"{sentence(data.run.label(metric))} against T")
            ax.set_ylabel(data.run.label(metric))
    words = and_list([data.run.label(metric) for metric in curves])
    return Figure(name, f"{sentence(words)} against the number of iterations T", canvas)


# The curves meet in both corners, so the names stand beside them with lines to the curves.
def _draw_gamma(ax: Axes, gamma: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.01)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    ax.set_xlabel("r = t / T")
    ax.set_ylabel("mask ratio γ(r)")
    ax.set_title("Mask scheduling functions")
    anchors = {}
    for name, values in gamma.items():
        style = style_of(name, names)
        rs = [i / (len(values) - 1) for i in range(len(values))]
        order = 4 if style.width > 2 else 3
        look = {"color": style.color, "linestyle": style.dashes, "linewidth": style.width}
        ax.plot(rs, values, zorder=order, clip_on=False, **look)
        height = INSIDE.get(name) or ANCHORS.get(name, 0.5)
        x = _crossing(values, height)
        anchors[name] = (x, height)
        ax.plot(
            [x],
            [height],
            marker=style.marker,
            color=style.color,
            markersize=style.size + 0.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=5,
        )
        if name in INSIDE:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            where = (x - 0.025, height - 0.012)
            ax.text(*where, name, horizontalalignment="right", bbox=box, **letters(style))
    beside = {name: place for name, place in anchors.items() if name not in INSIDE}
    names_beside(ax, beside, {name: style_of(name, names) for name in beside})


# r at which a falling curve passes `height`, between the stored points.
def _crossing(values: Sequence[float], height: float) -> float:
    for i in range(1, len(values)):
        if values[i] <= height:
            drop = values[i - 1] - values[i]
            part = (values[i - 1] - height) / drop if drop > 0 else 0.0
            return (i - 1 + min(max(part, 0.0), 1.0)) / (len(values) - 1)
    return 1.0
