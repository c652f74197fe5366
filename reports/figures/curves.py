"""Axes with plain ticks, curves of means with their spread, and names beside the curves."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from reports.figures.style import DPI, INK, Style, darker, spread, style_of
from reports.means import Mean

FEW_POINTS = 12  # up to so many the spread is drawn as bars, and as a band beyond

# ---- axes ---------------------------------------------------------------------------------------


def steps_axis(ax: Axes, steps: Sequence[int]) -> None:
    """A log2 axis of T; plain ticks at the values that ran, if few, else at powers of two."""
    low, high = min(steps), max(steps)
    wanted = sorted(set(steps)) if len(set(steps)) <= 8 else [2**k for k in range(12)]
    room = 1.12 if len(set(steps)) <= 8 else 1.3
    ticks = [low]
    for tick in wanted:
        if ticks[-1] * room < tick and tick * room < high:
            ticks.append(tick)
    log_axis(ax, "x", 2, sorted({*ticks, high}))
    ax.set_xlim(low / 1.06, high * 1.06)
    ax.set_xlabel("iterations T (log scale)")


def value_axis(ax: Axes, values: Sequence[float], log: bool = True) -> bool:
    """Limits and ticks; with `log`, a logarithmic axis where values span more than a factor of 2.5.

    One bad schedule would otherwise squash the others. Returns whether the axis is logarithmic.
    """
    low, high = min(values), max(values)
    if not log or low <= 0 or high / low <= 2.5:
        ax.set_ylim(*_padded(low, high))
        ax.yaxis.set_major_formatter("{x:g}")
        return False
    span = (high / low) ** 0.06
    low, high = low / span, high * span
    log_axis(ax, "y", 10, nice_ticks(low, high))
    ax.set_ylim(low, high)
    return True


def nice_ticks(low: float, high: float) -> list[float]:
    """Plain numbers inside [low, high] for a log axis: the fullest ladder with at most nine."""
    ladders = [(1, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 4, 6, 8), (1, 2, 3, 5), (1, 3), (1,)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for ladder in ladders:
        ticks = [float(f"{m}e{d}") for d in decades for m in ladder]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 9:
            break
    return ticks


def log_axis(ax: Axes, which: str, base: int, ticks: Sequence[float]) -> None:
    """A logarithmic axis, "x" or "y", with these ticks and no others."""
    getattr(ax, f"set_{which}scale")("log", base=base)
    axis = getattr(ax, f"{which}axis")
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def empty_axes(ax: Axes, words: str) -> None:
    """Axes without curves that say why there are none."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.text(
        0.5,
        0.5,
        textwrap.fill(words, 42),
        transform=ax.transAxes,
        horizontalalignment="center",
        verticalalignment="center",
        color=INK,
    )


# ---- curves -------------------------------------------------------------------------------------


def draw_curve(
    ax: Axes,
    xs: Sequence[float],
    ys: Sequence[Mean],
    style: Style,
    every: Sequence[int] | None = None,
) -> None:
    """One curve of means, with the sd as bars (few points) or as a band.

    every: places of the points that get a marker; all where it is not given.
    """
    means, sds = [y.mean for y in ys], [y.bar for y in ys]
    look: dict[str, Any] = {"color": style.color, "zorder": 4 if style.width > 2 else 3}
    ax.plot(
        xs,
        means,
        linestyle=style.dashes,
        linewidth=style.width,
        marker=style.marker,
        markersize=style.size,
        markevery=every,
        markeredgecolor="white",
        markeredgewidth=0.6,
        **look,
    )
    if any(sds) and len(xs) <= FEW_POINTS:
        ax.errorbar(xs, means, sds, linestyle="none", elinewidth=1.1, capsize=2.5, **look)
    elif any(sds):
        lower, upper = zip(
            *((m - sd, m + sd) for m, sd in zip(means, sds, strict=True)), strict=True
        )
        ax.fill_between(xs, lower, upper, color=style.color, alpha=0.16, linewidth=0)


def curves_against_steps(
    ax: Axes,
    curves: Mapping[str, Mapping[int, Mean]],
    names: Sequence[str],
    marks: Mapping[str, tuple[int, bool]] | None = None,
    log: bool = True,
) -> bool:
    """Draws curves against T with their spread and their names; says if y is logarithmic.

    `marks` has one T of each curve, which gets a dot if the flag is true (a sweet spot) and a ring
    otherwise.
    """
    points = [point for curve in curves.values() for point in curve.values()]
    steps_axis(ax, sorted({T for curve in curves.values() for T in curve}))
    lowest = [p.mean - p.bar if p.mean > p.bar else p.mean for p in points]
    logarithmic = value_axis(ax, [*lowest, *(p.mean + p.bar for p in points)], log)
    shown = [name for name in names if name in curves]
    for name in shown:
        curve, style = curves[name], style_of(name, names)
        xs = sorted(curve)
        every = [i for i in range(len(xs)) if len(xs) <= FEW_POINTS or _is_marked(xs, i)]
        draw_curve(ax, xs, [curve[x] for x in xs], style, every)
        if marks and name in marks:
            T, found = marks[name]
            ax.plot(
                [T],
                [curve[T].mean],
                linestyle="none",
                marker="o",
                markersize=12.5,
                markerfacecolor=style.color if found else "none",
                markeredgecolor="white" if found else style.color,
                markeredgewidth=1.6 if found else 1.3,
                zorder=6 if style.width > 2 else 5,
                clip_on=False,
            )
    ends = {name: (max(curves[name]), curves[name][max(curves[name])].mean) for name in shown}
    names_beside(ax, ends, {name: style_of(name, names) for name in shown})
    return logarithmic


def names_beside(
    ax: Axes, points: Mapping[str, tuple[float, float]], styles: Mapping[str, Style]
) -> None:
    """Names at the right of the axes with a line to a point (x, y) of each curve, in data units."""
    to_axes = ax.transData + ax.transAxes.inverted()
    places = {name: to_axes.transform(point) for name, point in points.items()}
    size = 11.5
    gap = size * 1.22 * DPI / 72 / ax.get_window_extent().height
    heights = spread([float(place[1]) for place in places.values()], gap, 0.01, 0.99)
    for (name, (x, y)), height in zip(places.items(), heights, strict=True):
        style = styles[name]
        ax.plot(
            [x + 0.012, 1.035, 1.05],
            [y, height, height],
            transform=ax.transAxes,
            color=style.color,
            linewidth=0.8,
            clip_on=False,
            zorder=2,
        )
        ax.text(1.06, height, name, transform=ax.transAxes, **letters(style))


def letters(style: Style) -> dict[str, Any]:
    """How the name of a curve is written."""
    return {
        "color": darker(style.color),
        "fontsize": 11.5,
        "fontweight": "bold" if style.width > 2 else "normal",
        "verticalalignment": "center",
        "zorder": 6,
    }


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


# A marker at about every half octave is enough to tell a dense curve.
def _is_marked(xs: Sequence[int], i: int) -> bool:
    def octave(x: int) -> int:
        return math.floor(2 * math.log2(x) + 1e-9)

    return i in (0, len(xs) - 1) or octave(xs[i]) != octave(xs[i - 1])
