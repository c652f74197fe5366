"""The report of `experiments/rejection_sampling.py`: Table 4 of the paper, and FID against IS."""

from __future__ import annotations

import math
from typing import Any

from reports.declared import declared
from reports.figures.curves import Figure, darker, empty_axes, house_style, new_canvas, style_of
from reports.figures.pictures import Strip, Tile, picture_grid
from reports.load import Run
from reports.page import Page, Section, Text
from reports.pages.table_rows import fid_note, printed
from reports.rows import Row
from reports.study import Mean, arrays, mean, protocol_section, status_words, values_of
from reports.tables import DASH, Table
from reports.verdicts.editing import number_row, percent
from reports.verdicts.tables import judge_rejection_fid, judge_rejection_is

MEASURED = {"fid": "FID ↓", "is": "IS ↑", "precision": "Precision ↑", "recall": "Recall ↑"}
NAMES = ("the first", "the surest", "the least sure")


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    rates = sorted({r for e in run.entries for r in e.cell.get("rates", [])}, reverse=True)
    fids = {rate: value(run, "fid", rate) for rate in rates}
    scores = {rate: value(run, "is", rate) for rate in rates}
    rules, judge = declared(), _judge(run)
    return Page(
        experiment="rejection_sampling",
        title=f"Rejection sampling ({run.preset})",
        finding=_finding(run, fids, scores),
        status=f"{status_words(run)} {run.protocol.get('num_samples', '?')} samples kept a rate.",
        verdicts=[
            judge_rejection_is(scores, rules["table4_is"], why(run, "is", rates), judge),
            judge_rejection_fid(fids, rules["table4_fid"], why(run, "fid", rates), judge),
        ],
        sections=[
            _table4(run, rates),
            Section("FID against IS", [_figure(run, rates, fids, scores)]),
            _pictures(run),
            protocol_section(run, _command(run, rates)),
        ],
        facts={f"{rate:g}": _facts(run, rate) for rate in rates},
        rows=_rows(run, rates),
    )


def value(run: Run, metric: str, rate: float) -> Mean:
    """Mean over seeds of a metric at a rate."""
    return mean(run.with_status("done"), f"{metric}@{rate:g}")


def why(run: Run, metric: str, rates: list[float]) -> str:
    """Why there is no value of a metric; empty if there is."""
    for entry in run.entries:
        for rate in rates:
            name = f"{metric}@{rate:g}"
            if not math.isfinite(entry.metric(name)):
                return entry.why_missing(name) if entry.status == "done" else entry.reason
    return ""


def _facts(run: Run, rate: float) -> dict[str, float]:
    found = {metric: value(run, metric, rate) for metric in (*MEASURED, "drawn")}
    return {metric: round(v.mean, 4) for metric, v in found.items() if v.n}


def _finding(run: Run, fids: dict[float, Mean], scores: dict[float, Mean]) -> list[str]:
    there = [rate for rate in fids if fids[rate].n and scores[rate].n]
    if len(there) < 2:
        reason = why(run, "fid", list(fids))
        return ["No two rates can be compared" + (f": {reason}." if reason else ".")]
    first, last = there[0], there[-1]
    best = min(there, key=lambda rate: fids[rate].mean)
    drawn = value(run, "drawn", last).mean / int(run.protocol["num_samples"])
    return [
        f"From acceptance rate {first:g} to {last:g} IS goes from {scores[first].words(2)} to "
        f"{scores[last].words(2)} and FID from {fids[first].words(2)} to {fids[last].words(2)}; "
        f"FID is lowest at {best:g}.",
        f"A sample kept at {last:g} costs {drawn:.3g} that are drawn.",
    ]


def _table4(run: Run, rates: list[float]) -> Section:
    rows: list[list[str]] = []
    exact: list[list[object]] = []
    kept = int(run.protocol.get("num_samples", 0))
    T = run.protocol.get("steps", "?")
    for rate in rates:
        found = {metric: value(run, metric, rate) for metric in MEASURED}
        drawn, own = value(run, "drawn", rate), value(run, "own", rate)
        told = [v.words(2) for v in found.values()]
        sure = percent(own.mean) if own.n else DASH
        count = str(int(drawn.mean)) if drawn.n else DASH
        n = max(v.n for v in found.values())
        name = f"MaskGIT, T = {T}, acceptance {rate:g}"
        rows.append([name, *told, str(kept), count, sure, str(n or DASH)])
        exact.append([rate, "ours", kept, drawn.mean, own.mean, n])
        exact[-1] += [x for v in found.values() for x in (v.mean, v.sd)]
    paper = declared()["table4"]
    wanted = paper["resolution"].get(run.preset)
    for row in paper["rows"]:
        if wanted in (None, row["resolution"]):
            name = f"{row['model']} {row['resolution']}, {row['guidance']}, paper's value"
            told = [printed(row, metric, 2) for metric in MEASURED]
            rows.append([name, *told, DASH, DASH, DASH, DASH])
            exact.append(
                [row["guidance"], f"{row['model']} {row['resolution']}, paper", *[None] * 4]
            )
            exact[-1] += [x for m in MEASURED for x in (row.get(m), None)]
    classifier = _classifier(run)
    caption = (
        f"**Table 4.** Of each class the samples that {classifier} is surest of, on the features "
        f"of {run.protocol.get('features', '?')}. Kept: samples measured; drawn: made for them. "
        "Sure: mean probability of the own class among the kept. Ours: mean ± standard deviation "
        "over n seeds." + ("" if wanted else " The paper's values are of ImageNet, not comparable.")
    )
    head = ["Sampling", *MEASURED.values(), "Kept", "Drawn", "Sure", "n"]
    names = ["rate", "source", "kept", "drawn", "own_probability", "n"]
    names += [x for m in MEASURED for x in (m, f"{m}_sd")]
    table = Table("table4", caption, head, rows, "lrrrrrrrr", data=(names, exact))
    blocks: list[Text | Table | Figure] = [table, Text(fid_note(run))]
    if _judge(run):
        words = (
            f"Caveat: {classifier} chooses the samples and measures them. Its own Inception Score "
            "rises by construction, and its FID may flatter or punish the choice; "
            "`--classifier` takes another network."
        )
        blocks.append(Text(words))
    reasons = sorted({r for metric in MEASURED if (r := why(run, metric, rates))})
    blocks += [Text("Missing:", reasons)] if reasons else []
    return Section("Table 4", blocks)


def _classifier(run: Run) -> str:
    names = values_of(run, "classifier")
    return str(names[0]) if names else "the classifier"


def _judge(run: Run) -> str:
    """The classifier where it is also the network that measures, else empty."""
    name = _classifier(run)
    return name if name in str(run.protocol.get("features", "")).split(", ") else ""


def _figure(
    run: Run, rates: list[float], fids: dict[float, Mean], scores: dict[float, Mean]
) -> Figure:
    look = style_of("cosine", [])
    there = [rate for rate in rates if fids[rate].n and scores[rate].n]
    with house_style():
        canvas = new_canvas(7.6, 5.2)
        ax = canvas.add_axes((0.1, 0.12, 0.85, 0.8))
        if not there:
            empty_axes(ax, why(run, "fid", rates) or "no rate was measured")
        else:
            xs, ys = [scores[r].mean for r in there], [fids[r].mean for r in there]
            bars = [
                [v.sd if math.isfinite(v.sd) else 0.0 for v in (found[r] for r in there)]
                for found in (scores, fids)
            ]
            ax.plot(xs, ys, color=look.color, marker="o", linewidth=1.6, markersize=5.5)
            if any(map(any, bars)):
                style: dict[str, Any] = {"linestyle": "none", "capsize": 2.5, "elinewidth": 1.1}
                ax.errorbar(xs, ys, bars[1], bars[0], color=style_of("sqrt", []).color, **style)
            _labels(ax, there, xs, ys)
            ax.margins(0.16, 0.2)
        ax.set_xlabel("Inception Score")
        ax.set_title("FID")
    n = max((fids[rate].n for rate in there), default=0)
    bars_words = f"bars: sd over {n} seeds" if n > 1 else "n=1, so no error bars"
    return Figure(
        "figure_tradeoff",
        "FID against Inception Score at falling acceptance rates",
        "**FID against IS.** A point is an acceptance rate; lower and further to the right is "
        f"better; {bars_words}.",
        canvas,
    )


def _labels(ax: Any, rates: list[float], xs: list[float], ys: list[float]) -> None:
    # On the side where the curve does not go: above where it turns upwards, else below.
    for i, rate in enumerate(rates):
        near = [ys[j] for j in (i - 1, i + 1) if 0 <= j < len(ys)]
        below = not near or sum(near) / len(near) >= ys[i]
        ax.annotate(
            f"{rate:g}" if i else f"acceptance {rate:g}",
            (xs[i], ys[i]),
            xytext=(7, -15 if below else 9),
            textcoords="offset points",
            color=darker(style_of("sqrt", []).color),
            fontsize=11,
        )


def _pictures(run: Run) -> Section:
    for entry in run.with_status("done"):
        stored = arrays(entry)
        if not {"images", "labels", "probability"} <= set(stored):
            continue
        strips = [
            Strip(
                name,
                [
                    Tile(image, words=f"{probability:.2f}")
                    for image, probability in zip(images, chances, strict=True)
                ],
            )
            for name, images, chances in zip(
                NAMES, stored["images"], stored["probability"], strict=True
            )
        ]
        names = run.protocol.get("class_names", [])
        heads = [str(names[c]) if c < len(names) else f"class {c}" for c in stored["labels"]]
        figure = picture_grid(
            "figure_rejected",
            "Samples that the classifier is surest and least sure of",
            f"**What is kept and what is not.** The first sample of each class, the one that "
            f"{_classifier(run)} is surest of among all drawn, and the one it is least sure of; "
            f"below each its probability of the class. Seed {entry.cell['seed']}.",
            strips,
            heads,
        )
        return Section("What is kept", [figure])
    return Section("What is kept", [Text("No samples are there.")])


def _rows(run: Run, rates: list[float]) -> list[Row]:
    paper = declared()["table4"]
    resolution = paper["resolution"].get(run.preset, 256)
    row = next(r for r in paper["rows"] if (r["model"], r["resolution"]) == ("MaskGIT", resolution))
    rate = paper["rate"]
    return [
        number_row(
            f"Table 4, MaskGIT {resolution} at {rate:g}: {name}",
            row[metric],
            value(run, metric, rate),
            samples=int(run.protocol.get("num_samples", 0)),
            same_preset=run.preset in paper["resolution"],
            rule=paper,
            why=why(run, metric, [rate]) if rate in rates else f"rate {rate:g} was not asked for",
        )
        for metric, name in (("fid", "FID"), ("is", "IS"))
    ]


def _command(run: Run, rates: list[float]) -> str:
    words = ["python experiments/rejection_sampling.py"]
    words.append(f"--rates {','.join(f'{rate:g}' for rate in rates)}")
    words.append(f"--seeds {','.join(map(str, values_of(run, 'seed')))}")
    words.append(f"--num-samples {run.protocol.get('num_samples', '?')}")
    words.append(f"--steps {run.protocol.get('steps', '?')} --classifier {_classifier(run)}")
    return " ".join([*words, f"--preset {run.preset}"])
