"""Metrics that could not be computed: the report is whole, and says what is missing and why."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from reports.build import build
from reports.load import load_run
from reports.pages.ablate_schedule import make_page
from reports.pages.schedule_data import brief
from tests.reports.synthetic_run import checksum, write_run

WEIGHTS = "weights of net not found: expected .../net.pth (a command downloads it); missing: all"
DATA = "held-out images do not ship: give --data FOLDER"
METRICS = ("fid", "is", "precision", "recall", "kid", "nll")


def without(run: Path, reasons: dict[str, str], grid: dict | None = None, **cell: str) -> Path:
    """Take metrics out of every cell, as the engine leaves them out; add to cells and protocol."""
    content = json.loads((run / "grid.json").read_text())
    content["protocol"] |= grid or {}
    for item in content["cells"]:
        item["cell"] |= cell
        path = run / "cells" / item["key"] / "result.json"
        result = json.loads(path.read_text())
        result["cell"] = item["cell"]
        for name, reason in reasons.items():
            del result["metrics"][name]
            result["missing"][name] = reason
        result["checksum"] = checksum(result)
        path.write_text(json.dumps(result))
    (run / "grid.json").write_text(json.dumps(content))
    return run


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", ["cosine", "linear"], steps=[4, 8, 16], seeds=[0])
    return without(run, {**dict.fromkeys(METRICS, WEIGHTS), "nll": DATA})


def test_cells_without_any_metric_make_a_report_that_says_why(bare: Path, tmp_path: Path):
    text = build(bare, tmp_path / "out").read_text()
    assert "No cell has a FID (weights of net not found), so nothing can be said" in text
    assert text.count("**not run** (no FID for any schedule of the paper: weights of net") == 4
    assert f"fid, is, precision, recall, kid: 6 x {WEIGHTS}" in text
    assert f"nll: 6 x {DATA}" in text
    assert "No cell has a value of recall: weights of net not found." in text
    assert "6 of 6 cells" in text
    table = pd.read_csv(tmp_path / "out" / "table3.csv").set_index("schedule")
    assert table["fid_mean"].isna().all()
    assert table.loc["cosine", "paper_fid"] == 6.06
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"figure8.png", "samples_cosine.png", "samples_linear.png", "samples_best.png"} <= names
    assert "Every schedule at its T next to 8, as no cell has a FID." in text


def test_the_empty_panel_says_why_it_is_empty(bare: Path):
    page = make_page(load_run(bare))
    gamma, quality = page.values["figure8"].canvas.axes
    assert len(gamma.lines) > 0
    assert not quality.lines
    words = " ".join(quality.texts[0].get_text().split())
    assert words == "No cell has a FID: weights of net not found"


def test_what_is_there_is_reported_beside_what_is_missing(tmp_path: Path):
    """Without a reference the Inception Score stands, and nothing else does."""
    run = write_run(tmp_path / "run", ["cosine"], steps=[4, 8], seeds=[0, 1], samples=False)
    reason = "reference 'x': there is none of this name here; a command makes it"
    without(run, dict.fromkeys(("fid", "precision", "recall", "kid"), reason))
    text = build(run, tmp_path / "out").read_text()
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert curves["is_n"].tolist() == [2, 2]
    assert curves["fid_n"].tolist() == [0, 0]
    assert (tmp_path / "out" / "inception_score.png").is_file()
    assert not (tmp_path / "out" / "precision_recall.png").exists()
    assert (
        "No cell has a value of precision: reference 'x': there is none of this name here." in text
    )


def test_one_transformer_for_all_schedules_is_told(tmp_path: Path):
    run = write_run(tmp_path / "run", ["cosine"], steps=[4], seeds=[0], samples=False)
    without(run, {}, {"transformer": "one transformer for all"})
    assert "Models: one transformer for all." in build(run, tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("reason", "head"),
    [
        (WEIGHTS, "weights of net not found"),
        (DATA, DATA),
        ("reference 'x': none here; make it", "reference 'x': none here"),
    ],
)
def test_a_reason_in_brief_keeps_its_head(reason: str, head: str):
    assert brief(reason) == head
