"""The report of `experiments/class_conditional.py`: Table 1 and Figures 5, 11, 12 and 13."""

from __future__ import annotations

from typing import Any

from reports.figures.pictures import Strip, Tile, first_of_each_class, picture_grid
from reports.figures.style import Figure
from reports.load import Run
from reports.page import Page
from reports.pages.samplers import (
    BASELINE,
    OURS,
    Samplers,
    name_of,
    paper_row,
    real_row,
)
from reports.pages.tokenizer import tokenizer_table
from reports.paper import paper_values
from reports.tables import Column, Table
from reports.verdicts.numbers import PaperNumber

METRICS = ("fid", "is", "precision", "recall")
CLAIMS = {"table1_fid": "fid", "table1_recall": "recall", "table1_cas": "cas_top1"}
TILES = 3  # of a class and a sampler in Figure 5


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    samplers = Samplers(run, METRICS)
    fids = {name_of(s): samplers.value(s, "fid") for s in samplers.found}
    both = {m: [samplers.value(samplers.first(n), m) for n in (OURS, BASELINE)] for m in METRICS}
    figure, columns = _figure5(run, samplers)
    return Page(
        experiment="class_conditional",
        run=run,
        verdicts=samplers.judged(CLAIMS, (samplers.first(OURS)[1], samplers.first(BASELINE)[1])),
        numbers=_numbers(run, samplers),
        facts=samplers.facts(),
        values={
            **samplers.values(),
            "fids": {name: value for name, value in fids.items() if value.n},
            "why_fid": samplers.why("fid"),
            "both": {m: v for m, v in both.items() if all(value.n for value in v)},
            "table1": _table1(run, samplers),
            "tokenizer": tokenizer_table(run),
            "comparable": run.preset in paper_values()["table1"]["resolution"],
            "figure5": figure,
            "columns": columns,
            "seeds": run.values_of("seed"),
        },
    )


def _table1(run: Run, samplers: Samplers) -> Table:
    rows = samplers.rows()
    for row in rows:
        count = samplers.value(row["sampler"], "parameters")
        row["parameters"] = int(count.mean) if count.n else None
        row["steps"] = row["sampler"][1] or None
    paper = paper_values()["table1"]
    wanted = paper["resolution"].get(run.preset)
    for row in paper["rows"]:
        if wanted in (None, row["resolution"]):
            source = {"source": f"paper, {row['resolution']}", "parameters": row["params"]}
            rows.append(paper_row(row, row["resolution"]) | source)
    rows.append(real_row(paper))
    cells = [entry.cell for entry in run.asked(part="measure") if "features" in entry.cell]
    networks = cells[0]["features"] if cells else ["?"]
    columns = [
        Column("name", "Model", align="l", in_csv=False),
        *map(Column, ("model", "source")),
        *samplers.columns({"fid": networks[0], "precision": networks[-1]}),
        Column("parameters", "Parameters", text=lambda count: f"{count / 1e6:.2f}M"),
        Column("steps", "Steps"),
        Column("n", "n"),
    ]
    return Table("table1", columns, rows)


def _numbers(run: Run, samplers: Samplers) -> list[PaperNumber]:
    """Each of the paper's two models beside ours: MaskGIT at the paper's T, or at our fewest."""
    paper = paper_values()["table1"]
    resolution = paper["resolution"].get(run.preset, 256)
    printed = {row["model"]: row for row in paper["rows"] if row["resolution"] == resolution}
    ours = samplers.first(OURS, paper["steps"].get(run.preset, 8))
    pairs = [
        (printed["MaskGIT"], f"MaskGIT {resolution}", ours),
        (printed["VQGAN"], f"VQGAN {resolution} (the baseline)", samplers.first(BASELINE)),
    ]
    return samplers.paper_numbers("Table 1", run.preset in paper["resolution"], pairs)


def _figure5(run: Run, samplers: Samplers) -> tuple[Figure | None, list[str]]:
    """The first samples of each class, and what the groups of columns show."""
    seeds = run.values_of("seed")
    columns: dict[str, dict[int, Any]] = {}
    for name in (OURS, BASELINE):
        steps = samplers.first(name)[1]
        for entry in run.pick(part="measure", sampler=name, steps=steps, seed=seeds[0]):
            images = first_of_each_class(entry.arrays("images", "labels"), TILES)
            columns |= {name_of((name, steps)): images} if images else {}
    for entry in run.pick(part="pictures")[:1]:
        images = first_of_each_class(entry.arrays("images", "labels"), TILES)
        columns |= {f"real ({entry.protocol.get('images', '')})": images} if images else {}
    if not columns:
        return None, []
    strips = []
    for c in sorted({label for images in columns.values() for label in images}):
        tiles: list[Tile | None] = []
        for images in columns.values():
            shown = [Tile(image) for image in images.get(c, ())]
            tiles += [*shown, *[None] * (TILES - len(shown) + 1)]
        strips.append(Strip(run.class_name(c), tiles[:-1]))
    heads = []
    for name in columns:
        label = name.partition(" (")[0]
        heads += ["" if j != TILES // 2 else label for j in range(TILES + 1)]
    alt = "Samples of each class: MaskGIT, the baseline, real images"
    return picture_grid("figure5", alt, strips, heads[:-1], left=110), list(columns)
