"""What every figure shares: style, colours, axes, labels that do not collide, files without dates.

Okabe-Ito colours go with a line style and a marker each, so that a grey print still tells the
curves apart. Nothing here touches matplotlib's global state, and matplotlib is imported late.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from reports.verdicts.schedules import Point

DPI = 110
INK, GRID, FAINT = "#222222", "#dddddd", "#777777"


@dataclass(frozen=True)
class Style:
    """How one curve looks: Okabe-Ito colour, dashes, marker; widths and sizes in points."""

    color: str
    dashes: Any
    marker: str
    width: float = 1.7
    size: float = 5.5


# The concave ones have long strokes, linear is plain, the convex ones are dotted.
STYLES = {
    "exponential": Style("#CC79A7", (0, (9, 2)), "v"),
    "cubic": Style("#E69F00", (0, (6, 2)), "s"),
    "square": Style("#56B4E9", (0, (6, 1.5, 1, 1.5)), "D"),
    "cosine": Style("#000000", "-", "o", 2.6),
    "linear": Style("#009E73", "-", "^"),
    "sqrt": Style("#0072B2", (0, (3, 1.5)), "P", size=7.5),
    "logarithmic": Style("#D55E00", (0, (1.2, 1.2)), "X", size=7.5),
}
_SPARE = [
    Style(color, (0, (4, 1, 1, 1)), marker)
    for color, marker in (("#7F7F7F", "<"), ("#A08000", ">"), ("#555555", "p"))
]


@dataclass(frozen=True)
class Figure:
    """A figure of the page: files NAME.png and NAME.svg, alternative text, caption."""

    name: str
    alt: str
    caption: str
    canvas: Canvas
    dpi: int = DPI
    files: list[str] = field(default_factory=list)

    kind = "figure"

    def write(self, folder: Path) -> None:
        """Writes the PNG and the SVG, both free of dates and of the names of programs."""
        self.files[:] = [f"{self.name}.png", f"{self.name}.svg"]
        with house_style():
            self.canvas.savefig(folder / self.files[0], dpi=self.dpi, metadata={"Software": None})
            self.canvas.savefig(
                folder / self.files[1],
                dpi=self.dpi,
                metadata={"Date": None, "Creator": None, "Type": None, "Format": None},
            )


@contextmanager
def house_style() -> Iterator[None]:
    """Our settings on top of matplotlib's defaults, whatever the user's matplotlibrc says."""
    import matplotlib

    skipped = {"backend", "interactive", "toolbar", "timezone", "figure.max_open_warning"}
    settings = {k: v for k, v in matplotlib.rcParamsDefault.items() if k not in skipped}
    settings |= {
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "axes.titlesize": 13,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "figure.facecolor": "white",
        "svg.hashsalt": "maskgit-bench",
        "svg.fonttype": "path",
    }
    with matplotlib.rc_context(settings):
        yield


def new_canvas(width: float, height: float) -> Canvas:
    """An empty figure of `width` x `height` inches. Call inside `house_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(canvas)
    return canvas


def style_of(name: str, names: Sequence[str]) -> Style:
    """The style of a schedule; those that the paper does not have share the spare ones in order."""
    if name in STYLES:
        return STYLES[name]
    others = [other for other in names if other not in STYLES]
    return _SPARE[others.index(name) % len(_SPARE)]


# ---- labels -------------------------------------------------------------------------------------


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions closest to `wanted` (least squares) in the same order, at least `gap` apart.

    Pool adjacent violators: labels that would touch form a block around their common mean. The
    whole is then held inside [low, high]; where it cannot fit, the gap shrinks evenly.
    """
    if not wanted:
        return []
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    blocks: list[tuple[float, int]] = []  # mean of (wanted - rank * gap), size
    for rank, index in enumerate(order):
        mean, size = wanted[index] - rank * gap, 1
        while blocks and blocks[-1][0] >= mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    flat = [mean for mean, size in blocks for _ in range(size)]
    top = high - gap * (len(flat) - 1)
    placed = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        placed[index] = min(max(flat[rank], low), top) + rank * gap
    return placed


def end_labels(
    ax: Axes, ends: Mapping[str, tuple[float, float]], names: Sequence[str], size: float = 11.5
) -> None:
    """Names beside the ends of the curves: `ends` has the last point (x, y) of each, data units."""
    box = ax.get_window_extent()
    height = size * 1.22 * DPI / 72 / box.height
    shown = [name for name in names if name in ends]
    to_axes = ax.transData + ax.transAxes.inverted()
    points = {name: to_axes.transform(ends[name]) for name in shown}
    places = spread([float(points[name][1]) for name in shown], height, 0.01, 0.99)
    for name, place in zip(shown, places, strict=True):
        style = style_of(name, names)
        x, y = points[name]
        ax.plot(
            [x + 0.012, 1.035, 1.05],
            [y, place, place],
            transform=ax.transAxes,
            color=style.color,
            linewidth=0.8,
            clip_on=False,
        )
        ax.text(
            1.06,
            place,
            name,
            transform=ax.transAxes,
            color=darker(style.color),
            fontsize=size,
            fontweight="bold" if style.width > 2 else "normal",
            verticalalignment="center",
        )


def darker(color: str) -> str:
    """The colour dark enough for letters on white: luminance contrast of at least 4.5 (WCAG)."""
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = [0.95 * channel for channel in rgb]
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def _luminance(rgb: Sequence[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


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
    _log_axis(ax, "x", 2, sorted({*ticks, high}))
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
    _log_axis(ax, "y", 10, nice_ticks(low, high))
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


def _log_axis(ax: Axes, which: str, base: int, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    getattr(ax, f"set_{which}scale")("log", base=base)
    axis = getattr(ax, f"{which}axis")
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def empty_axes(ax: Axes, words: str) -> None:
    """Axes without curves that say why there are none."""
    import textwrap

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
        parse_math=False,
    )


# ---- curves against T ---------------------------------------------------------------------------


def curves_against_steps(
    ax: Axes,
    curves: Mapping[str, Mapping[int, Point]],
    names: Sequence[str],
    marks: Mapping[str, tuple[int, bool]] | None = None,
    log: bool = True,
) -> bool:
    """Draws curves with sd as bars (up to twelve values of T) or bands; says if y is logarithmic.

    `marks` marks a T of each curve: a dot where the flag is true (a sweet spot), a ring otherwise.
    """
    steps = sorted({T for curve in curves.values() for T in curve})
    values = []
    for point in (point for curve in curves.values() for point in curve.values()):
        sd = point.sd if math.isfinite(point.sd) else 0.0
        values += [point.mean - sd, point.mean + sd] if point.mean > sd else [point.mean]
    steps_axis(ax, steps)
    logarithmic = value_axis(ax, values, log)
    ends = {}
    for name in names:
        if name not in curves:
            continue
        curve, style = curves[name], style_of(name, names)
        xs = sorted(curve)
        ys = [curve[x].mean for x in xs]
        sds = [curve[x].sd if math.isfinite(curve[x].sd) else 0.0 for x in xs]
        order = 4 if style.width > 2 else 3
        few = len(xs) <= 12
        every = [i for i in range(len(xs)) if few or _is_marked(xs, i)]
        look: dict[str, Any] = {"color": style.color, "zorder": order}
        ax.plot(
            xs,
            ys,
            linestyle=style.dashes,
            linewidth=style.width,
            marker=style.marker,
            markersize=style.size,
            markevery=every,
            markeredgecolor="white",
            markeredgewidth=0.6,
            **look,
        )
        if any(sds) and few:
            ax.errorbar(xs, ys, sds, linestyle="none", elinewidth=1.1, capsize=2.5, **look)
        elif any(sds):
            lower = [y - sd for y, sd in zip(ys, sds, strict=True)]
            upper = [y + sd for y, sd in zip(ys, sds, strict=True)]
            ax.fill_between(xs, lower, upper, color=style.color, alpha=0.16, linewidth=0)
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
                zorder=order + 2,
                clip_on=False,
            )
        ends[name] = (xs[-1], ys[-1])
    end_labels(ax, ends, names)
    return logarithmic


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


# A marker at about every half octave is enough to tell a dense curve.
def _is_marked(xs: Sequence[int], i: int) -> bool:
    def octave(x: int) -> int:
        return math.floor(2 * math.log2(x) + 1e-9)

    return i in (0, len(xs) - 1) or octave(xs[i]) != octave(xs[i - 1])
