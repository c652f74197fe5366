"""The report of `experiments/class_conditional.py`: Table 1 and Figures 5, 11, 12 and 13."""

from __future__ import annotations

from typing import Any

from reports.declared import declared
from reports.figures.curves import Figure
from reports.figures.pictures import Strip, Tile, picture_grid
from reports.load import Run
from reports.page import Page, Section, Text
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
from reports.study import arrays, pick, protocol_section, status_words, values_of
from reports.tables import DASH, Table, number
from reports.verdicts.schedules import Verdict

MEASURED = {"fid": "FID", "is": "IS", "precision": "precision", "recall": "recall"}
CLAIMS = {"table1_fid": "fid", "table1_recall": "recall", "table1_cas": "cas_top1"}
TILES = 3  # of a class and a sampler in Figure 5


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    found = samplers(run)
    return Page(
        experiment="class_conditional",
        title=f"Class-conditional samples ({run.preset})",
        finding=_finding(run, found),
        status=f"{status_words(run)} {run.protocol.get('num_samples', '?')} samples a cell.",
        verdicts=_verdicts(run, found),
        sections=[
            _table1(run, found),
            Section("Figures 5 and 11 to 13: samples", _figures(run, found)),
            protocol_section(run, _command(run, found)),
        ],
        facts={
            name_of(s): {
                m: round(v.mean, 4) for m in (*MEASURED, *CAS) if (v := value(run, s, m)).n
            }
            for s in found
        },
        rows=_rows(run, found),
    )


def _finding(run: Run, found: list[Sampler]) -> list[str]:
    told = {s: value(run, s, "fid") for s in found}
    told = {s: v for s, v in told.items() if v.n}
    if not told:
        reason = why(run, "fid")
        return ["No FID is there" + (f": {reason}." if reason else ".")]
    parts = [f"{name_of(s)} has FID {v.words(2)}" for s, v in told.items()]
    sentences = ["; ".join(parts) + "."]
    for metric, head in (("recall", "Recall"), ("precision", "Precision")):
        ours, other = pair(run, metric)
        if ours.n and other.n:
            sentences.append(f"{head}: MaskGIT {ours.words(2)}, the baseline {other.words(2)}.")
    if words := cas_words(run, found):
        sentences.append(f"CAS, top-1: {words}.")
    return sentences


def _verdicts(run: Run, found: list[Sampler]) -> list[Verdict]:
    ours, other = (
        min((s[1] for s in found if s[0] == name), default=0)
        for name in ("maskgit", "autoregressive")
    )
    return judged(run, CLAIMS, declared(), (ours, other))


# ---- Table 1 ------------------------------------------------------------------------------------


def _table1(run: Run, found: list[Sampler]) -> Section:
    rows: list[list[str]] = []
    exact: list[list[object]] = []
    for sampler in [*found, *([REAL] if value(run, REAL, "cas_top1").n else [])]:
        values = {metric: value(run, sampler, metric) for metric in (*MEASURED, *CAS)}
        count = value(run, sampler, "parameters")
        told = [values[metric].words(2) for metric in MEASURED]
        cas = [percent_words(values[metric]) for metric in CAS]
        size = f"{count.mean / 1e6:.2f}M" if count.n else DASH
        steps = str(sampler[1] or DASH)
        n = max(v.n for v in values.values())
        rows.append([name_of(sampler), *told, size, steps, *cas, str(n or DASH)])
        parameters = int(count.mean) if count.n else None
        numbers = [x for v in values.values() for x in (v.mean, v.sd)]
        exact.append([name_of(sampler), "ours", parameters, sampler[1] or None, n, *numbers])
    paper = declared()["table1"]
    wanted = paper["resolution"].get(run.preset)
    for row in paper["rows"]:
        if wanted not in (None, row["resolution"]):
            continue
        told = [printed(row, metric, 2) for metric in (*MEASURED, *CAS)]
        name = f"{row['model']} {row['resolution']}, paper's value"
        rows.append([name, *told[:4], row["params"], row["steps"], *told[4:], DASH])
        values_ = [x for m in (*MEASURED, *CAS) for x in (row.get(m), None)]
        exact.append([row["model"], f"paper, {row['resolution']}", row["params"], row["steps"]])
        exact[-1] += [None, *values_]
    for metric in ("real_cas_top1",):
        told = [number(paper[metric], 2), number(paper["real_cas_top5"], 2)]
        rows.append(["real images 256, paper's value", *[DASH] * 6, *told, DASH])
    features = _features(run)
    head = ["Model", f"FID ↓ ({features[0]})", "IS ↑", f"Precision ↑ ({features[1]})", "Recall ↑"]
    head += ["Parameters", "Steps", *(f"{name} ↑" for name in CAS.values()), "n"]
    names = ["model", "source", "parameters", "steps", "n"]
    names += [x for m in (*MEASURED, *CAS) for x in (m, f"{m}_sd")]
    note = (
        "" if wanted else " The paper's values are of ImageNet: another data set, not comparable."
    )
    caption = (
        f"**Table 1.** Class-conditional samples against {run.protocol.get('reference', '?')}; in "
        "brackets the network that measures. Ours: mean ± standard deviation over n seeds. "
        "Parameters of the transformer and the tokenizer." + note
    )
    table = Table("table1", caption, head, rows, "l" + "r" * (len(head) - 1), data=(names, exact))
    blocks: list[Text | Table | Figure] = [table, Text(fid_note(run))]
    blocks += [Text(cas_note(run))] if cas_note(run) else []
    return Section("Table 1", [*blocks, *missing_note(run, {**MEASURED, **CAS})])


def _features(run: Run) -> tuple[str, str]:
    for entry in run.entries:
        if "features" in entry.cell:
            return str(entry.cell["features"][0]), str(entry.cell["features"][-1])
    return "?", "?"


def _rows(run: Run, found: list[Sampler]) -> list[Row]:
    paper = declared()["table1"]
    resolution = paper["resolution"].get(run.preset, 256)
    printed_rows = {r["model"]: r for r in paper["rows"] if r["resolution"] == resolution}
    # Each of the paper's two models beside ours: MaskGIT at the paper's T, or at our fewest.
    wanted = paper["steps"].get(run.preset, 8)
    T = next((s for s in found if s == ("maskgit", wanted)), None)
    T = T or next((s for s in found if s[0] == "maskgit"), ("maskgit", wanted))
    baseline = next((s for s in found if s[0] == "autoregressive"), ("autoregressive", 0))
    pairs = [
        (printed_rows["MaskGIT"], f"MaskGIT {resolution}", T),
        (printed_rows["VQGAN"], f"VQGAN {resolution} (the baseline)", baseline),
    ]
    same = run.preset in paper["resolution"]
    return paper_rows(run, "Table 1", paper, same, {**MEASURED, **CAS}, pairs)


# ---- figures ------------------------------------------------------------------------------------


def _figures(run: Run, found: list[Sampler]) -> list[Text | Figure]:
    seed = values_of(run, "seed")[:1]
    shown = [s for s in found if s[0] == "maskgit"][:1] + [s for s in found if s[0] != "maskgit"]
    columns: dict[str, dict[str, Any]] = {}
    for sampler in shown:
        entries = pick(run, part="measure", sampler=sampler[0], steps=sampler[1], seed=seed[0])
        stored = arrays(entries[0]) if entries else {}
        if "images" in stored:
            columns[name_of(sampler)] = stored
    real = pick(run, part="pictures")
    stored = arrays(real[0]) if real else {}
    if "images" in stored:
        columns[f"real ({real[0].result.get('protocol', {}).get('images', '')})"] = stored
    if not columns:
        return [Text("No samples are there.")]
    classes = sorted({int(c) for stored in columns.values() for c in stored["labels"]})
    strips, heads = [], []
    for name in columns:
        label = name.partition(" (")[0]
        heads += ["" if j != TILES // 2 else label for j in range(TILES + 1)]
    for c in classes:
        tiles: list[Tile | None] = []
        for stored in columns.values():
            images = stored["images"][stored["labels"] == c][:TILES]
            tiles += [Tile(image) for image in images]
            tiles += [None] * (TILES - len(images) + 1)
        strips.append(Strip(_class_name(run, c), tiles[:-1]))
    words = ", ".join(columns)
    figure = picture_grid(
        "figure5",
        "Samples of each class: MaskGIT, the baseline, real images",
        f"**Figures 5 and 11 to 13.** From left to right: {words}. The first samples of each class "
        f"at seed {seed[0] if seed else '?'}, not chosen by hand.",
        strips,
        heads[:-1],
        left=110,
    )
    return [figure]


def _class_name(run: Run, c: int) -> str:
    names = run.protocol.get("class_names", [])
    return str(names[c]) if c < len(names) else f"class {c}"


def _command(run: Run, found: list[Sampler]) -> str:
    words = ["python experiments/class_conditional.py"]
    steps = [str(s[1]) for s in found if s[0] == "maskgit"]
    seeds = sorted({e.cell["seed"] for e in run.entries if e.cell.get("part") == "measure"})
    words += [f"--T {','.join(steps)}"] if steps else []
    words += [f"--seeds {','.join(map(str, seeds))}"] if seeds else []
    words.append(f"--num-samples {run.protocol.get('num_samples', '?')}")
    words += cas_flags(run)
    return " ".join([*words, f"--preset {run.preset}"])


def cas_flags(run: Run) -> list[str]:
    """Flags that ask for the CAS cells of a run."""
    cells = [entry.cell for entry in run.entries if entry.cell.get("part") == "cas"]
    if not cells:
        return ["--cas-samples 0"]
    seeds = sorted({cell["seed"] for cell in cells})
    words = [f"--cas-samples {run.protocol['cas_samples']}"]
    words += [f"--cas-epochs {cells[0]['epochs']}"] if cells[0]["epochs"] else []
    words.append(f"--cas-validation {run.protocol['cas_validation']}")
    return [*words, f"--cas-seeds {','.join(map(str, seeds))}"]
