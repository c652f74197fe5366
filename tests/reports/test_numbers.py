"""The numbers in the report equal those computed from the result files by another route."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from reports.build import build
from reports.load import load_run
from reports.pages.ablate_schedule import make_page
from reports.pages.schedule_data import collect
from reports.pages.schedule_figures import gamma_of
from tests.reports.synthetic_run import SHAPES, gamma, make_result, write_run

ORDER = list(SHAPES)
METRICS = ["fid", "is", "precision", "recall", "kid", "nll"]


@pytest.fixture(scope="module")
def cells(run: Path) -> pd.DataFrame:
    """Straight from the result files, without the code under test."""
    rows = []
    for path in run.glob("cells/*/result.json"):
        result = json.loads(path.read_text())
        values = {name: metric["value"] for name, metric in result["metrics"].items()}
        rows.append({**result["cell"], **values})
    return pd.DataFrame(rows)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def test_table3_csv_has_the_best_T_and_its_mean_and_sd(report: Path, cells: pd.DataFrame):
    table = read(report / "table3.csv").set_index("schedule")
    assert list(table.index) == ORDER
    for schedule in ORDER:
        own = cells[cells["schedule"] == schedule]
        means = own.groupby("steps")["fid"].mean()
        best = means.idxmin()
        at_best = own[own["steps"] == best]
        assert table.loc[schedule, "best_T"] == best
        assert table.loc[schedule, "n"] == 3
        for metric in METRICS:
            got = table.loc[schedule, [f"{metric}_mean", f"{metric}_sd"]].tolist()
            want = [at_best[metric].mean(), at_best[metric].std(ddof=1)]
            assert got == pytest.approx(want, abs=1e-6)


def test_table3_in_the_report_prints_the_same_numbers(report: Path, cells: pd.DataFrame):
    text = (report / "report.md").read_text()
    for schedule in ORDER:
        own = cells[cells["schedule"] == schedule]
        best = own.groupby("steps")["fid"].mean().idxmin()
        at_best = own[own["steps"] == best]
        row = next(line for line in text.splitlines() if re.match(rf"\| {schedule} .*±", line))
        fields = [field.strip() for field in row.strip("|").split("|")]
        assert fields[1] == str(best)
        for place, metric, digits in [(3, "fid", 2), (4, "is", 2), (5, "precision", 3)]:
            mean, sd = at_best[metric].mean(), at_best[metric].std(ddof=1)
            assert fields[place] == f"{mean:.{digits}f} ± {sd:.{digits}f}"
        assert fields[8] == f"{SHAPES[schedule][3]:.3f}"  # the NLL is the model's: no spread


def test_table3_has_the_papers_numbers(report: Path):
    table = read(report / "table3.csv").set_index("schedule")
    printed = table.loc["cosine", ["paper_T", "paper_fid", "paper_is", "paper_nll"]].tolist()
    assert printed == [10, 6.06, 181.5, 4.22]
    assert table.loc["logarithmic", "paper_fid"] == 29.17


def test_the_latex_table_has_a_row_a_schedule_and_as_many_columns_as_its_head(report: Path):
    lines = (report / "table3.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 1 + len(ORDER)
    assert len({line.count("&") for line in rows}) == 1
    columns = re.search(r"tabular\}\{(\w+)\}", "\n".join(lines))
    assert columns is not None
    assert len(columns[1]) == rows[0].count("&") + 1


def test_curves_csv_equals_groupby(report: Path, cells: pd.DataFrame):
    table = read(report / "curves.csv").set_index(["schedule", "T"])
    grouped = cells.groupby(["schedule", "steps"])[METRICS].agg(["mean", "std", "count"])
    assert len(table) == len(grouped)
    for metric in METRICS:
        for part, ours in (("mean", "mean"), ("std", "sd"), ("count", "n")):
            want = grouped[metric][part].reindex(table.index)
            assert table[f"{metric}_{ours}"].tolist() == pytest.approx(want.tolist(), abs=1e-6)


def test_cells_csv_has_every_cell(report: Path, cells: pd.DataFrame):
    table = read(report / "cells.csv")
    assert len(table) == len(cells)
    merged = table.merge(cells, on=["schedule", "steps", "seed"])
    assert merged["fid_x"].tolist() == pytest.approx(merged["fid_y"].tolist(), abs=1e-6)


def test_sweet_spots_csv_has_the_rises(report: Path, cells: pd.DataFrame):
    table = read(report / "sweet_spots.csv").set_index("schedule")
    for schedule in ORDER:
        means = cells[cells["schedule"] == schedule].groupby("steps")["fid"].mean()
        got = table.loc[schedule]
        rises = [means[4] - means.min(), means[60] - means.min()]
        assert [got["rise_first"], got["rise_last"]] == pytest.approx(rises, abs=1e-6)
    assert table["sweet_spot"].to_dict() == {
        s: "no" if s == "logarithmic" else "yes" for s in ORDER
    }


def test_every_file_that_the_report_names_is_there(report: Path):
    text = (report / "report.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    assert {"figure8.png", "figure8.svg", "table3.csv", "table3.tex"} <= linked
    assert all((report / name).is_file() for name in linked)
    besides = {"report.md", "report.html", "summary.json", "SHA256SUMS"}
    written = {path.name for path in report.iterdir()} - besides
    assert written == linked


def test_pictures_are_under_300_kilobytes(report: Path):
    sizes = {path.name: path.stat().st_size for path in report.glob("*.png")}
    assert len(sizes) == 3 + 8
    assert max(sizes.values()) < 300_000


def test_the_finding_says_who_wins_with_the_numbers(run: Path, cells: pd.DataFrame):
    first, second = make_page(load_run(run)).finding
    means = cells.groupby(["schedule", "steps"])["fid"].mean()
    schedule, steps = means.idxmin()
    assert schedule == "cosine"
    assert "cosine reaches the lowest FID" in first
    assert f"{means.min():.2f} ± " in first
    assert f"at T = {steps}" in first
    assert "6 of 7 schedules have a sweet spot" in second


def test_bad_news_is_said(tmp_path: Path):
    """Square wins and FID falls all the way: the finding says so in as many words."""

    def value(schedule, T, seed):
        return {"square": 3.0, "cosine": 4.0}.get(schedule, 5.0) + 8 / T + 0.01 * seed

    write_run(tmp_path, steps=[4, 16, 60], value=value, samples=False)
    page = make_page(load_run(tmp_path))
    assert page.finding[0].startswith("Cosine does not win: of 7 mask schedules square reaches")
    assert "cosine is number 2 with 4.14 ± 0.01 at T = 60" in page.finding[0]
    assert "a difference of 1.00, more than" in page.finding[0]
    assert page.finding[1].startswith("No schedule has a sweet spot")
    verdicts = {v.claim: v.verdict for v in page.verdicts}
    assert [claim for claim in verdicts if verdicts[claim] == "not reproduced"] == [
        "sweet_spot",
        "later",
        "cosine_first",
    ]


def test_a_lead_within_the_noise_is_called_that(tmp_path: Path):
    def value(schedule, T, seed):
        return (4.0 if schedule == "cosine" else 4.1) + (T - 16) ** 2 / 400 + 0.5 * seed

    write_run(tmp_path, steps=[4, 16, 60], value=value, samples=False)
    assert "which is within the" in make_page(load_run(tmp_path)).finding[0]


def test_one_seed_has_no_spread_and_says_so(tmp_path: Path):
    write_run(tmp_path / "run", steps=[4, 8, 60], seeds=[7], samples=False)
    text = build(tmp_path / "run", tmp_path / "out").read_text()
    table = read(tmp_path / "out" / "table3.csv")
    assert table["fid_sd"].isna().all()
    assert "seed 7 (n=1)" in text
    assert "n=1 seed, so there are no error bars" in text
    assert "n=1 seed, so there is no standard deviation" in text
    assert "±" not in text.split("## Table 3")[1].split("\n\n")[1]
    assert "more than 5% (n=1, so the noise is unknown)" in text


def test_one_schedule_and_one_T_still_make_a_report(tmp_path: Path):
    write_run(tmp_path / "run", ["cosine"], steps=[8], seeds=[0])
    text = build(tmp_path / "run", tmp_path / "out").read_text()
    assert "Only cosine has results" in text
    assert "Only T = 8 ran, so nothing can be said about iterations." in text
    assert text.count("**not run** (no FID for exponential, cubic,") == 4
    assert (tmp_path / "out" / "samples_cosine.png").is_file()


def test_a_schedule_that_the_paper_lacks_stands_last_without_papers_numbers(tmp_path: Path):
    def value(schedule, T, seed):
        return 4.0 + T / 60 + 0.01 * seed

    SHAPES["arccos"] = SHAPES["cosine"]
    try:
        write_run(
            tmp_path / "run",
            ["arccos", "sqrt", "cosine"],
            steps=[4, 60],
            value=value,
            samples=False,
            store_gamma=False,
        )
    finally:
        del SHAPES["arccos"]
    build(tmp_path / "run", tmp_path / "out")
    with (tmp_path / "out" / "table3.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["schedule"] for row in rows] == ["cosine", "sqrt", "arccos"]
    assert rows[-1]["paper_fid"] == ""


def test_the_left_panel_shows_the_stored_curves(run: Path):
    data = collect(load_run(run), ORDER)
    assert gamma_of(data) == {schedule: gamma(schedule) for schedule in ORDER}
    data.run.protocol["gamma"] = {"cosine": [1.0, 0.0]}
    assert gamma_of(data) == {}  # not the 101 values agreed on


def test_without_stored_curves_the_left_panel_is_left_out_and_the_report_says_so(tmp_path: Path):
    write_run(tmp_path / "run", steps=[4, 60], store_gamma=False, samples=False)
    text = build(tmp_path / "run", tmp_path / "out").read_text()
    assert "The run stored no curve gamma(r), so the left panel is left out." in text
    assert "Left:" not in text


def test_nan_and_missing_metrics_stay_out_of_the_means_and_are_told(tmp_path: Path):
    run = write_run(tmp_path / "run", ["cosine", "square"], steps=[4, 8], seeds=[0, 1, 2])
    grid = json.loads((run / "grid.json").read_text())
    chosen = [c for c in grid["cells"] if c["cell"]["schedule"] == "cosine"][:3]  # T=4
    for item, change in zip(chosen, ("nan", "gone", "whole"), strict=True):
        path = run / "cells" / item["key"] / "result.json"
        result = make_result(item["key"], item["cell"], 1.0)
        if change == "nan":
            result["metrics"]["fid"]["value"] = float("nan")
        elif change == "gone":
            del result["metrics"]["fid"]
            result["missing"]["fid"] = "fewer samples than features"
        path.write_text(json.dumps(resealed(result)))
    text = build(run, tmp_path / "out").read_text()
    curves = read(tmp_path / "out" / "curves.csv").set_index(["schedule", "T"])
    assert curves.loc[("cosine", 4), "fid_n"] == 1
    assert curves.loc[("cosine", 4), "fid_mean"] == 1.0
    assert curves.loc[("cosine", 4), "is_n"] == 3
    # One seed at T = 4 must not beat three at T = 8, however low it is.
    table = read(tmp_path / "out" / "table3.csv").set_index("schedule")
    assert table.loc["cosine", "best_T"] == 8
    assert "- fid: 1 x fewer samples than features" in text
    assert "- fid: 1 x not a finite number" in text


def resealed(result: dict) -> dict:
    from reports.load import checksum

    return {**result, "checksum": checksum(result)}


def test_two_protocols_never_share_a_column(tmp_path: Path):
    """Cells measured otherwise are set aside and named; the rest makes the table."""
    run = write_run(tmp_path / "run", ["cosine"], steps=[4, 8, 16], seeds=[0, 1, 2])
    grid = json.loads((run / "grid.json").read_text())
    kept = [c for c in grid["cells"] if c["cell"]["steps"] == 8]
    item = kept[0]
    result = make_result(item["key"], item["cell"], 0.5)
    result["protocol"]["reference_n"] = 10_000
    (run / "cells" / item["key"] / "result.json").write_text(json.dumps(resealed(result)))
    other = kept[1]
    result = make_result(other["key"], other["cell"], 0.5)
    result["metrics"]["fid"]["id"] = "fid.fashion-resnet.v2"
    (run / "cells" / other["key"] / "result.json").write_text(json.dumps(resealed(result)))
    third = kept[2]
    result = make_result(third["key"], third["cell"], 0.5)
    result["protocol"]["weights"]["transformer"] = "0" * 64
    (run / "cells" / third["key"] / "result.json").write_text(json.dumps(resealed(result)))
    text = build(run, tmp_path / "out").read_text()
    curves = read(tmp_path / "out" / "curves.csv").set_index(["schedule", "T"])
    assert curves.loc[("cosine", 8), "fid_n"] == 0
    assert curves.loc[("cosine", 8), "is_n"] == 1
    assert "7 of 9 cells, 2 set aside" in text
    assert "- 1 x other protocol: seed=0 steps=8" in text
    assert "- 1 x other transformer weights: seed=2 steps=8" in text
    assert "- fid: 1 x measured as fid.fashion-resnet.v2" in text


def test_unequal_training_budgets_are_not_comparable(tmp_path: Path):
    run = write_run(tmp_path / "run", steps=[4, 60], samples=False)
    grid = json.loads((run / "grid.json").read_text())
    grid["models"]["cosine"]["budget"]["steps"] = 9000
    (run / "grid.json").write_text(json.dumps(grid))
    page = make_page(load_run(run))
    assert {v.verdict for v in page.verdicts} == {"not comparable"}
    assert "different training budgets" in page.verdicts[0].why[0]


def test_one_transformer_for_all_schedules_is_not_comparable(tmp_path: Path):
    run = write_run(tmp_path / "run", steps=[4, 60], samples=False)
    for path in run.glob("cells/*/result.json"):
        result = json.loads(path.read_text())
        result["protocol"]["weights"]["transformer"] = "1" * 64
        path.write_text(json.dumps(resealed(result)))
    page = make_page(load_run(run))
    assert {v.verdict for v in page.verdicts} == {"not comparable"}
    assert page.verdicts[0].why == (
        "one transformer serves several schedules; the paper trains one for each",
    )


def test_the_command_is_the_one_that_the_run_stored(tmp_path: Path):
    run = write_run(tmp_path / "run", ["cosine"], steps=[4], seeds=[0], samples=False)
    line = "The command that asks for these cells: `python experiments/x.py --T 4 --preset A`\n"
    text = build(run, tmp_path / "with").read_text()
    assert line not in text
    grid = json.loads((run / "grid.json").read_text())
    grid["command"] = "python experiments/x.py --T 4 --preset A"
    (run / "grid.json").write_text(json.dumps(grid))
    assert line in build(run, tmp_path / "with").read_text()


def test_metrics_that_were_not_asked_for_are_no_gap(tmp_path: Path):
    run = write_run(tmp_path / "run", ["cosine"], steps=[4, 8], samples=False)
    grid = json.loads((run / "grid.json").read_text())
    grid["protocol"]["metrics"] = {"fid": "fid.fashion-resnet.v1"}
    (run / "grid.json").write_text(json.dumps(grid))
    for path in run.glob("cells/*/result.json"):
        result = json.loads(path.read_text())
        result["metrics"] = {"fid": result["metrics"]["fid"]}
        path.write_text(json.dumps(resealed(result)))
    text = build(run, tmp_path / "report").read_text()
    assert "Metrics that finished cells do not have" not in text
    assert "No cell has these metrics." in text
    assert "precision_mean" not in (tmp_path / "report" / "curves.csv").read_text()


def test_two_values_of_T_cannot_show_a_sweet_spot(tmp_path: Path):
    write_run(tmp_path, steps=[4, 12], samples=False)
    second = make_page(load_run(tmp_path)).finding[1]
    assert second == "Only T = 4 and 12 ran, between which a sweet spot cannot be seen."


def test_cards_are_split_into_what_is_alike_and_what_differs(tmp_path: Path):
    """A decay called cosine is alike in all cards, although one schedule has this name too."""
    run = write_run(tmp_path / "run", ["cosine", "linear"], steps=[4, 8], samples=False)
    grid = json.loads((run / "grid.json").read_text())
    for card in grid["models"].values():
        card["budget"]["decay"] = "cosine"
    (run / "grid.json").write_text(json.dumps(grid))
    text = build(run, tmp_path / "report").read_text()
    assert re.search(r"\| budget decay +\| cosine ", text)
    assert re.search(r"\| name +\| transformer-SCHEDULE ", text)
    assert re.search(r"\| Network +\| nll +\| sha256 +\|", text)
