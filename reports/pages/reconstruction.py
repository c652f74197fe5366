"""The report of `experiments/reconstruction.py`: Figures 9 and 10 of the paper."""

from __future__ import annotations

from typing import Any

from reports.figures.curves import draw_curve, empty_axes
from reports.figures.pictures import Strip, Tile, mask_tile, picture_grid, render
from reports.figures.style import FAINT, Figure, darker, house_style, new_canvas, style_of
from reports.load import Run
from reports.means import NOTHING, Mean
from reports.page import Page
from reports.pages.tokenizer import tokenizer_table
from reports.paper import paper_values
from reports.tables import MEAN_SD, Column, Table
from reports.verdicts.reconstruction import (
    Knot,
    inflection_number,
    judge_inflection,
    judge_monotone,
    two_segments,
)

MEASURED = {
    "psnr": ("PSNR, dB", 2),
    "between": ("PSNR between masks, dB", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "agreement": ("equal tokens", 3),
    "agreement_masked": ("equal masked tokens", 3),
}
EXAMPLES = ("originals", "masks", "samples", "medians")
Curve = dict[float, Mean]  # mask ratio -> mean over seeds


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    curves = {metric: run.means(metric, "ratio", part="curve") for metric in MEASURED}
    knot = _knot(curves["psnr"])
    seeds = run.values_of("seed", part="curve")
    own = [_knot(run.means("psnr", "ratio", part="curve", seed=seed)) for seed in seeds]
    singles = Mean.of(found.place for found in own if found)
    rules, paper = paper_values(), paper_values()["figure10"]
    count, same = run.count("num_images"), run.preset in paper["presets"]
    cells = run.asked(part="curve")
    return Page(
        experiment="reconstruction",
        run=run,
        verdicts=[
            judge_monotone(curves["psnr"], rules["figure10_monotone"]),
            judge_inflection(knot, singles, rules["figure10_inflection"], paper["inflection"]),
        ],
        numbers=[inflection_number(knot, singles, paper["inflection"], samples=count, same=same)],
        facts={"knot": None if knot is None else round(knot.place, 4)},
        values={
            "psnr": curves["psnr"],
            "masked": curves["agreement_masked"],
            "knot": knot,
            "place": Mean(knot.place, singles.sd, singles.n) if knot else NOTHING,
            "figure10": _figure10(curves, knot),
            "table": _table(curves),
            "seeds": max((value.n for value in curves["psnr"].values()), default=0),
            "absent": sorted(
                {
                    f"{label}: {entry.why_missing(metric)}"
                    for metric, (label, _) in MEASURED.items()
                    for entry in cells
                    if not curves[metric]
                }
            ),
            "figure9": _figure9(run),
            "tokenizer": tokenizer_table(run),
        },
    )


def _knot(curve: Curve) -> Knot | None:
    """Where two segments meet best; without ratio 0, at which nothing is masked."""
    points = {ratio: value.mean for ratio, value in curve.items() if ratio > 0}
    return two_segments(list(points), list(points.values()))


def _table(curves: dict[str, Curve]) -> Table:
    shown = {metric: curve for metric, curve in curves.items() if curve}
    rows = []
    for ratio in sorted({ratio for curve in shown.values() for ratio in curve}):
        values = {metric: curve.get(ratio, NOTHING) for metric, curve in shown.items()}
        rows.append({"ratio": ratio, "n": max(v.n for v in values.values()), **values})
    columns = [Column("ratio", "Mask ratio", text=lambda ratio: f"{ratio:g}")]
    for metric in shown:
        label, digits = MEASURED[metric]
        columns.append(Column(metric, label, digits, parts=MEAN_SD))
    return Table("figure10", [*columns, Column("n", "n")], rows)


def _figure10(curves: dict[str, Curve], knot: Knot | None) -> Figure:
    right = "lpips" if curves["lpips"] else "ssim"
    label = MEASURED[right][0]
    with house_style():
        canvas = new_canvas(11.5, 4.6)
        axes = [canvas.add_axes((x, 0.14, 0.36, 0.76)) for x in (0.05, 0.57)]
        _panel(axes[0], {"psnr": "to the original", "between": "between masks"}, curves)
        axes[0].set_title("PSNR, dB")
        _panel(axes[1], {right: label, "agreement": "equal tokens"}, curves)
        axes[1].set_title(f"{label} and the share of equal tokens")
        if knot is not None:
            _draw_knot(axes[0], knot, [ratio for ratio in curves["psnr"] if ratio > 0])
    alt = "Quality of reconstructions against the share of masked tokens"
    return Figure("figure10", alt, canvas)


def _draw_knot(ax: Any, knot: Knot, ratios: list[float]) -> None:
    color = style_of("logarithmic").color
    xs = sorted({min(ratios), knot.place, max(ratios)})
    line = {"color": color, "linestyle": (0, (4, 2)), "linewidth": 1.3, "zorder": 5}
    ax.plot(xs, [knot.at(x) for x in xs], **line)
    ax.annotate(
        f"knot at {knot.place:.2f}",
        (knot.place, knot.value),
        xytext=(-8, -26),
        textcoords="offset points",
        horizontalalignment="right",
        fontsize=11,
        color=darker(color),
        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8},
    )


def _panel(ax: Any, wanted: dict[str, str], curves: dict[str, Curve]) -> None:
    shown = {metric: words for metric, words in wanted.items() if curves[metric]}
    if not shown:
        empty_axes(ax, "nothing was measured")
        return
    highest = max(next(iter(curves[metric].values())).mean for metric in shown)
    for (metric, words), name in zip(shown.items(), ("cosine", "sqrt"), strict=False):
        style, xs, ys = style_of(name), list(curves[metric]), list(curves[metric].values())
        draw_curve(ax, xs, ys, style)
        # The highest is named where it starts, the other where it ends: curves may begin together.
        first = ys[0].mean == highest
        ax.annotate(
            words,
            (xs[0], ys[0].mean) if first else (xs[-1], ys[-1].mean),
            xytext=(8, 9) if first else (12, 0),
            textcoords="offset points",
            verticalalignment="bottom" if first else "center",
            annotation_clip=False,
            fontsize=11,
            color=darker(style.color),
        )
    ax.set_xlim(-0.02, 1.02)
    ax.margins(y=0.14)
    ax.set_xlabel("mask ratio: share of masked tokens")


def _figure9(run: Run) -> Figure | None:
    cells = sorted(run.pick(part="median"), key=lambda entry: -entry.cell["ratio"])
    stored = {entry.cell["ratio"]: entry.arrays(*EXAMPLES) for entry in cells}
    stored = {ratio: found for ratio, found in stored.items() if found}
    if not stored:
        return None
    strips = []
    for i, original in enumerate(next(iter(stored.values()))["originals"]):
        size = render(Tile(original)).shape[0]
        rows = {
            "original": [Tile(f["originals"][i]) for f in stored.values()],
            "known tokens": [Tile(mask_tile(f["masks"][i], size)) for f in stored.values()],
            "sample": [Tile(f["samples"][i]) for f in stored.values()],
            f"median of {run.told('samples')}": [Tile(f["medians"][i]) for f in stored.values()],
        }
        strips += [Strip(name, row) for name, row in rows.items()]
        strips[-1] = Strip(strips[-1].label, strips[-1].tiles, below=14)
    heads = [f"{100 * ratio:.3g}% masked" for ratio in stored]
    alt = "Reconstructions from few tokens, and the median over many masks"
    return picture_grid("figure9", alt, strips, heads)
