"""The report of `experiments/reconstruction.py`: Figures 9 and 10 of the paper."""

from __future__ import annotations

import math
import statistics
from typing import Any

from reports.declared import declared
from reports.figures.curves import (
    FAINT,
    Figure,
    darker,
    empty_axes,
    house_style,
    new_canvas,
    style_of,
)
from reports.figures.pictures import Strip, Tile, mask_tile, picture_grid, render
from reports.load import Run
from reports.page import Page, Section, Text
from reports.rows import Row
from reports.study import Mean, arrays, mean, pick, protocol_section, status_words
from reports.tables import Table, number
from reports.verdicts.editing import OTHER_DATA
from reports.verdicts.schedules import NOT_COMPARABLE, NOT_RUN
from reports.verdicts.tables import Knot, judge_inflection, judge_monotone, two_segments

MEASURED = {
    "psnr": ("PSNR, dB", 2),
    "between": ("PSNR between masks, dB", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "agreement": ("equal tokens", 3),
    "agreement_masked": ("equal masked tokens", 3),
}
Curve = dict[float, Mean]  # mask ratio -> mean over seeds


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    curves = {metric: _curve(run, metric) for metric in MEASURED}
    psnr = {ratio: v for ratio, v in curves["psnr"].items() if ratio > 0}
    knot = two_segments(list(psnr), [v.mean for v in psnr.values()])
    singles = _knots(run)
    sd = statistics.stdev(singles) if len(singles) > 1 else math.nan
    rules, paper = declared(), declared()["figure10"]["inflection"]
    verdict = judge_inflection(knot, sd, len(singles), rules["figure10_inflection"], paper)
    return Page(
        experiment="reconstruction",
        title=f"Reconstruction from masked tokens ({run.preset})",
        finding=_finding(run, curves, knot, sd),
        status=f"{status_words(run)} {run.protocol.get('num_images', '?')} held-out images, "
        f"{run.protocol.get('masks', '?')} masks each.",
        verdicts=[judge_monotone(curves["psnr"], rules["figure10_monotone"]), verdict],
        sections=[
            Section("Figure 10: quality against the mask ratio", _quality(run, curves, knot)),
            Section("Figure 9: examples", _examples(run)),
            protocol_section(run, _command(run)),
        ],
        facts={"knot": None if knot is None else round(knot.place, 4)},
        rows=[_row(run, knot, sd, len(singles), paper)],
    )


def _curve(run: Run, metric: str) -> Curve:
    ratios = sorted({e.cell["ratio"] for e in run.entries if e.cell.get("part") == "curve"})
    found = {ratio: mean(pick(run, part="curve", ratio=ratio), metric) for ratio in ratios}
    return {ratio: value for ratio, value in found.items() if value.n}


def _knots(run: Run) -> list[float]:
    """The knot of each seed's own curve."""
    places = []
    for seed in sorted({e.cell["seed"] for e in run.entries if e.cell.get("part") == "curve"}):
        cells = pick(run, part="curve", seed=seed)
        points = sorted((e.cell["ratio"], e.metric("psnr")) for e in cells)
        points = [(r, v) for r, v in points if r > 0 and math.isfinite(v)]
        found = two_segments([r for r, _ in points], [v for _, v in points])
        places += [found.place] if found else []
    return places


def _finding(run: Run, curves: dict[str, Curve], knot: Knot | None, sd: float) -> list[str]:
    psnr = curves["psnr"]
    if len(psnr) < 2:
        return ["No curve is there: fewer than two mask ratios were measured."]
    ratios = list(psnr)
    own = f"the tokenizer's own {psnr[0.0].words(2)} dB" if 0.0 in psnr else ""
    last = ratios[-1]
    start = own or f"{psnr[ratios[0]].words(2)} dB at {ratios[0]:g}"
    sentences = [f"PSNR goes from {start} to {psnr[last].words(2)} dB with {_share(last)} masked."]
    if knot is not None:
        spread = f" ± {number(sd, 2)}" if math.isfinite(sd) else ""
        sentences.append(
            f"Two straight segments fit it best with a knot at {number(knot.place, 2)}{spread} "
            f"(the paper sees one near 0.9): {number(knot.before / 10, 2)} dB per tenth masked "
            f"before it, {number(knot.after / 10, 2)} after."
        )
    masked = curves["agreement_masked"]
    if masked:
        low, high = min(masked), max(masked)
        sentences.append(
            f"Of the masked tokens {_share(masked[low].mean)} come back the same with "
            f"{_share(low)} masked, {_share(masked[high].mean)} with {_share(high)}."
        )
    return sentences


def _share(value: float) -> str:
    return f"{100 * value:.3g}%"


def _row(run: Run, knot: Knot | None, sd: float, seeds: int, paper: float) -> Row:
    what = "Figure 10: mask ratio of the inflection"
    n = int(run.protocol.get("num_images", 0))
    if knot is None:
        why = "fewer than six mask ratios"
        return Row(what, paper, math.nan, math.nan, 0, 0, NOT_RUN, why)
    same = run.preset.startswith("imagenet")
    why = "the paper reads it off a curve" if same else OTHER_DATA
    return Row(what, paper, knot.place, sd, n, seeds, NOT_COMPARABLE, why, compared=same)


# ---- Figure 10 ----------------------------------------------------------------------------------


def _quality(run: Run, curves: dict[str, Curve], knot: Knot | None) -> list[Any]:
    rows, exact = [], []
    ratios = sorted({ratio for curve in curves.values() for ratio in curve})
    shown = {m: told for m, told in MEASURED.items() if curves[m]}
    nothing = Mean(math.nan, math.nan, 0)
    for ratio in ratios:
        values = [(curves[m].get(ratio, nothing), told[1]) for m, told in shown.items()]
        n = max(v.n for v, _ in values)
        rows.append([f"{ratio:g}", *(v.words(digits) for v, digits in values), str(n)])
        exact.append([ratio, *(x for v, _ in values for x in (v.mean, v.sd)), n])
    head = ["Mask ratio", *(told[0] for told in shown.values()), "n"]
    names = ["ratio", *(x for m in shown for x in (m, f"{m}_sd")), "n"]
    table = Table(
        "figure10",
        "**Figure 10 in numbers.** Means over images and masks, ± standard deviation over n seeds. "
        "At ratio 0 nothing is masked: the tokenizer's own reconstruction. PSNR between masks: "
        "between reconstructions of one image from two masks, high where they agree.",
        head,
        rows,
        "r" * len(head),
        data=(names, exact),
    )
    T = run.protocol.get("steps", "?")
    words = (
        f"round(r N) of the N tokens are masked at random and decoded in T = {T} iterations, as "
        "in the paper's appendix A. The knot is that of the continuous line of two segments with "
        "the least squared error through the mean PSNR of all ratios above 0."
    )
    blocks: list[Any] = [_figure10(run, curves, knot), Text(words), table]
    cells = pick(run, part="curve")
    reasons = {
        f"{MEASURED[m][0]}: {e.why_missing(m)}" for m in MEASURED if not curves[m] for e in cells
    }
    return blocks + ([Text("Missing:", sorted(reasons))] if reasons else [])


def _figure10(run: Run, curves: dict[str, Curve], knot: Knot | None) -> Figure:
    right = "lpips" if curves["lpips"] else "ssim"
    with house_style():
        canvas = new_canvas(11.5, 4.6)
        axes = [canvas.add_axes((x, 0.14, 0.36, 0.76)) for x in (0.05, 0.57)]
        _panel(axes[0], [("psnr", "to the original"), ("between", "between masks")], curves)
        axes[0].set_title("PSNR, dB")
        if knot is not None:
            ratios = [r for r in sorted(curves["psnr"]) if r > 0]
            xs = sorted({ratios[0], knot.place, ratios[-1]})
            look: dict[str, Any] = {"color": style_of("logarithmic", []).color, "zorder": 5}
            axes[0].plot(xs, [knot.at(x) for x in xs], linestyle=(0, (4, 2)), linewidth=1.3, **look)
            axes[0].annotate(
                f"knot at {knot.place:.2f}",
                (knot.place, knot.value),
                xytext=(-8, -26),
                textcoords="offset points",
                horizontalalignment="right",
                fontsize=11,
                color=darker(style_of("logarithmic", []).color),
                arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8},
            )
        _panel(axes[1], [(right, MEASURED[right][0]), ("agreement", "equal tokens")], curves)
        axes[1].set_title(f"{MEASURED[right][0]} and the share of equal tokens")
    n = max((v.n for v in curves["psnr"].values()), default=0)
    bars = f"bars: sd over {n} seeds" if n > 1 else "n=1, so no error bars"
    return Figure(
        "figure10",
        "Quality of reconstructions against the share of masked tokens",
        f"**Figure 10.** Means over held-out images and masks; {bars}. Dashed: the two segments.",
        canvas,
    )


def _panel(ax: Any, wanted: list[tuple[str, str]], curves: dict[str, Curve]) -> None:
    shown = [(metric, words) for metric, words in wanted if curves[metric]]
    if not shown:
        empty_axes(ax, "nothing was measured")
        return
    starts = [next(iter(curves[metric].values())).mean for metric, _ in shown]
    for (metric, words), name in zip(shown, ("cosine", "sqrt"), strict=False):
        curve, look = curves[metric], style_of(name, [])
        xs = list(curve)
        ys = [curve[x].mean for x in xs]
        bars = [v.sd if math.isfinite(v.sd) else 0.0 for v in curve.values()]
        ax.plot(
            xs,
            ys,
            color=look.color,
            linestyle=look.dashes,
            marker=look.marker,
            markersize=4.5,
            linewidth=1.6,
        )
        if any(bars):
            ax.errorbar(xs, ys, bars, linestyle="none", capsize=2, color=look.color, elinewidth=1)
        # The highest is named where it starts, the other where it ends: curves may begin together.
        first = ys[0] == max(starts)
        ax.annotate(
            words,
            (xs[0], ys[0]) if first else (xs[-1], ys[-1]),
            xytext=(8, 9) if first else (12, 0),
            textcoords="offset points",
            verticalalignment="bottom" if first else "center",
            annotation_clip=False,
            fontsize=11,
            color=darker(look.color),
        )
    ax.set_xlim(-0.02, 1.02)
    ax.margins(y=0.14)
    ax.set_xlabel("mask ratio: share of masked tokens")


# ---- Figure 9 -----------------------------------------------------------------------------------


def _examples(run: Run) -> list[Any]:
    stored = {
        entry.cell["ratio"]: arrays(entry)
        for entry in sorted(pick(run, part="median"), key=lambda e: -e.cell["ratio"])
    }
    names = {"originals", "masks", "samples", "medians"}
    stored = {ratio: found for ratio, found in stored.items() if names <= set(found)}
    if not stored:
        return [Text("No example is there.")]
    first = next(iter(stored.values()))
    samples = run.protocol.get("samples", "?")
    strips = []
    for i in range(len(first["originals"])):
        size = render(Tile(first["originals"][i])).shape[0]
        tiles = {
            "original": [Tile(f["originals"][i]) for f in stored.values()],
            "known tokens": [Tile(mask_tile(f["masks"][i], size)) for f in stored.values()],
            "sample": [Tile(f["samples"][i]) for f in stored.values()],
            f"median of {samples}": [Tile(f["medians"][i]) for f in stored.values()],
        }
        strips += [Strip(name, row) for name, row in tiles.items()]
        strips[-1] = Strip(strips[-1].label, strips[-1].tiles, below=14)
    figure = picture_grid(
        "figure9",
        "Reconstructions from few tokens, and the median over many masks",
        "**Figure 9.** From above: a held-out image, which of its tokens are known (dark), one "
        f"reconstruction from them, and the pixelwise median of {samples} reconstructions, each "
        "from a mask of its own. The first held-out image of a class, not chosen by hand.",
        strips,
        [f"{_share(ratio)} masked" for ratio in stored],
    )
    return [figure]


def _command(run: Run) -> str:
    cells = [e.cell for e in run.entries if e.cell.get("part") == "curve"]
    ratios = sorted({cell["ratio"] for cell in cells})
    seeds = sorted({cell["seed"] for cell in cells})
    words = ["python experiments/reconstruction.py"]
    words.append(f"--ratios {','.join(f'{ratio:g}' for ratio in ratios)}")
    words.append(f"--seeds {','.join(map(str, seeds))}")
    words += [
        f"--{flag} {run.protocol[name]}"
        for flag, name in (
            ("num-samples", "num_images"),
            ("masks", "masks"),
            ("steps", "steps"),
            ("samples", "samples"),
        )
        if name in run.protocol
    ]
    return " ".join([*words, f"--preset {run.preset}"])
