"""The report of `experiments/runtime.py`: Figure 4 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from reports.figures.curves import draw_curve, log_axis, names_beside, nice_ticks
from reports.figures.style import INK, Figure, Style, house_style, new_canvas, style_of
from reports.load import Run
from reports.means import Mean, number
from reports.page import Page
from reports.paper import paper_values
from reports.tables import Column, Table
from reports.verdicts.decoding import judge_speed
from reports.verdicts.numbers import judge_speedup

SLOW = "autoregressive"
STYLES = ("cosine", "sqrt", "square", "cubic", "linear")  # of MaskGIT, in the order of T
Curves = Mapping[str, Mapping[int, float]]  # name -> tokens -> value


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    lengths, batches = run.values_of("tokens"), run.values_of("batch")
    steps = sorted({T for entry in run.entries for T in entry.cell.get("steps", [])})
    fewest = steps[0] if steps else "?"
    speedups = {
        n: max(found["value"])
        for n in lengths
        if len(found := run.select(f"speedup_T{fewest}", tokens=n))
    }
    paper = paper_values()["figure4"]
    rows = _rows(run, steps)
    return Page(
        experiment="runtime",
        run=run,
        verdicts=[judge_speed(speedups, paper_values()["figure4_rule"], paper)],
        numbers=[
            judge_speedup(
                f"Figure 4, {n} tokens: speed-up at T = {fewest}",
                float(paper["speedup_max"]) if n == max(lengths) else math.nan,
                speedups.get(n),
                len(batches),
            )
            for n in lengths
        ],
        facts={"speedups": {f"{n}": speedups.get(n) for n in lengths}},
        values={
            "fewest": fewest,
            "devices": run.values_of("device"),
            "batches": batches,
            "small": [row for row in rows if row["batch"] == batches[0]],
            "seconds": seconds_words,
            "figure4": _figure4(rows, lengths, batches[-1], steps),
            "table": _table(rows, steps),
        },
    )


def _rows(run: Run, steps: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each number of tokens and batch size that was measured."""
    rows = []
    for entry in sorted(run.with_status("done"), key=lambda e: (e.cell["tokens"], e.cell["batch"])):
        slow = entry.metric("autoregressive_seconds")
        row = {"tokens": entry.cell["tokens"], "batch": entry.cell["batch"]}
        row |= {"autoregressive_seconds": slow, "matmul_gflops": entry.metric("matmul_gflops")}
        for T in steps:
            fast = entry.metric(f"maskgit_seconds_T{T}")
            row |= {f"maskgit_seconds_T{T}": fast, f"speedup_T{T}": slow / fast}
        rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]], steps: Sequence[int]) -> Table:
    columns = [
        Column("tokens", "Tokens"),
        Column("batch", "Batch"),
        Column("autoregressive_seconds", "Baseline", text=seconds_words),
    ]
    for T in steps:
        columns.append(Column(f"maskgit_seconds_T{T}", f"MaskGIT T = {T}", text=seconds_words))
        columns.append(Column(f"speedup_T{T}", "Speed-up", text=lambda x: f"{number(x, 1)}x"))
    return Table("runtime", [*columns, Column("matmul_gflops", "Matmul, GFLOP/s", 0)], rows)


def _figure4(
    rows: list[dict[str, Any]], lengths: Sequence[int], batch: int, steps: Sequence[int]
) -> Figure:
    """Left the seconds for one image of the largest batch, right the speed-ups."""
    chosen = [row for row in rows if row["batch"] == batch]
    times = {SLOW: {row["tokens"]: row["autoregressive_seconds"] / batch for row in chosen}}
    rates = {}
    for T in steps:
        name = f"MaskGIT T={T}"
        times[name] = {row["tokens"]: row[f"maskgit_seconds_T{T}"] / batch for row in chosen}
        rates[name] = {row["tokens"]: row[f"speedup_T{T}"] for row in chosen}
    with house_style():
        canvas = new_canvas(11.5, 4.6)
        left = canvas.add_axes((0.07, 0.14, 0.33, 0.76))
        right = canvas.add_axes((0.59, 0.14, 0.28, 0.76))
        if chosen:
            _log_curves(left, times, lengths)
            _log_curves(right, rates, lengths, least=1.0)
        left.set_title("Seconds per image")
        right.set_title("Speed-up over the baseline")
        right.axhline(1, color=INK, linewidth=0.8)
    alt = "Decoding time and speed-up against the number of tokens"
    return Figure("figure4", alt, canvas)


def _log_curves(ax: Axes, curves: Curves, lengths: Sequence[int], least: float = math.inf) -> None:
    """Curves on two logarithmic axes. least: a value that the axis reaches down to."""
    values = [value for curve in curves.values() for value in curve.values()]
    log_axis(ax, "x", 2, lengths)
    low, high = min([*values, least]) / 1.15, max(values) * 1.15
    log_axis(ax, "y", 10, nice_ticks(low, high))
    ax.set_ylim(low, high)
    ax.set_xlim(min(lengths) / 1.06, max(lengths) * 1.06)
    styles = {name: _style(name, list(curves)) for name in curves}
    for name, curve in curves.items():
        draw_curve(ax, list(curve), [Mean(y, math.nan, 1) for y in curve.values()], styles[name])
    names_beside(ax, {name: (max(c), c[max(c)]) for name, c in curves.items()}, styles)
    ax.set_xlabel("tokens per image (log scale)")


def _style(name: str, names: Sequence[str]) -> Style:
    if name == SLOW:
        return style_of("logarithmic")
    others = [other for other in names if other != SLOW]
    return style_of(STYLES[others.index(name) % len(STYLES)])


def seconds_words(seconds: float) -> str:
    """`1.25 s` or `12.5 ms`."""
    if not math.isfinite(seconds):
        return number(seconds, 1)
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"
