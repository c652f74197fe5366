"""The report of `experiments/diversity.py`: Table 5 of the paper."""

from __future__ import annotations

from reports.declared import declared
from reports.figures.curves import Figure
from reports.load import Run
from reports.page import Page, Section, Text
from reports.pages.class_conditional import cas_flags
from reports.pages.table_rows import (
    CAS,
    REAL,
    Sampler,
    cas_note,
    cas_words,
    fid_note,
    judged,
    missing_note,
    name_of,
    pair,
    paper_rows,
    percent_words,
    printed,
    samplers,
    value,
    why,
)
from reports.rows import Row
from reports.study import pick, protocol_section, status_words
from reports.tables import DASH, Table, number

MEASURED = {"precision": "precision", "recall": "recall"}
CLAIMS = {
    "table5_precision": "precision",
    "table5_recall": "recall",
    "table5_cas": "cas_top1",
}


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    found = samplers(run)
    return Page(
        experiment="diversity",
        title=f"Diversity on another network ({run.preset})",
        finding=_finding(run, found),
        status=f"{status_words(run)} {run.protocol.get('num_samples', '?')} samples a cell.",
        verdicts=judged(run, CLAIMS, declared(), (0, 0)),
        sections=[_table5(run, found), protocol_section(run, _command(run, found))],
        facts={
            name_of(s): {
                m: round(v.mean, 4) for m in (*MEASURED, *CAS) if (v := value(run, s, m)).n
            }
            for s in found
        },
        rows=_rows(run, found),
    )


def _network(run: Run) -> str:
    return str(run.protocol.get("network", "?"))


def _finding(run: Run, found: list[Sampler]) -> list[str]:
    sentences = []
    for metric in MEASURED:
        ours, other = pair(run, metric)
        if ours.n and other.n:
            head = f"On {_network(run)}'s features {metric} is"
            sentences.append(
                f"{head} {ours.words(2)} for MaskGIT and {other.words(2)} for the baseline."
            )
        elif ours.n:
            sentences.append(f"MaskGIT's {metric} on {_network(run)}'s features: {ours.words(2)}.")
    if words := cas_words(run, found):
        sentences.append(f"CAS without RandAugment, top-1: {words}.")
    reason = why(run, "precision")
    return sentences or ["No number is there" + (f": {reason}." if reason else ".")]


def _table5(run: Run, found: list[Sampler]) -> Section:
    paper, rows = declared()["table5"], []
    exact: list[list[object]] = []
    for sampler in [*found, *([REAL] if value(run, REAL, "cas_top1").n else [])]:
        values = {metric: value(run, sampler, metric) for metric in (*MEASURED, *CAS)}
        told = [values[metric].words(2) for metric in MEASURED]
        told += [percent_words(values[metric]) for metric in CAS]
        n = max(v.n for v in values.values())
        rows.append([name_of(sampler), *told, str(n or DASH)])
        exact.append([name_of(sampler), "ours", n])
        exact[-1] += [x for v in values.values() for x in (v.mean, v.sd)]
    for row in paper["rows"]:
        told = [printed(row, metric, 2) for metric in (*MEASURED, *CAS)]
        rows.append([f"{row['model']} 256, paper's value", *told, DASH])
        numbers = [x for m in (*MEASURED, *CAS) for x in (row.get(m), None)]
        exact.append([row["model"], "paper", None, *numbers])
    told = [number(paper["real_cas_top1"], 2), number(paper["real_cas_top5"], 2)]
    rows.append(["real images 256, paper's value", DASH, DASH, *told, DASH])
    name = _network(run)
    head = ["Model", f"Precision ↑ ({name})", f"Recall ↑ ({name})"]
    head += [*(f"{text} ↑" for text in CAS.values()), "n"]
    same = run.preset == paper["preset"]
    role = "" if same else f" {name} stands for the paper's Inception."
    caption = (
        f"**Table 5.** Precision and recall (k = 3) on {name}, CAS without RandAugment. Ours: mean "
        f"± standard deviation over n seeds.{role}"
        + ("" if same else " The paper's values are of ImageNet, not comparable.")
    )
    names = ["model", "source", "n", *(x for m in (*MEASURED, *CAS) for x in (m, f"{m}_sd"))]
    table = Table("table5", caption, head, rows, "lrrrrr", data=(names, exact))
    blocks: list[Text | Table | Figure] = [
        table,
        Text(f"{_reference(run)} {fid_note(run, fid=False)}"),
    ]
    blocks += [Text(cas_note(run))] if cas_note(run) else []
    return Section("Table 5", [*blocks, *missing_note(run, {**MEASURED, **CAS})])


def _reference(run: Run) -> str:
    for entry in pick(run, part="measure"):
        told = entry.result.get("protocol", {})
        if "reference" in told:
            return f"Real features: {told['reference']}; {told['real_n']} are compared with."
    return "There are no real features."


def _rows(run: Run, found: list[Sampler]) -> list[Row]:
    paper = declared()["table5"]
    printed_rows = {row["model"]: row for row in paper["rows"]}
    first = next((s for s in found if s[0] == "maskgit"), ("maskgit", 8))
    baseline = next((s for s in found if s[0] == "autoregressive"), ("autoregressive", 0))
    pairs = [
        (printed_rows["MaskGIT"], "MaskGIT", first),
        (printed_rows["VQGAN"], "VQGAN (the baseline)", baseline),
    ]
    same = run.preset == paper["preset"]
    return paper_rows(run, "Table 5", paper, same, {**MEASURED, **CAS}, pairs)


def _command(run: Run, found: list[Sampler]) -> str:
    words = ["python experiments/diversity.py"]
    steps = [str(s[1]) for s in found if s[0] == "maskgit"]
    seeds = sorted({e.cell["seed"] for e in run.entries if e.cell.get("part") == "measure"})
    words += [f"--T {','.join(steps)}"] if steps else []
    words += [f"--seeds {','.join(map(str, seeds))}"] if seeds else []
    words.append(f"--num-samples {run.protocol.get('num_samples', '?')}")
    return " ".join([*words, *cas_flags(run), f"--preset {run.preset}"])
