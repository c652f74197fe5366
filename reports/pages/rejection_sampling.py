"""The report of `experiments/rejection_sampling.py`: Table 4 of the paper, and FID against IS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.figures.curves import draw_curve, empty_axes
from reports.figures.pictures import Strip, Tile, picture_grid
from reports.figures.style import Figure, darker, house_style, new_canvas, style_of
from reports.load import Run
from reports.means import NOTHING, Mean, percent
from reports.page import Page
from reports.paper import paper_values
from reports.tables import Column, Table
from reports.verdicts.numbers import judge_number
from reports.verdicts.tables import judge_rejection_fid, judge_rejection_is

METRICS = ("fid", "is", "precision", "recall")
PICTURES = ("the first", "the surest", "the least sure")
Values = dict[str, dict[float, Mean]]  # metric -> acceptance rate -> mean over seeds


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    rates = sorted({r for e in run.entries for r in e.cell.get("rates", [])}, reverse=True)
    metrics = run.asked_metrics(METRICS, ("drawn", "own"))
    values: Values = {}
    for metric in dict.fromkeys((*METRICS, *metrics, "drawn", "own")):
        found = run.means(metric, "at")
        values[metric] = {rate: found.get(rate, NOTHING) for rate in rates}
    classifiers = run.values_of("classifier")
    classifier = str(classifiers[0]) if classifiers else "the classifier"
    networks = str(run.protocol.get("features", "")).split(", ")
    judge = classifier if classifier in networks else ""  # where it also measures
    why = {metric: _why(run, metric, rates) for metric in metrics}
    rules, paper = paper_values(), paper_values()["table4"]
    resolution, rate = paper["resolution"].get(run.preset, 256), paper["rate"]
    printed = {(row["model"], row["resolution"]): row for row in paper["rows"]}
    there = [rate for rate in rates if values["fid"][rate].n and values["is"][rate].n]
    return Page(
        experiment="rejection_sampling",
        run=run,
        verdicts=[
            judge_rejection_is(values["is"], rules["table4_is"], why.get("is", ""), judge),
            judge_rejection_fid(values["fid"], rules["table4_fid"], why.get("fid", ""), judge),
        ],
        numbers=[
            judge_number(
                f"Table 4, MaskGIT {resolution} at {rate:g}: {run.label(metric)}",
                printed["MaskGIT", resolution][metric],
                values[metric].get(rate, NOTHING),
                samples=run.count(),
                same_preset=run.preset in paper["resolution"],
                rule=paper,
                why=_why(run, metric, [rate])
                if rate in rates
                else f"rate {rate:g} was not asked for",
            )
            for metric in ("fid", "is")
        ],
        facts={
            f"{rate:g}": {
                metric: round(values[metric][rate].mean, 4)
                for metric in (*metrics, "drawn")
                if values[metric][rate].n
            }
            for rate in rates
        },
        values={
            "there": there,
            "best": min(there, key=lambda rate: values["fid"][rate].mean, default=None),
            "means": values,
            "why": why,
            "classifier": classifier,
            "judge": judge,
            "table4": _table4(run, values, metrics),
            "comparable": run.preset in paper["resolution"],
            "tradeoff": _tradeoff(values, there, why.get("fid", "")),
            "seeds": max((values["fid"][rate].n for rate in there), default=0),
            "kept": _kept(run),
            "first_seed": run.values_of("seed")[:1],
        },
    )


def _why(run: Run, metric: str, rates: list[float]) -> str:
    """Why there is no value of a metric at one of the rates; empty if there is."""
    return next(filter(None, (run.why(f"{metric}@{rate:g}") for rate in rates)), "")


def _table4(run: Run, values: Values, metrics: Sequence[str]) -> Table:
    rows: list[dict[str, Any]] = [
        {
            "name": f"MaskGIT, T = {run.told('steps')}, acceptance {rate:g}",
            "rate": rate,
            "source": "ours",
            "kept": run.count(),
            **{metric: found[rate] for metric, found in values.items()},
            "own_probability": values["own"][rate],
            "n": max(found[rate].n for found in values.values()) or None,
        }
        for rate in values["fid"]
    ]
    paper = paper_values()["table4"]
    wanted = paper["resolution"].get(run.preset)
    for row in paper["rows"]:
        if wanted in (None, row["resolution"]):
            model = f"{row['model']} {row['resolution']}"
            name = f"{model}, {row['guidance']}, paper's value"
            source = {"rate": row["guidance"], "source": f"{model}, paper"}
            rows.append({**row, **source, "name": name})
    columns = [
        Column("name", "Sampling", align="l", in_csv=False),
        *map(Column, ("rate", "source")),
        *(run.column(metric) for metric in metrics),
        Column("kept", "Kept"),
        Column("drawn", "Drawn", text=lambda value: str(int(value.mean))),
        Column("own_probability", "Sure", text=lambda value: percent(value.mean)),
        Column("n", "n"),
    ]
    return Table("table4", columns, rows)


def _tradeoff(values: Values, rates: list[float], why: str) -> Figure:
    with house_style():
        canvas = new_canvas(7.6, 5.2)
        ax = canvas.add_axes((0.1, 0.12, 0.85, 0.8))
        if rates:
            fids, scores = ([values[m][rate] for rate in rates] for m in ("fid", "is"))
            xs = [score.mean for score in scores]
            draw_curve(ax, xs, fids, style_of("cosine"))
            if any(bars := [score.bar for score in scores]):
                bar: dict[str, Any] = {
                    "linestyle": "none",
                    "capsize": 2.5,
                    "elinewidth": 1.1,
                    "color": "black",
                }
                ax.errorbar(xs, [fid.mean for fid in fids], xerr=bars, **bar)
            _name_rates(ax, rates, xs, [fid.mean for fid in fids])
            ax.margins(0.16, 0.2)
        else:
            empty_axes(ax, why or "no rate was measured")
        ax.set_xlabel("Inception Score")
        ax.set_title("FID")
    alt = "FID against Inception Score at falling acceptance rates"
    return Figure("figure_tradeoff", alt, canvas)


def _name_rates(ax: Any, rates: list[float], xs: list[float], ys: list[float]) -> None:
    # On the side where the curve does not go: above where it turns upwards, else below.
    for i, rate in enumerate(rates):
        near = [ys[j] for j in (i - 1, i + 1) if 0 <= j < len(ys)]
        below = not near or sum(near) / len(near) >= ys[i]
        ax.annotate(
            f"{rate:g}" if i else f"acceptance {rate:g}",
            (xs[i], ys[i]),
            xytext=(7, -15 if below else 9),
            textcoords="offset points",
            color=darker(style_of("sqrt").color),
            fontsize=11,
        )


def _kept(run: Run) -> Figure | None:
    cells = [e.arrays("images", "labels", "probability") for e in run.with_status("done")]
    stored = next(filter(None, cells), None)
    if stored is None:
        return None
    strips = [
        Strip(name, [Tile(i, words=f"{p:.2f}") for i, p in zip(images, chances, strict=True)])
        for name, images, chances in zip(
            PICTURES, stored["images"], stored["probability"], strict=True
        )
    ]
    heads = [run.class_name(c) for c in stored["labels"].tolist()]
    alt = "Samples that the classifier is surest and least sure of"
    return picture_grid("figure_rejected", alt, strips, heads)
