"""The report of `experiments/diversity.py`: Table 5 of the paper."""

from __future__ import annotations

from reports.load import Run
from reports.page import Page
from reports.pages.samplers import BASELINE, OURS, Samplers, paper_row, real_row
from reports.paper import paper_values
from reports.tables import Column, Table

METRICS = ("precision", "recall")
CLAIMS = {
    "table5_precision": "precision",
    "table5_recall": "recall",
    "table5_cas": "cas_top1",
}


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    samplers, paper = Samplers(run, METRICS), paper_values()["table5"]
    printed = {row["model"]: row for row in paper["rows"]}
    pairs = [
        (printed["MaskGIT"], "MaskGIT", samplers.first(OURS)),
        (printed["VQGAN"], "VQGAN (the baseline)", samplers.first(BASELINE)),
    ]
    measured = [e.protocol for e in run.pick(part="measure") if "reference" in e.protocol]
    return Page(
        experiment="diversity",
        run=run,
        verdicts=samplers.judged(CLAIMS),
        numbers=samplers.paper_numbers("Table 5", run.preset == paper["preset"], pairs),
        facts=samplers.facts(),
        values={
            **samplers.values(),
            "both": {
                m: [samplers.value(samplers.first(n), m) for n in (OURS, BASELINE)] for m in METRICS
            },
            "why_precision": samplers.why("precision"),
            "table5": _table5(run, samplers),
            "comparable": run.preset == paper["preset"],
            "measured": measured[:1],
        },
    )


def _table5(run: Run, samplers: Samplers) -> Table:
    paper = paper_values()["table5"]
    rows = samplers.rows() + [paper_row(row, 256) for row in paper["rows"]] + [real_row(paper)]
    network = str(run.told("network"))
    columns = [
        Column("name", "Model", align="l", in_csv=False),
        *map(Column, ("model", "source")),
        *samplers.columns(dict.fromkeys(METRICS, network)),
        Column("n", "n"),
    ]
    return Table("table5", columns, rows)
