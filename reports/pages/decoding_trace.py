"""The report of `experiments/decoding_trace.py`: Figure 2 of the paper, still and animated."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from reports.declared import declared
from reports.figures.animation import Animation, animation
from reports.figures.curves import Figure
from reports.figures.pictures import Strip, Tile, mask_tile, picture_grid, render, resized
from reports.load import Entry, Run
from reports.page import Page, Section, Text
from reports.rows import Row
from reports.study import arrays, pick, protocol_section, status_words
from reports.tables import Table
from reports.verdicts.editing import judge_iterations
from reports.verdicts.schedules import NOT_COMPARABLE, NOT_RUN, REPRODUCED

if TYPE_CHECKING:
    import numpy as np

COLUMNS = 8  # of the figure
FRAME_MS, LAST_MS = 220, 2500
NAMES = {"maskgit": "MaskGIT", "autoregressive": "baseline"}


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    traces = {name: _trace(run, name) for name in NAMES}
    traces = {name: found for name, found in traces.items() if found}
    ours = traces.get("maskgit")
    kept = _kept(ours["unknown"], _tokens(run)) if ours else []
    verdict = judge_iterations(kept, declared()["figure2_rule"])
    return Page(
        experiment="decoding_trace",
        title=f"Decoding, iteration by iteration ({run.preset})",
        finding=_finding(run, traces, kept),
        status=f"{status_words(run)} The images are of one seed.",
        verdicts=[verdict],
        sections=[
            Section("Figure 2: masks and images of every iteration", _blocks(run, traces)),
            Section("Tokens still unknown", [_table(run, traces)]),
            protocol_section(run, _command(run)),
        ],
        facts={"kept": kept},
        rows=_rows(run, traces),
    )


def _trace(run: Run, sampler: str) -> dict[str, np.ndarray]:
    found: list[Entry] = pick(run, sampler=sampler)
    stored = arrays(found[0]) if found else {}
    return stored if {"images", "masked", "iterations", "unknown"} <= set(stored) else {}


def _tokens(run: Run) -> int:
    return int(run.protocol.get("num_tokens", 0))


def _kept(unknown: np.ndarray, tokens: int) -> list[int]:
    """Tokens that each iteration fixes; the last one all that were unknown before it."""
    left = [tokens, *unknown.tolist()]
    return [before - after for before, after in pairwise(left)]


def _finding(run: Run, traces: dict[str, Any], kept: list[int]) -> list[str]:
    if not kept:
        return ["No trace of MaskGIT is there."]
    unknown = traces["maskgit"]["unknown"].tolist()
    half = 1 + next(i for i, left in enumerate(unknown) if 2 * left <= _tokens(run))
    sentence = (
        f"MaskGIT decodes {_tokens(run)} tokens in {len(kept)} iterations: {kept[0]} in the first, "
        f"{kept[-1]} in the last, and half are known after iteration {half}"
    )
    if "autoregressive" not in traces:
        return [sentence + ".", f"The baseline is not there{_why(run)}."]
    rounds = len(traces["autoregressive"]["unknown"])
    times = rounds / len(kept)
    return [f"{sentence}; the baseline takes {rounds} steps, {times:.3g} times as many."]


def _why(run: Run) -> str:
    reason = run.protocol.get("missing", {}).get("the autoregressive baseline", "")
    return f" ({reason})" if reason else ""


def _rows(run: Run, traces: dict[str, Any]) -> list[Row]:
    paper = declared()["figure2"]
    same = run.preset == "imagenet256"
    rows = []
    for sampler, name, value in (
        ("maskgit", "MaskGIT", paper["iterations"]),
        ("autoregressive", "sequential decoding", paper["sequential"]),
    ):
        count = len(traces[sampler]["unknown"]) if sampler in traces else math.nan
        word, why = NOT_COMPARABLE, f"{_tokens(run)} tokens an image instead of 256"
        if sampler not in traces:
            word, why = NOT_RUN, (_why(run).strip(" ()") or "not in this run")
        elif count == value and (same or sampler == "maskgit"):
            word, why = REPRODUCED, "a setting of the decoding, met" if not same else ""
        what = f"Figure 2, {name}: iterations"
        seeds = 0 if math.isnan(count) else 1
        rows.append(Row(what, float(value), float(count), math.nan, 0, seeds, word, why, 0, same))
    return rows


# ---- figures ------------------------------------------------------------------------------------


def _blocks(run: Run, traces: dict[str, Any]) -> list[Text | Table | Figure]:
    if not traces:
        return [Text("No trace is there.")]
    words = (
        "MaskGIT predicts every token in every iteration and keeps the surest: its images are "
        "decoded from all of them, the kept and the others. The baseline has no more than the "
        "tokens so far; what it has not drawn is hatched."
    )
    return [Text(words), _figure(run, traces), _animation(run, traces)]


def _figure(run: Run, traces: dict[str, Any]) -> Figure:
    strips = []
    for j, name in enumerate(_class_names(run)):
        for sampler in traces:
            trace, picked = traces[sampler], _picked(traces[sampler])
            masks, images = [], []
            for i in picked:
                image, masked = trace["images"][i, j], trace["masked"][i, j]
                word = "iteration" if sampler == "maskgit" else "step"
                tile = Tile(image, _hidden(sampler, image, masked))
                masks.append(Tile(mask_tile(masked, render(tile).shape[0])))
                images.append(Tile(tile.image, tile.hidden, words=_numbered(trace, i, word)))
            strips += [
                Strip(f"{NAMES[sampler]}\n{name}, known tokens", masks),
                Strip("\nimage", images),
            ]
        strips[-1] = replace(strips[-1], below=14)
    return picture_grid(
        "figure2",
        "Masks and images of each iteration, MaskGIT above the autoregressive baseline",
        "**Figure 2.** For every class MaskGIT above the autoregressive baseline in raster order. "
        "Masks: tokens known after the iteration dark, unknown ones light. Not chosen by hand: "
        "sample 0 of the first class, 1 of the second, and so on.",
        strips,
        left=190,
    )


def _numbered(trace: dict[str, Any], i: int, word: str) -> str:
    number, known = int(trace["iterations"][i]), int(trace["unknown"][-1])
    left = int(trace["unknown"][int(trace["iterations"][i]) - 1]) - known
    return f"{word} {number}\n{left} unknown"


def _picked(trace: dict[str, Any]) -> list[int]:
    import numpy as np

    count = len(trace["images"])
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, COLUMNS)).round())]


def _hidden(sampler: str, image: np.ndarray, masked: np.ndarray) -> np.ndarray | None:
    if sampler == "maskgit" or not masked.any():
        return None
    return resized(masked, image.shape)


def _animation(run: Run, traces: dict[str, Any]) -> Animation:
    """One frame a step of the baseline; MaskGIT stands still when it is done."""
    last = max(int(trace["iterations"][-1]) for trace in traces.values())
    steps = sorted({int(n) for t in traces.values() for n in t["iterations"]})
    frames = [_frame(run, traces, step) for step in steps]
    times = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    return animation(
        "figure2_animated",
        f"The same as an animation over {last} steps",
        "**Figure 2, animated.** One step of each sampler a frame; MaskGIT stands still when it "
        "is done.",
        frames,
        times,
    )


def _frame(run: Run, traces: dict[str, Any], step: int) -> np.ndarray:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    rows, heads = [], []
    for sampler, trace in traces.items():
        total = int(trace["iterations"][-1])
        i = int(np.flatnonzero(trace["iterations"] <= min(step, total))[-1])
        images = [
            render(Tile(image, _hidden(sampler, image, masked)))
            for image, masked in zip(trace["images"][i], trace["masked"][i], strict=True)
        ]
        parts = [part for image in images for part in (image, np.full_like(image[:, :6], 255))]
        rows.append(np.concatenate(parts[:-1], axis=1))
        done = int(trace["iterations"][i])
        word = "iteration" if sampler == "maskgit" else "step"
        heads.append(f"{NAMES[sampler]}: {word} {done} of {total}")
    margin, head = 10, 26
    height = sum(row.shape[0] + head for row in rows) + margin
    width = max(row.shape[1] for row in rows) + 2 * margin
    sheet = Image.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for row, text in zip(rows, heads, strict=True):
        draw.text((margin, y + 6), text, fill=(34, 34, 34), font=ImageFont.load_default(14))
        sheet.paste(Image.fromarray(row), (margin, y + head))
        y += row.shape[0] + head
    return np.asarray(sheet)


# ---- table --------------------------------------------------------------------------------------


def _table(run: Run, traces: dict[str, Any]) -> Table:
    rows = []
    for sampler, trace in traces.items():
        unknown = trace["unknown"]
        # The baseline fixes one token a step: its ends say it all.
        shown = list(range(len(unknown)))
        if sampler == "autoregressive":
            shown = [int(trace["iterations"][i]) - 1 for i in _picked(trace)]
        kept = _kept(unknown, _tokens(run))
        rows += [[NAMES[sampler], str(i + 1), str(kept[i]), str(unknown[i])] for i in shown]
    head = ["Sampler", "Iteration", "Tokens fixed in it", "Still unknown after it"]
    caption = (
        "**Unknown tokens** after each iteration, the same for every image. MaskGIT's last one "
        "keeps all of its predictions. Of the baseline the steps of the figure."
    )
    return Table("unknown", caption, head, rows)


def _class_names(run: Run) -> list[str]:
    names = run.protocol.get("class_names", [])
    classes = run.entries[0].cell.get("classes", [])
    return [str(names[c]) if c < len(names) else f"class {c}" for c in classes]


def _command(run: Run) -> str:
    cells = [entry.cell for entry in run.entries if entry.cell.get("sampler") == "maskgit"]
    words = ["python experiments/decoding_trace.py"]
    if cells:
        classes = ",".join(map(str, cells[0]["classes"]))
        words.append(f"--steps {cells[0]['steps']} --classes {classes} --seeds {cells[0]['seed']}")
    return " ".join([*words, f"--preset {run.preset}"])
