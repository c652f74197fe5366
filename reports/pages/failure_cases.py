"""The report of `experiments/failure_cases.py`: Figure 21 of the paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from reports.declared import declared
from reports.figures.curves import Figure
from reports.figures.pictures import Strip, Tile, picture_grid
from reports.load import Entry, Run
from reports.page import Page, Section, Text
from reports.rows import Row
from reports.study import Mean, arrays, mean, pick, protocol_section, status_words, values_of
from reports.tables import DASH, Table, and_list, number
from reports.verdicts.editing import judge_boundary, judge_samples, percent
from reports.verdicts.schedules import Verdict

if TYPE_CHECKING:
    import numpy as np

DIRECTIONS = ("right", "left", "top", "bottom")
COLUMNS = 10  # of the worst samples
MOST_CLASSES = 20  # listed; of more, those with the most failures


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    ours, real = mean(pick(run, part="samples"), "disagreement"), _one(run, "real", "disagreement")
    ratios = {d: mean(pick(run, part="boundary", direction=d), "ratio") for d in DIRECTIONS}
    samples = int(run.protocol.get("num_samples", 0))
    verdicts = [
        judge_samples(ours, real, samples, declared()["figure21_samples"], _why(run)),
        judge_boundary(ratios, declared()["figure21_boundary"]),
    ]
    return Page(
        experiment="failure_cases",
        title=f"Failure cases ({run.preset})",
        finding=_finding(run, ours, real, ratios),
        status=f"{status_words(run)} {samples} samples, {run.protocol.get('num_images', '?')} "
        f"held-out images, {run.protocol.get('boundary_images', '?')} outpainted ones.",
        verdicts=verdicts,
        sections=[
            Section("Figure 21: the worst samples by the classifier", _samples(run)),
            Section("The worst reconstructions", _reconstructions(run)),
            Section("The boundary of outpainting", _boundary(run, ratios)),
            protocol_section(run, _command(run)),
        ],
        facts={"disagreement": None if not ours.n else ours.mean},
        rows=_rows(run, ours, ratios, verdicts),
    )


def _one(run: Run, part: str, metric: str) -> Mean:
    return mean(pick(run, part=part), metric)


def _why(run: Run) -> str:
    found = pick(run, part="samples")
    return found[0].why_missing("disagreement") if found else "not in this run"


def _finding(run: Run, ours: Mean, real: Mean, ratios: dict[str, Mean]) -> list[str]:
    sentences = []
    if ours.n and real.n:
        sentences.append(
            f"The classifier takes {percent(ours.mean)} of the samples for another class than the "
            f"one asked for, and {percent(real.mean)} of real held-out images."
        )
    psnr = _one(run, "reconstruction", "psnr")
    if psnr.n:
        worst = _one(run, "reconstruction", "worst_psnr").mean
        sentences.append(
            f"The tokenizer's reconstructions have a mean PSNR of {number(psnr.mean, 1)} dB, the "
            f"worst {number(worst, 1)} dB."
        )
    there = {name: value for name, value in ratios.items() if value.n}
    if there:
        words = and_list([f"{number(v.mean, 2)} ({name})" for name, v in there.items()])
        sentences.append(
            f"Across the boundary outpainted images change {words} times as much as real ones."
        )
    return sentences or ["No cell is done: nothing can be said about failures."]


def _rows(run: Run, ours: Mean, ratios: dict[str, Mean], verdicts: list[Verdict]) -> list[Row]:
    why = "the paper has pictures only"
    samples, boundary = verdicts
    rows = [
        Row(
            "Figure 21, samples of another class than asked for, %",
            math.nan,
            100 * ours.mean,
            100 * ours.sd,
            int(run.protocol.get("num_samples", 0)),
            ours.n,
            samples.verdict,
            why if ours.n else _why(run),
            1,
        )
    ]
    for name, value in ratios.items():
        what = f"Figure 21, boundary of outpainting {name}: change against real images"
        count = int(run.protocol.get("boundary_images", 0))
        reason = why if value.n else "not in this run"
        word = boundary.verdict if value.n else "not run"
        rows.append(Row(what, math.nan, value.mean, value.sd, count, value.n, word, reason))
    return rows


# ---- samples ------------------------------------------------------------------------------------


def _samples(run: Run) -> list[Text | Table | Figure]:
    cells = pick(run, part="samples")
    stored = [found for entry in cells if (found := arrays(entry)) and "images" in found]
    if not stored:
        return [Text(f"There are none: {_why(run)}.")]
    first, names = stored[0], _class_names(run)
    tiles = [
        Tile(
            image,
            words=f"asked {_name(names, asked)} {percent_of(own)}\n"
            f"{_name(names, said)} {percent_of(other)}",
        )
        for image, asked, own, said, other in zip(
            first["images"],
            first["asked"].tolist(),
            first["asked_probability"].tolist(),
            first["predicted"].tolist(),
            first["predicted_probability"].tolist(),
            strict=True,
        )
    ]
    strips = [Strip("", tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    figure = picture_grid(
        "figure21",
        "The samples to which the classifier gives the least probability of the class asked for",
        f"**Figure 21.** Of {int(first['of_class'].sum())} samples of the first seed those to "
        "which the classifier gives the least probability of the class asked for, the worst first. "
        "Below each: the class asked for and the class named, with their probabilities.",
        strips,
        left=8,
        gap=20,
    )
    return [figure, _class_table(run, stored, names)]


def _class_table(run: Run, stored: list[dict[str, Any]], names: list[str]) -> Table:
    real = [found for entry in pick(run, part="real") if (found := arrays(entry))]
    psnr = [found for entry in pick(run, part="reconstruction") if (found := arrays(entry))]
    of_class = sum(found["of_class"] for found in stored)
    wrong = sum(found["wrong_of_class"] for found in stored)
    classes = sorted(range(len(of_class)), key=lambda c: (-int(wrong[c]), c))[:MOST_CLASSES]
    if len(of_class) <= MOST_CLASSES:
        classes.sort()
    rows: list[list[str]] = []
    exact: list[list[object]] = []
    for c in classes:
        ours = [int(wrong[c]), int(of_class[c])]
        theirs = [int(real[0]["wrong_of_class"][c]), int(real[0]["of_class"][c])] if real else []
        decibel = float(psnr[0]["psnr_of_class"][c]) if psnr else math.nan
        rows.append([_name(names, c), _share(ours), _share(theirs), number(decibel, 1)])
        exact.append([c, *ours, *(theirs if real else [None, None]), decibel])
    caption = (
        "**Counts per class.** Images that the classifier takes for another class, of all of that "
        f"class: samples over {len(stored)} seed{'s' if len(stored) > 1 else ''}, real held-out "
        "images, and the mean PSNR of their reconstructions."
    )
    head = ["Class", "Samples of another class", "Real images", "PSNR, dB"]
    columns = ["class", "wrong", "samples", "wrong_real", "real", "psnr"]
    return Table("classes", caption, head, rows, data=(columns, exact))


def _share(counts: list[int]) -> str:
    if not counts or not counts[1]:
        return DASH
    return f"{counts[0]} of {counts[1]} ({percent(counts[0] / counts[1])})"


def percent_of(probability: float) -> str:
    """A probability in whole percent."""
    return f"{number(100 * probability, 0)}%"


def _class_names(run: Run) -> list[str]:
    return [str(name) for name in run.protocol.get("class_names", [])]


def _name(names: list[str], label: int) -> str:
    return names[label] if label < len(names) else f"class {label}"


# ---- reconstructions ----------------------------------------------------------------------------


def _reconstructions(run: Run) -> list[Text | Table | Figure]:
    cells: list[Entry] = pick(run, part="reconstruction")
    stored = arrays(cells[0]) if cells else {}
    if "reconstructions" not in stored:
        return [Text("There are none in this run.")]
    names = _class_names(run)
    labels, values = stored["labels"].tolist(), stored["psnr"].tolist()
    words = [f"{_name(names, c)}\n{number(v, 1)} dB" for c, v in zip(labels, values, strict=True)]
    strips = [
        Strip("original", [Tile(image) for image in stored["originals"]]),
        Strip(
            "reconstruction",
            [Tile(i, words=w) for i, w in zip(stored["reconstructions"], words, strict=True)],
        ),
    ]
    low, early, middle, late, high = stored["percentiles"].tolist()
    caption = (
        f"The worst reconstructions by PSNR. Of all held-out images: minimum {number(low, 1)}, 5% "
        f"below {number(early, 1)}, median {number(middle, 1)}, 5% above {number(late, 1)}, "
        f"maximum {number(high, 1)} dB."
    )
    alt = "The held-out images with the worst reconstructions, above their reconstructions"
    return [picture_grid("worst_reconstructions", alt, caption, strips, left=140)]


# ---- boundary -----------------------------------------------------------------------------------


def _boundary(run: Run, ratios: dict[str, Mean]) -> list[Text | Table | Figure]:
    rows, exact = [], []
    for name, ratio in ratios.items():
        if not ratio.n:
            continue
        cells = pick(run, part="boundary", direction=name)
        ours, real = mean(cells, "gradient"), mean(cells, "real_gradient")
        rows.append([name, ours.words(2), number(real.mean, 2), ratio.words(2), str(ratio.n)])
        exact.append([name, ours.mean, ours.sd, real.mean, ratio.mean, ratio.sd, ratio.n])
    if not rows:
        return [Text("There are none in this run.")]
    caption = (
        "**The boundary.** Mean absolute difference across the edge of the outpainted half, in "
        "grey levels of 255, beside the same images before, mean ± sd over seeds. The composite "
        "blends a rim on the known side, as everywhere."
    )
    head = ["Outpainted", "Outpainted images", "Real images", "Ratio", "n"]
    columns = ["direction", "gradient", "gradient_sd", "real", "ratio", "ratio_sd", "n"]
    table = Table("boundary", caption, head, rows, data=(columns, exact))
    return [table, *_edges(run)]


def _edges(run: Run) -> list[Figure]:
    tiles: list[Tile | None] = []
    heads: list[str] = []
    real: list[Tile | None] = []
    known: list[Tile | None] = []
    for name in values_of(run, "direction"):
        cells = pick(run, part="boundary", direction=name)
        stored: dict[str, np.ndarray] = arrays(cells[0]) if cells else {}
        if "gains" not in stored:
            continue
        for image, original, gain in zip(
            stored["images"], stored["inputs"], stored["gains"].tolist(), strict=True
        ):
            heads.append(name)
            real.append(Tile(original))
            known.append(Tile(original, hidden=stored["mask"]))
            tiles.append(Tile(image, words=f"+{number(gain, 0)} grey levels"))
    if not tiles:
        return []
    strips = [Strip("real", real), Strip("known", known), Strip("outpainted", tiles)]
    caption = (
        "Of each direction and the first seed the images that change most across the boundary, "
        "beyond what the real image changes there."
    )
    alt = "Outpainted images with the largest change across the boundary, below the real ones"
    return [picture_grid("worst_boundaries", alt, caption, strips, heads, left=110)]


def _command(run: Run) -> str:
    words = ["python experiments/failure_cases.py"]
    words.append(f"--seeds {','.join(map(str, values_of(run, 'seed')))}")
    if "num_samples" in run.protocol:
        words.append(f"--num-samples {run.protocol['num_samples']}")
    if "steps" in run.protocol:
        words.append(f"--steps {run.protocol['steps']}")
    return " ".join([*words, f"--preset {run.preset}"])
