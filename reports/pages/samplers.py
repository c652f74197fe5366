"""What the pages of Tables 1 and 5 share: samplers of a run, the paper's rows, CAS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import Run
from reports.means import NOTHING, Mean
from reports.pages.tokenizer import METRICS as TOKENIZER
from reports.paper import paper_values
from reports.tables import MEAN_SD, Column
from reports.verdicts import Verdict
from reports.verdicts.numbers import PaperNumber, judge_number
from reports.verdicts.tables import judge_order

Sampler = tuple[str, int]  # name, iterations
REAL: Sampler = ("real", 0)
OURS, BASELINE = "maskgit", "autoregressive"
CAS = ("cas_top1", "cas_top5")
PAPER = {"source": "paper"}


class Samplers:
    """The samplers that a run asked for, and their metrics.

    found: MaskGIT by iterations, then the baseline. metrics: those asked for, the table's own
    first and CAS last.
    """

    def __init__(self, run: Run, metrics: Sequence[str]) -> None:
        self.run = run
        self.metrics = (*run.asked_metrics(metrics, ("parameters", *CAS, *TOKENIZER)), *CAS)
        cells = [entry.cell for entry in run.asked(part="measure")]
        pairs = {(str(cell["sampler"]), int(cell["steps"])) for cell in cells}
        self.found: list[Sampler] = sorted(pairs, key=lambda item: (item[0] != OURS, item[1]))

    def value(self, sampler: Sampler, metric: str) -> Mean:
        """Mean over seeds; CAS comes from the cells of its own part."""
        return self.run.mean(metric, part=_part(metric), sampler=sampler[0], steps=sampler[1])

    def first(self, name: str, T: int | None = None) -> Sampler:
        """The sampler of this name at T, or at its fewest iterations; with 0 where it is absent."""
        mine = [sampler for sampler in self.found if sampler[0] == name]
        return next((s for s in mine if s[1] == T), mine[0] if mine else (name, T or 0))

    def why(self, metric: str, name: str = "") -> str:
        """Why there is no value of a metric; empty if there is. name: of one sampler alone."""
        if name == BASELINE and (reason := self.run.why_missing("the autoregressive baseline")):
            return reason
        if metric in CAS and (reason := self.run.why_missing("CAS")):
            return reason
        sampler = {"sampler": name} if name else {}
        return self.run.why(metric, part=_part(metric), **sampler)

    def absent(self) -> list[str]:
        """`MaskGIT, FID, recall: reason`, for what is missing."""
        lines = []
        for name, who in ((OURS, "MaskGIT"), (BASELINE, "the baseline")):
            found: dict[str, list[str]] = {}
            for metric in self.metrics:
                if reason := self.why(metric, name):
                    found.setdefault(reason, []).append(self.run.label(metric))
            lines += [f"{who}, {', '.join(names)}: {reason}" for reason, names in found.items()]
        return lines

    def facts(self) -> dict[str, dict[str, float]]:
        """Sampler -> metric -> mean, for summary.json."""
        values = {s: {m: self.value(s, m) for m in self.metrics} for s in self.found}
        return {
            name_of(s): {m: round(v.mean, 4) for m, v in found.items() if v.n}
            for s, found in values.items()
        }

    def judged(
        self, claims: Mapping[str, str], steps: tuple[int, int] | None = None
    ) -> list[Verdict]:
        """MaskGIT at its fewest iterations against the baseline.

        claims: claim -> metric. steps: how many iterations each takes, for the claim on FID.
        """
        classes = len(self.run.protocol.get("class_names", ()))
        verdicts = []
        for claim, metric in claims.items():
            ours, other = (self.value(self.first(name), metric) for name in (OURS, BASELINE))
            settings: dict[str, Any] = {"higher": metric != "fid"}
            settings["why"] = self.why(metric, OURS) or self.why(metric, BASELINE)
            if metric == "fid":
                settings["steps"] = steps
            if metric in CAS:
                settings |= {"digits": 1, "scale": 100, "unit": "%"}
                settings |= {
                    "real": self.value(REAL, metric),
                    "chance": 1 / classes if classes else 0.0,
                }
            verdicts.append(judge_order(claim, ours, other, paper_values()[claim], **settings))
        return verdicts

    def columns(self, notes: Mapping[str, str]) -> list[Column]:
        """The metrics of the table. notes: metric -> the network that measures it."""
        columns = [self.run.column(m, notes.get(m, "")) for m in self.metrics if m not in CAS]
        return columns + [
            Column(m, f"{cas_label(m)} ↑", text=_percent_words, parts=MEAN_SD) for m in CAS
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Ours, and real images where a classifier was trained on them; n counts the seeds."""
        shown = [*self.found, *([REAL] if self.value(REAL, "cas_top1").n else [])]
        rows = []
        for sampler in shown:
            values = {metric: self.value(sampler, metric) for metric in self.metrics}
            n = max(value.n for value in values.values())
            row = {"name": name_of(sampler), "model": name_of(sampler), "source": "ours"}
            rows.append({**row, "n": n or None, "sampler": sampler, **values})
        return rows

    def paper_numbers(
        self, table: str, same: bool, rows: Sequence[tuple[Mapping[str, Any], str, Sampler]]
    ) -> list[PaperNumber]:
        """Each of the paper's rows (row, its name, our sampler) with each metric that it prints.

        same: whether the preset is the paper's.
        """
        rule = paper_values()[table.lower().replace(" ", "")]
        made = []
        for row, name, sampler in rows:
            for metric in [metric for metric in self.metrics if metric in row]:
                ours = self.value(sampler, metric).scaled(100 if metric in CAS else 1)
                samples = self.run.count("cas_samples" if metric in CAS else "num_samples")
                label = cas_label(metric) if metric in CAS else self.run.label(metric)
                made.append(
                    judge_number(
                        f"{table}, {name}: {label}",
                        float(row[metric]),
                        ours,
                        samples=samples if ours.n else 0,
                        same_preset=same,
                        rule=rule,
                        why=self.why(metric, sampler[0]) or "not asked for",
                    )
                )
        return made

    def values(self) -> dict[str, Any]:
        """What the templates of both tables read."""
        cas = {name_of(s): self.value(s, "cas_top1") for s in (*self.found, REAL)}
        cells = self.run.asked(part="cas")
        done = self.run.pick(part="cas")
        return {
            "cas": {name: _percent_words(v, 1) for name, v in cas.items() if v.n},
            "has_cas": "cas_samples" in self.run.protocol,
            "randaugment": bool(cells and cells[0].cell.get("randaugment")),
            "cas_recipe": done[0].protocol.get("cas", "") if done else "",
            "absent": self.absent(),
        }


def name_of(sampler: Sampler) -> str:
    """As it stands in tables."""
    if sampler == REAL:
        return "real images"
    return f"MaskGIT, T = {sampler[1]}" if sampler[0] == OURS else "autoregressive baseline"


def paper_row(row: Mapping[str, Any], resolution: int) -> dict[str, Any]:
    """A row of the paper's table, in our columns."""
    name = f"{row['model']} {resolution}, paper's value"
    return {**row, "name": name, **PAPER}


def real_row(paper: Mapping[str, Any]) -> dict[str, Any]:
    """The paper's CAS of real images; its ImageNet is 256 pixels wide."""
    values = {metric: paper[f"real_{metric}"] for metric in CAS}
    return {"name": "real images 256, paper's value", "model": "real images", **values, **PAPER}


def cas_label(metric: str) -> str:
    """`CAS top-1, %`."""
    return {"cas_top1": "CAS top-1, %", "cas_top5": "CAS top-5, %"}[metric]


def _part(metric: str) -> str:
    return "cas" if metric in CAS else "measure"


def _percent_words(value: Mean | float, digits: int = 2) -> str:
    """A share as `63.14 ± 0.20` percent; the paper prints percent already."""
    found = value.scaled(100) if isinstance(value, Mean) else Mean(value, NOTHING.sd, 1)
    return found.words(digits)
