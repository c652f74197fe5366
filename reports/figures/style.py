"""What every figure shares: a canvas, colours, labels that do not collide, files without dates.

Okabe-Ito colours go with a line style and a marker each, so that a grey print still tells the
curves apart. Nothing here touches matplotlib's global state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

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
    """A figure of the page: files NAME.png and NAME.svg, and the text that stands for it."""

    name: str
    alt: str
    canvas: Canvas
    dpi: int = DPI
    files: list[str] = field(default_factory=list)

    def write(self, folder: Path, caption: str = "") -> None:
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
        "text.parse_math": False,  # a dollar in the name of a class is a dollar
    }
    with matplotlib.rc_context(settings):
        yield


def new_canvas(width: float, height: float) -> Canvas:
    """An empty figure of `width` x `height` inches. Call inside `house_style`."""
    canvas = Canvas(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(canvas)
    return canvas


def style_of(name: str, names: Sequence[str] = ()) -> Style:
    """The style of a schedule, or of any curve that borrows it.

    names: of all schedules: those that the paper does not have share the spare styles in order.
    """
    if name in STYLES:
        return STYLES[name]
    others = [other for other in names if other not in STYLES]
    return _SPARE[others.index(name) % len(_SPARE)]


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


def darker(color: str) -> str:
    """The colour dark enough for letters on white: luminance contrast of at least 4.5 (WCAG)."""
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = [0.95 * channel for channel in rgb]
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def _luminance(rgb: Sequence[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
