"""The figures of `ablate_schedule`: Figure 8 of the paper, and the other metrics against T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.figures.curves import (
    Figure,
    Style,
    curves_against_steps,
    darker,
    empty_axes,
    house_style,
    new_canvas,
    spread,
    style_of,
)
from reports.tables import and_list
from reports.verdicts.schedules import best_of, sweet_spot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.pages.schedule_data import ScheduleData

NAMES = {"fid": "FID", "is": "Inception score", "precision": "precision", "recall": "recall"}
_GAMMA_POINTS = 101
# Height at which the leader of a label meets its curve: where the neighbours are far apart.
_ANCHORS = {"exponential": 0.62, "cubic": 0.5, "square": 0.38, "cosine": 0.25, "linear": 0.14}
_INSIDE = {"sqrt": 0.36, "logarithmic": 0.24}


def gamma_of(protocol: Mapping[str, Any], schedules: Sequence[str]) -> dict[str, list[float]]:
    """The stored curves gamma(r) at r = 0, 0.01, ... 1 of those schedules that have one."""
    stored = protocol.get("gamma")
    if not isinstance(stored, dict):
        return {}
    return {
        schedule: [float(value) for value in stored[schedule]]
        for schedule in schedules
        if isinstance(stored.get(schedule), list) and len(stored[schedule]) == _GAMMA_POINTS
    }


def figure8(data: ScheduleData, rule: Mapping[str, Any]) -> Figure | None:
    """Left gamma(r) (left out where the run did not store it), right FID against T.

    Where no cell has a FID, the right panel says why; where no cell is done either, it is left out.
    """
    curves, gamma = data.curves("fid"), gamma_of(data.run.protocol, data.schedules)
    why = data.why_absent("fid")
    if not curves and not gamma:
        return None
    panels = [name for name, there in (("gamma", gamma), ("fid", curves or why)) if there]
    with house_style():
        canvas = new_canvas({1: 7.6, 2: 12.0}[len(panels)], 5.0)
        left = 0.065 if len(panels) == 2 else 0.1
        boxes = {"gamma": (left, 0.135, 0.29, 0.775), "fid": (0.525, 0.135, 0.355, 0.775)}
        if len(panels) == 1:
            boxes = {panels[0]: (left, 0.135, 0.70, 0.775)}
        if gamma:
            _draw_gamma(canvas.add_axes(boxes["gamma"]), gamma, data.schedules)
        logarithmic = False
        if curves:
            ax = canvas.add_axes(boxes["fid"])
            spots = {s: sweet_spot(s, curve, rule) for s, curve in curves.items()}
            marks = {s: (spot.best.T, spot.found) for s, spot in spots.items() if spot}
            logarithmic = curves_against_steps(ax, curves, data.schedules, marks)
            ax.set_title("Quality against the number of iterations")
            ax.set_ylabel("FID (log scale)" if logarithmic else "FID")
        elif why:
            ax = canvas.add_axes(boxes["fid"])
            ax.set_title("Quality against the number of iterations")
            empty_axes(ax, f"No cell has a FID: {why}")
    parts = ["The seven mask scheduling functions of the paper" if len(gamma) == 7 else "gamma(r)"]
    parts = [f"Left: {parts[0]}, for N = {data.run.protocol.get('num_tokens', '?')}."]
    parts = parts if gamma else []
    if curves:
        side = "Right: " if gamma else ""
        parts.append(
            f"{side}FID against T{' (both axes logarithmic)' if logarithmic else ''}, "
            f"{spread_words(data)}. Large dot: a sweet spot; ring: the best T where there is "
            "none, because FID at both ends is not clearly worse."
        )
    elif why:
        parts.append("Right: empty, for the reason that it states.")
    return Figure(
        "figure8",
        "Mask scheduling functions, and FID against the number of iterations T",
        f"**Figure 8.** {' '.join(parts)}",
        canvas,
    )


def metric_figure(data: ScheduleData, name: str, metrics: Sequence[str]) -> Figure | None:
    """One panel a metric against T; the T of best FID is ringed. None where no cell has it."""
    curves = {metric: data.curves(metric) for metric in metrics}
    curves = {metric: found for metric, found in curves.items() if found}
    if not curves:
        return None
    best = {s: best_of(curve) for s, curve in data.curves("fid").items()}
    with house_style():
        count = len(curves)
        canvas = new_canvas(7.6 if count == 1 else 12.0, 4.6)
        for i, (metric, found) in enumerate(curves.items()):
            x = 0.1 if count == 1 else 0.065 + 0.5 * i
            ax = canvas.add_axes((x, 0.145, 0.70 if count == 1 else 0.325, 0.755))
            marks = {
                s: (b.T, False) for s in found if (b := best.get(s)) is not None and b.T in found[s]
            }
            curves_against_steps(ax, found, data.schedules, marks, log=False)
            label = NAMES.get(metric, metric)
            ax.set_title(f"{label[0].upper()}{label[1:]} against T")
            ax.set_ylabel(label)
    words = and_list([NAMES.get(metric, metric) for metric in curves])
    return Figure(
        name,
        f"{words} against the number of iterations T",
        f"{words[0].upper()}{words[1:]} against T, {spread_words(data)}. "
        "Ring: the T of the schedule's best FID. Higher is better.",
        canvas,
    )


def spread_words(data: ScheduleData) -> str:
    """What the error bars are, for a caption."""
    if len(data.seeds) < 2:
        return "n=1 seed, so there are no error bars"
    shape = "bars" if len(data.steps) <= 12 else "bands"
    return f"mean over {len(data.seeds)} seeds, {shape} are one standard deviation between seeds"


# The curves meet in both corners, so the names stand beside them with leaders; the convex ones have
# room below their curves.
def _draw_gamma(ax: Axes, gamma: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.01)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    ax.set_xlabel("r = t / T")
    ax.set_ylabel("mask ratio γ(r)")
    ax.set_title("Mask scheduling functions")
    beside = {}
    for name in [name for name in names if name in gamma]:
        values, style = gamma[name], style_of(name, names)
        ax.plot(
            [i / (len(values) - 1) for i in range(len(values))],
            values,
            color=style.color,
            linestyle=style.dashes,
            linewidth=style.width,
            zorder=4 if style.width > 2 else 3,
            clip_on=False,
        )
        height = _INSIDE.get(name) or _ANCHORS.get(name, 0.5)
        anchor = (_crossing(values, height), height)
        if name in _INSIDE:
            _inside_label(ax, name, anchor, style)
        else:
            beside[name] = anchor
    places = spread([0.1 + 0.9 * anchor[1] for anchor in beside.values()], 0.075, 0.02, 0.98)
    for (name, anchor), place in zip(beside.items(), places, strict=True):
        style = style_of(name, names)
        ax.plot(
            [anchor[0], 1.03, 1.05],
            [anchor[1], place, place],
            color=style.color,
            linewidth=0.8,
            clip_on=False,
            zorder=2,
        )
        ax.plot(
            [anchor[0]],
            [anchor[1]],
            marker=style.marker,
            color=style.color,
            markersize=style.size + 0.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=5,
        )
        ax.text(1.06, place, name, **_letters(style))


def _inside_label(ax: Axes, name: str, anchor: tuple[float, float], style: Style) -> None:
    ax.plot(
        [anchor[0]],
        [anchor[1]],
        marker=style.marker,
        color=style.color,
        markersize=style.size + 0.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=5,
    )
    ax.text(
        anchor[0] - 0.025,
        anchor[1] - 0.012,
        name,
        horizontalalignment="right",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        **_letters(style),
    )


def _letters(style: Style) -> dict[str, Any]:
    return {
        "color": darker(style.color),
        "fontsize": 11.5,
        "fontweight": "bold" if style.width > 2 else "normal",
        "verticalalignment": "center",
        "zorder": 6,
    }


# r at which a falling curve passes `height`, between the stored points.
def _crossing(values: Sequence[float], height: float) -> float:
    for i in range(1, len(values)):
        if values[i] <= height:
            drop = values[i - 1] - values[i]
            part = (values[i - 1] - height) / drop if drop > 0 else 0.0
            return (i - 1 + min(max(part, 0.0), 1.0)) / (len(values) - 1)
    return 1.0
