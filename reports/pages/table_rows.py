"""What the pages of Tables 1, 4 and 5 share: samplers of a run, the paper's rows, notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import Run
from reports.page import Text
from reports.rows import Row
from reports.study import Mean, mean, pick
from reports.tables import DASH, number
from reports.verdicts.editing import number_row
from reports.verdicts.schedules import Verdict
from reports.verdicts.tables import judge_order

Sampler = tuple[str, int]  # name, iterations
REAL: Sampler = ("real", 0)
FEW_SAMPLES = 10_000
CAS = {"cas_top1": "CAS top-1, %", "cas_top5": "CAS top-5, %"}


def samplers(run: Run) -> list[Sampler]:
    """Those asked for: MaskGIT by iterations, then the baseline."""
    found = {
        (entry.cell["sampler"], int(entry.cell["steps"]))
        for entry in run.entries
        if entry.cell.get("part") == "measure"
    }
    return sorted(found, key=lambda item: (item[0] != "maskgit", item[1]))


def name_of(sampler: Sampler) -> str:
    """As it stands in tables."""
    if sampler == REAL:
        return "real images"
    return f"MaskGIT, T = {sampler[1]}" if sampler[0] == "maskgit" else "autoregressive baseline"


def value(run: Run, sampler: Sampler, metric: str) -> Mean:
    """Mean over seeds; CAS comes from the cells of its own part."""
    part = "cas" if metric in CAS else "measure"
    return mean(pick(run, part=part, sampler=sampler[0], steps=sampler[1]), metric)


def pair(run: Run, metric: str, T: int | None = None) -> tuple[Mean, Mean]:
    """(MaskGIT's at T, or at its fewest iterations, the baseline's)."""
    nothing = Mean(math.nan, math.nan, 0)
    found = dict.fromkeys(("maskgit", "autoregressive"), nothing)
    for sampler in samplers(run):
        first = not found[sampler[0]].n
        if first and (sampler[0] != "maskgit" or T in (None, sampler[1])):
            found[sampler[0]] = value(run, sampler, metric)
    return found["maskgit"], found["autoregressive"]


def why(run: Run, metric: str, sampler: str = "") -> str:
    """Why there is no value of a metric; empty if there is."""
    protocol = run.protocol.get("missing", {})
    if sampler == "autoregressive" and "the autoregressive baseline" in protocol:
        return str(protocol["the autoregressive baseline"])
    if metric in CAS and "CAS" in protocol:
        return str(protocol["CAS"])
    part = "cas" if metric in CAS else "measure"
    for entry in run.entries:
        mine = entry.cell.get("part") == part and sampler in ("", entry.cell.get("sampler"))
        if mine and not math.isfinite(entry.metric(metric)):
            return entry.why_missing(metric) if entry.status == "done" else entry.reason
    return ""


def judged(
    run: Run, claims: Mapping[str, str], rules: Mapping[str, Any], steps: tuple[int, int]
) -> list[Verdict]:
    """MaskGIT against the baseline. claims: claim -> metric. steps: of both, which FID is held
    against."""
    names = run.protocol.get("class_names", ())
    verdicts = []
    for claim, metric in claims.items():
        ours, other = pair(run, metric)
        absent = why(run, metric, "maskgit") or why(run, metric, "autoregressive")
        settings: dict[str, Any] = {"higher": metric != "fid", "why": absent}
        if metric == "fid":
            settings["steps"] = steps
        if metric in CAS:
            settings |= {"digits": 1, "scale": 100, "unit": "%"}
            guessing = 1 / len(names) if names else 0.0
            settings |= {"real": value(run, REAL, metric), "chance": guessing}
        verdicts.append(judge_order(claim, ours, other, rules[claim], **settings))
    return verdicts


def cas_words(run: Run, found: Sequence[Sampler]) -> str:
    """Top-1 CAS of each sampler and of real images; empty without any."""
    cas = {s: value(run, s, "cas_top1") for s in (*found, REAL)}
    return ", ".join(f"{name_of(s)} {percent_words(v, 1)}%" for s, v in cas.items() if v.n)


def missing_note(run: Run, metrics: Mapping[str, str]) -> list[Text]:
    """A list of what is missing and why."""
    lines = []
    for sampler in ("maskgit", "autoregressive"):
        found: dict[str, list[str]] = {}
        for metric, name in metrics.items():
            if reason := why(run, metric, sampler):
                found.setdefault(reason, []).append(name)
        who = "MaskGIT" if sampler == "maskgit" else "the baseline"
        lines += [f"{who}, {', '.join(names)}: {reason}" for reason, names in found.items()]
    return [Text("Missing:", lines)] if lines else []


def cas_note(run: Run) -> str:
    """How CAS was measured; empty without it."""
    if "cas_samples" not in run.protocol:
        return ""
    cells = [entry.cell for entry in run.entries if entry.cell.get("part") == "cas"]
    rand = "with" if cells and cells[0].get("randaugment") else "without"
    done = pick(run, part="cas")
    recipe = done[0].result.get("protocol", {}).get("cas", "") if done else ""
    return (
        f"CAS: a ResNet-50 trained from scratch {rand} RandAugment on {run.protocol['cas_samples']}"
        f" samples, divided over the classes like the real images, and tested on "
        f"{run.protocol['cas_validation']} held-out images"
        + (f" ({recipe})" if recipe else "")
        + f". Beside it the same on as many real ones, of {run.protocol['cas_real']}."
    )


def fid_note(run: Run, fid: bool = True) -> str:
    """What a small number of samples does to the numbers. fid: whether there are FIDs."""
    count = int(run.protocol.get("num_samples", 0))
    words = f"{count} samples a cell."
    if not 0 < count < FEW_SAMPLES:
        return words
    if not fid:
        return f"{words} Precision and recall depend on this number."
    return (
        f"{words} FID of {count} samples lies above that of many, for all samplers alike; "
        "precision and recall depend on the number too."
    )


def percent_words(found: Mean, digits: int = 2) -> str:
    """A share as `63.14 ± 0.20` percent."""
    return Mean(100 * found.mean, 100 * found.sd, found.n).words(digits)


def printed(row: Mapping[str, Any], name: str, digits: int) -> str:
    """A number of the paper, or a dash."""
    return number(float(row[name]), digits) if name in row else DASH


def paper_rows(
    run: Run,
    table: str,
    rule: Mapping[str, Any],
    same: bool,
    metrics: Mapping[str, str],
    rows: Sequence[tuple[Mapping[str, Any], str, Sampler]],
) -> list[Row]:
    """Rows of the index: each of the paper's (row, its name, our sampler), each metric it has."""
    made = []
    for row, name, sampler in rows:
        for metric, head in metrics.items():
            if metric not in row:
                continue
            scale = 100.0 if metric in CAS else 1.0
            ours = value(run, sampler, metric)
            ours = Mean(scale * ours.mean, scale * ours.sd, ours.n)
            samples = "cas_samples" if metric in CAS else "num_samples"
            made.append(
                number_row(
                    f"{table}, {name}: {head}",
                    float(row[metric]),
                    ours,
                    samples=int(run.protocol.get(samples, 0)) if ours.n else 0,
                    same_preset=same,
                    rule=rule,
                    why=why(run, metric, sampler[0]) or "not asked for",
                )
            )
    return made
