"""The report of `experiments/panorama.py`: Figure 15 of the paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports.declared import declared
from reports.figures.curves import Figure, darker, house_style, new_canvas, style_of
from reports.figures.pictures import Strip, Tile, picture_grid
from reports.load import Run
from reports.page import Page, Section, Text
from reports.rows import Row
from reports.study import arrays, mean, pick, protocol_section, status_words, values_of
from reports.tables import Table, number
from reports.verdicts.editing import judge_seams
from reports.verdicts.schedules import NOT_RUN

if TYPE_CHECKING:
    import numpy as np

ACROSS = 8  # widths of the input in one row of pictures


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    factors = [f for f in values_of(run, "factor") if mean(pick(run, factor=f), "ratio").n]
    widest = factors[-1] if factors else None
    ratio = mean(pick(run, factor=widest) if factors else [], "ratio")
    verdict = judge_seams(ratio, widest, declared()["figure15_rule"])
    row = Row(
        f"Figure 15, {widest or '?'} times the width: change across seams against beside them",
        math.nan,
        ratio.mean,
        ratio.sd,
        int(run.protocol.get("num_images", 0)),
        ratio.n,
        verdict.verdict,
        "no panorama" if verdict.verdict == NOT_RUN else "the paper has pictures only",
    )
    return Page(
        experiment="panorama",
        title=f"Panoramas ({run.preset})",
        finding=_finding(run, factors),
        status=f"{status_words(run)} {run.protocol.get('num_images', '?')} images a cell.",
        verdicts=[verdict],
        sections=[
            Section("Figure 15: outpainting to both sides", _pictures(run, factors)),
            Section("Seams", _seams(run, factors)),
            protocol_section(run, _command(run)),
        ],
        facts={"ratio": {str(f): mean(pick(run, factor=f), "ratio").mean for f in factors}},
        rows=[row],
    )


def _finding(run: Run, factors: list[int]) -> list[str]:
    parts = []
    for factor in factors:
        cells = pick(run, factor=factor)
        seams, beside = mean(cells, "seams"), mean(cells, "seams_beside")
        parts.append(
            f"at {factor} times the width neighbouring columns differ by {number(seams.mean, 1)} "
            f"grey levels where windows meet and by {number(beside.mean, 1)} beside that "
            f"({number(mean(cells, 'ratio').mean, 2)} times as much)"
        )
    if not parts:
        return ["No panorama is there."]
    text = "; ".join(parts)
    sentences = [f"{text[0].upper()}{text[1:]}."]
    if run.preset == "embedded":
        sentences.append(
            "The images of this data set show one object on an empty ground, so that a panorama "
            "of them repeats it: the mechanism is tested here, not the beauty."
        )
    return sentences


def _pictures(run: Run, factors: list[int]) -> list[Text | Table | Figure]:
    blocks: list[Text | Table | Figure] = []
    for factor in factors:
        stored = [found for entry in pick(run, factor=factor) if (found := arrays(entry))]
        if not stored:
            continue
        left, side = int(stored[0]["left"]), stored[0]["images"].shape[1]
        images = stored[0]["images"]
        box, row = _input_box(images[0], left, side), max(1, ACROSS // factor)
        tiles = [Tile(image, box=box if i == 0 else None) for i, image in enumerate(images)]
        strips = [Strip("", tiles[i : i + row]) for i in range(0, len(tiles), row)]
        words = (
            f"**Figure 15**, {factor} times the width. The outlined middle of the first is the "
            "input's place, the same in all; the rest was outpainted window by window. Not chosen "
            "by hand: the first held-out image of each class shown."
        )
        alt = f"Held-out images outpainted sideways to {factor} times their width"
        blocks.append(picture_grid(f"figure15_{factor}x", alt, words, strips, left=8, gap=24))
    return blocks or [Text("No pictures were stored with these cells.")]


def _input_box(image: np.ndarray, left: int, side: int) -> np.ndarray:
    import numpy as np

    box = np.zeros(image.shape[:2], bool)
    box[:, left : left + side] = True
    return box


def _seams(run: Run, factors: list[int]) -> list[Text | Table | Figure]:
    names = {
        "seams": "windows meet",
        "seams_beside": "beside",
        "ratio": "ratio",
        "tokens": "other token boundaries",
        "tokens_beside": "beside",
        "tokens_ratio": "ratio",
    }
    rows, exact = [], []
    for factor in factors:
        found = {name: mean(pick(run, factor=factor), name) for name in names}
        rows.append([f"{factor}x", *(found[m].words(2) for m in names), str(found["ratio"].n)])
        exact.append([factor, *(v for m in names for v in (found[m].mean, found[m].sd))])
    if not rows:
        return [Text("Nothing was measured.")]
    caption = (
        "**Seams.** Mean absolute difference of neighbouring columns outside the input, in grey "
        "levels of 255, mean ± sd over seeds. “Windows meet”: columns where the tokens of one "
        "decoding stand beside those of another, the input's two edges among them; “other token "
        "boundaries”: all other columns on the grid of tokens; “beside”: the two columns on either "
        "side."
    )
    head = ["Width", *(name[0].upper() + name[1:] for name in names.values()), "n"]
    columns = ["factor", *(f"{m}_{part}" for m in names for part in ("mean", "sd"))]
    table = Table("seams", caption, head, rows, data=(columns, exact))
    words = (
        "A ratio of 1 means that no seam is seen; below 1, that windows meet where little changes "
        "anyway, such as the ground between two objects."
    )
    figure = _gradient_figure(run, factors[-1])
    return [table, Text(words), *([figure] if figure else [])]


def _gradient_figure(run: Run, factor: int) -> Figure | None:
    import numpy as np

    cells = [found for entry in pick(run, factor=factor) if (found := arrays(entry))]
    if not cells or "gradients" not in cells[0]:
        return None
    curves = np.stack([found["gradients"] for found in cells])
    average = curves.mean(axis=0)
    spread = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros_like(average)
    seams, left = cells[0]["seams"], int(cells[0]["left"])
    side = len(average) - 2 * left if factor > 1 else len(average)
    look = style_of("sqrt", [])
    with house_style():
        canvas = new_canvas(10.0, 3.8)
        ax = canvas.add_axes((0.075, 0.16, 0.9, 0.72))
        x = np.arange(1, len(average))
        ax.axvspan(left, left + side, color="#eeeeee", zorder=0)
        ax.plot(x, average[1:], color=look.color, linewidth=1.4, zorder=3)
        ax.fill_between(
            x, (average - spread)[1:], (average + spread)[1:], color=look.color, alpha=0.18
        )
        mark = style_of("logarithmic", [])
        ax.plot(
            seams, average[seams], linestyle="none", marker="o", color=mark.color, markersize=7,
            markeredgecolor="white", zorder=4,
        )  # fmt: skip
        top = float((average + spread).max())
        ax.set_ylim(0, 1.22 * top)
        ax.set_xlim(0, len(average))
        ax.set_xlabel("column, in pixels")
        ax.set_ylabel("difference, grey levels")
        ax.set_title(f"Difference of neighbouring columns, {factor} times the width")
        ax.text(left + side / 2, 1.12 * top, "input", ha="center", va="center")
        ax.plot([0.012 * len(average)], [1.12 * top], marker="o", color=mark.color, markersize=7)
        ax.text(
            0.022 * len(average),
            1.12 * top,
            "where windows meet",
            color=darker(mark.color),
            verticalalignment="center",
        )
    bars = "band: one sd between seeds" if len(curves) > 1 else "n=1, so there is no band"
    return Figure(
        "seam_gradients",
        "Difference of neighbouring columns, with the windows' boundaries marked",
        "Mean over images of the absolute difference of each column and the one before it; "
        f"{bars}. Dots: where windows meet.",
        canvas,
    )


def _command(run: Run) -> str:
    cells = [entry.cell for entry in run.entries]
    words = ["python experiments/panorama.py"]
    if cells:
        words.append(f"--factors {','.join(map(str, values_of(run, 'factor')))}")
        words.append(f"--seeds {','.join(map(str, values_of(run, 'seed')))}")
        words.append(f"--num-samples {cells[0]['num_images']}")
        words += [f"--{name} {cells[0][name]}" for name in ("overlap", "steps", "start")]
    return " ".join([*words, f"--preset {run.preset}"])
