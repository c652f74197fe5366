"""The report of `experiments/runtime.py`: Figure 4 of the paper."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from reports.declared import declared
from reports.figures.curves import (
    DPI,
    INK,
    Figure,
    darker,
    house_style,
    new_canvas,
    nice_ticks,
    spread,
    style_of,
)
from reports.load import Entry, Run
from reports.page import Page, Section, Text
from reports.rows import Row
from reports.study import pick, protocol_section, status_words, values_of
from reports.tables import Table, and_list, number
from reports.verdicts.schedules import NOT_COMPARABLE, NOT_RUN, REPRODUCED, TREND, Verdict
from reports.verdicts.schedules import NOT_REPRODUCED as NOT

Curves = dict[str, dict[int, float]]  # name -> tokens -> value
CURVES = ("cosine", "sqrt", "square", "cubic", "linear")  # styles, in the order of T


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    lengths, batches = values_of(run, "tokens"), values_of(run, "batch")
    steps = sorted({T for entry in run.entries for T in entry.cell.get("steps", [])})
    verdict = _verdict(run, lengths, steps)
    device = and_list([str(name) for name in values_of(run, "device")])
    return Page(
        experiment="runtime",
        title=f"Decoding time ({run.preset})",
        finding=_finding(run, lengths, batches, steps, device),
        status=f"{status_words(run)} Device: {device}.",
        verdicts=[verdict],
        sections=[
            _section(run, lengths, batches, steps, device),
            protocol_section(run, _command(run, lengths, batches, steps)),
        ],
        facts={"speedups": {f"{n}": _speedup(run, n, steps) for n in lengths}},
        rows=_rows(run, lengths, batches, steps, verdict),
    )


def _entry(run: Run, tokens: int, batch: int) -> Entry | None:
    found = pick(run, tokens=tokens, batch=batch)
    return found[0] if found else None


def _speedup(run: Run, tokens: int, steps: list[int]) -> float | None:
    """The largest speed-up at the fewest iterations, over batch sizes; None if nothing ran."""
    if not steps:
        return None
    values = [entry.metric(f"speedup_T{steps[0]}") for entry in pick(run, tokens=tokens)]
    return max((v for v in values if math.isfinite(v)), default=None)


def _verdict(run: Run, lengths: list[int], steps: list[int]) -> Verdict:
    rule = declared()["figure4_rule"]
    speedups = {n: s for n in lengths if (s := _speedup(run, n, steps)) is not None}
    paper = declared()["figure4"]
    printed = f"{paper['speedup_min']}x to {paper['speedup_max']}x, more with more tokens"
    if len(speedups) < 2:
        word, ours = NOT_RUN, ""
    else:
        values = [speedups[n] for n in sorted(speedups)]
        ours = ", ".join(f"{v:.1f}x at {n} tokens" for n, v in sorted(speedups.items()))
        grows = all(b > a for a, b in pairwise(values))
        reached = values[-1] >= rule["reproduced_from"]
        word = REPRODUCED if grows and reached else TREND if grows and values[-1] > 1 else NOT
    return Verdict("figure4", rule["title"], printed, rule["rule"], word, ours)


def _finding(
    run: Run, lengths: list[int], batches: list[int], steps: list[int], device: str
) -> list[str]:
    parts = []
    for n in lengths:
        entry = _entry(run, n, batches[0]) if batches else None
        if entry is None or not steps:
            continue
        fast = entry.metric(f"maskgit_seconds_T{steps[0]}")
        slow = entry.metric("autoregressive_seconds")
        parts.append(
            f"{n} tokens: {_time(fast)} against {_time(slow)}, {slow / fast:.1f} times as fast"
        )
    if not parts:
        return ["Nothing was measured."]
    head = f"MaskGIT with T = {steps[0]} beside the baseline with its KV cache, batch {batches[0]}"
    return [f"{head}, on {device}: {'; '.join(parts)}."]


def _rows(
    run: Run, lengths: list[int], batches: list[int], steps: list[int], verdict: Verdict
) -> list[Row]:
    paper = declared()["figure4"]["speedup_max"]
    rows = []
    for n in lengths:
        value = _speedup(run, n, steps)
        rows.append(
            Row(
                what=f"Figure 4, {n} tokens: speed-up at T = {steps[0] if steps else '?'}",
                paper=float(paper) if n == max(lengths) else math.nan,
                mean=math.nan if value is None else value,
                sd=math.nan,
                n=len(batches),
                seeds=1,
                verdict=NOT_RUN if value is None else NOT_COMPARABLE,
                why="not in this run" if value is None else "another device and another size",
                digits=1,
            )
        )
    return rows


def _section(
    run: Run, lengths: list[int], batches: list[int], steps: list[int], device: str
) -> Section:
    head = ["Tokens", "Batch", "Baseline"]
    head += [x for T in steps for x in (f"MaskGIT T = {T}", "Speed-up")] + ["Matmul, GFLOP/s"]
    rows, exact = [], []
    for n in lengths:
        for batch in batches:
            entry = _entry(run, n, batch)
            if entry is None:
                continue
            slow = entry.metric("autoregressive_seconds")
            texts, values = [str(n), str(batch), _time(slow)], [n, batch, slow]
            for T in steps:
                fast = entry.metric(f"maskgit_seconds_T{T}")
                texts += [_time(fast), f"{number(slow / fast, 1)}x"]
                values += [fast, slow / fast]
            rate = entry.metric("matmul_gflops")
            rows.append([*texts, number(rate, 0)])
            exact.append([*values, rate])
    names = ["tokens", "batch", "autoregressive_seconds"]
    names += [x for T in steps for x in (f"maskgit_seconds_T{T}", f"speedup_T{T}")]
    table = Table(
        "runtime",
        f"**Decoding time** of one batch, median of the rounds after a warm-up, on {device}. "
        "Speed-up: the baseline's median over MaskGIT's, of the same cell.",
        head,
        rows,
        "r" * len(head),
        data=([*names, "matmul_gflops"], exact),
    )
    words = (
        "Random weights, float32, tokens only (both decode pixels with the same tokenizer). "
        "MaskGIT's first iteration is computed once a class; the baseline keeps keys and values."
    )
    figure = _figure(run, lengths, batches, steps)
    return Section("Figure 4: decoding time", [figure, table, Text(words)])


def _figure(run: Run, lengths: list[int], batches: list[int], steps: list[int]) -> Figure:
    batch = batches[-1] if batches else 1
    curves: Curves = {}
    for n in lengths:
        entry = _entry(run, n, batch)
        if entry is None:
            continue
        curves.setdefault("autoregressive", {})[n] = entry.metric("autoregressive_seconds") / batch
        for T in steps:
            value = entry.metric(f"maskgit_seconds_T{T}") / batch
            curves.setdefault(f"MaskGIT T={T}", {})[n] = value
    with house_style():
        canvas = new_canvas(11.5, 4.6)
        left, right = (
            canvas.add_axes((0.07, 0.14, 0.33, 0.76)),
            canvas.add_axes((0.59, 0.14, 0.28, 0.76)),
        )
        names = list(curves)
        _time_axes(left, curves, names, lengths)
        left.set_title("Seconds an image")
        _speedup_axes(right, curves, names, lengths)
        right.set_title("Speed-up over the baseline")
    return Figure(
        "figure4",
        "Decoding time and speed-up against the number of tokens",
        f"**Figure 4.** Left: time of one image in a batch of {batch} (both axes logarithmic). "
        "Right: the baseline's time over MaskGIT's. n=1: medians of one run on one machine.",
        canvas,
    )


def _look(name: str, names: list[str]) -> Any:
    if name == "autoregressive":
        return style_of("logarithmic", [])
    others = [other for other in names if other != "autoregressive"]
    return style_of(CURVES[others.index(name) % len(CURVES)], [])


def _time_axes(
    ax: Any, curves: Curves, names: list[str], lengths: list[int], least: float = math.inf
) -> None:
    """least: a value that the axis reaches down to."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    for name in names:
        xs, look = sorted(curves[name]), _look(name, names)
        ys = [curves[name][x] for x in xs]
        style = {"linestyle": look.dashes, "marker": look.marker, "linewidth": look.width}
        ax.plot(xs, ys, color=look.color, **style)
    low, high = ax.get_ylim()
    low = min(low, 0.95 * least)
    ax.yaxis.set_major_locator(FixedLocator(nice_ticks(low, high)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(low, high)
    _name_ends(ax, {name: curves[name][max(curves[name])] for name in names}, names)
    ax.xaxis.set_major_locator(FixedLocator(lengths))
    ax.xaxis.set_major_formatter(FixedFormatter([str(n) for n in lengths]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("tokens an image (log scale)")


def _name_ends(ax: Any, ends: dict[str, float], names: list[str]) -> None:
    """Names at the right, beside the ends of their curves but never on each other."""
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform((1.0, ends[name]))[1]) for name in names]
    gap = 14 / (ax.get_window_extent().height * 72 / DPI)
    for name, place in zip(names, spread(heights, gap, 0.02, 0.98), strict=True):
        ax.text(
            1.04,
            place,
            name,
            transform=ax.transAxes,
            color=darker(_look(name, names).color),
            fontsize=11,
            verticalalignment="center",
        )


def _speedup_axes(ax: Any, curves: Curves, names: list[str], lengths: list[int]) -> None:
    slow = curves.get("autoregressive", {})
    rates = {
        name: {n: slow[n] / value for n, value in curves[name].items()}
        for name in names
        if name != "autoregressive"
    }
    if rates:
        _time_axes(ax, rates, list(rates), lengths, least=1.0)
    ax.axhline(1, color=INK, linewidth=0.8)


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return number(seconds, 1)
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def _command(run: Run, lengths: list[int], batches: list[int], steps: list[int]) -> str:
    words = ["python experiments/runtime.py"]
    for flag, values in (("tokens", lengths), ("T", steps), ("batch-sizes", batches)):
        words.append(f"--{flag} {','.join(map(str, values))}")
    rounds = values_of(run, "rounds")
    words += [f"--rounds {rounds[0]}"] if rounds else []
    return " ".join([*words, f"--preset {run.preset}"])
