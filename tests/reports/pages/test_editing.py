"""The pages on iterations, editing, panoramas and failures: numbers, reasons, the same bytes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports.build import build
from reports.figures.animation import animation
from reports.figures.pictures import Tile, mask_tile, render, resized
from reports.load import load_run
from tests.reports.study_run import editing_run, failures_run, panorama_run, pictures, trace_run

RUNS = {
    "decoding_trace": trace_run,
    "editing": editing_run,
    "panorama": panorama_run,
    "failure_cases": failures_run,
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    """Experiment -> the folder of its report."""
    root = tmp_path_factory.mktemp("studies")
    return {
        name: build(write(root / name), root / f"{name} report").parent
        for name, write in RUNS.items()
    }


def text(folder: Path) -> str:
    return (folder / "report.md").read_text()


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


# ---- all pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_two_builds_are_byte_identical(name, reports, tmp_path):
    RUNS[name](tmp_path / "elsewhere")
    again = build(tmp_path / "elsewhere", tmp_path / "again").parent
    files = {path.name for path in again.iterdir()}
    assert files == {path.name for path in reports[name].iterdir()}
    for file in files:
        assert (again / file).read_bytes() == (reports[name] / file).read_bytes(), file


@pytest.mark.parametrize("name", RUNS)
def test_every_picture_of_a_page_is_there_and_every_row_has_a_verdict(name, reports):
    import re

    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text(reports[name])):
        with Image.open(reports[name] / picture) as image:
            image.verify()
    for row in summary(reports[name])["rows"]:
        assert row["verdict"]
        assert row["verdict"] == "reproduced" or row["why"]


def test_cells_without_arrays_still_make_a_page(tmp_path):
    for name, write in RUNS.items():
        run = write(tmp_path / name)
        for path in run.glob("cells/*/samples.npz"):
            path.unlink()
        assert build(run, tmp_path / f"{name} report").stat().st_size > 1000


def test_nothing_done_makes_pages_that_say_so(tmp_path):
    for name, write in RUNS.items():
        run = write(tmp_path / name)
        for path in run.glob("cells/*/result.json"):
            path.unlink()
        folder = build(run, tmp_path / f"{name} report").parent
        assert {v["verdict"] for v in summary(folder)["verdicts"]} == {"not run"}
        assert {row["verdict"] for row in summary(folder)["rows"]} == {"not run"}


# ---- editing -------------------------------------------------------------------------------------


def test_table_2_is_the_mean_and_sd_of_its_cells_beside_the_paper_s_values(reports):
    rows = rows_of(reports["editing"] / "table2.csv")
    ours = {(r["task"], r["method"]): r for r in rows if r["source"] == "ours"}
    for task in ("outpaint-right", "inpaint-center"):
        row = ours[task, "maskgit"]
        assert (float(row["fid"]), float(row["fid_sd"]), row["n"]) == (3.0, 1.0, "3")
        assert float(ours[task, "mean"]["fid"]) == 12
        assert ours[task, "mean"]["fid_sd"] == ""
    assert float(ours["none", "real"]["fid"]) == 0.5
    paper = [r for r in rows if r["source"] == "paper"]
    assert len(paper) == 10
    assert {float(r["fid"]) for r in paper} >= {35.02, 6.78, 7.13, 7.92}
    page = text(reports["editing"])
    assert "| outpaint right 50%       | MaskGIT                          | 3.00 ± 1.00" in page
    assert "MaskGIT (512), paper's value" in page


def test_editing_compares_numbers_with_the_paper_on_its_own_preset_only(reports, tmp_path):
    rows = summary(reports["editing"])["rows"]
    assert [row["paper"] for row in rows] == ["6.78", "11.69", "7.92", "22.95"]
    assert {row["verdict"] for row in rows} == {"not comparable"}
    assert {row["difference"] for row in rows} == {"–"}


def test_a_baseline_that_is_not_there_says_why(tmp_path):
    run = editing_run(tmp_path / "run", biharmonic=False)
    folder = build(run, tmp_path / "report").parent
    assert "biharmonic inpainting: scikit-image is not installed" in text(folder)
    verdict = summary(folder)["verdicts"][0]
    assert verdict["verdict"] == "trend reproduced"
    assert verdict["why"] == ["biharmonic: scikit-image is not installed"]


def test_the_verdicts_of_editing(reports):
    found = {v["claim"]: v for v in summary(reports["editing"])["verdicts"]}
    assert found["table2_baselines"]["verdict"] == "reproduced"
    assert (
        "outpaint-right 3.00 (mean fill 12.00, biharmonic 9.00)"
        in found["table2_baselines"]["ours"]
    )
    assert found["figure16_directions"]["verdict"] == "not run"  # two directions were not asked for
    assert found["figure6_class"]["verdict"] == "reproduced"


# ---- iterations, panoramas, failures -------------------------------------------------------------


def test_the_animation_shows_a_frame_a_step_and_plays_for_ever(reports):
    with Image.open(reports["decoding_trace"] / "figure2_animated.gif") as image:
        assert image.n_frames == 16
        assert image.info["loop"] == 0


def test_a_trace_counts_what_each_iteration_fixes(reports, tmp_path):
    assert summary(reports["decoding_trace"])["facts"]["kept"] == [1, 3, 5, 7]
    rows = rows_of(reports["decoding_trace"] / "unknown.csv")
    ours = [r for r in rows if r["Sampler"] == "MaskGIT"]
    assert [r["Still unknown after it"] for r in ours] == ["15", "12", "7", "0"]
    alone = build(trace_run(tmp_path / "run", baseline=False), tmp_path / "report").parent
    assert "The baseline is not there (no such file)." in text(alone)
    assert [r["verdict"] for r in summary(alone)["rows"]] == ["not comparable", "not run"]


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((1.0, 1.1, 1.2), "reproduced"),
        ((1.0,), "trend reproduced"),
        ((1.4, 1.3), "trend reproduced"),
        ((1.7, 1.6), "not reproduced"),
    ],
)
def test_seams(tmp_path, ratios, verdict):
    folder = build(panorama_run(tmp_path / "run", ratios), tmp_path / "report").parent
    found = summary(folder)
    assert found["verdicts"][0]["verdict"] == verdict
    assert found["facts"]["ratio"]["2"] == pytest.approx(np.mean(ratios))
    (row,) = rows_of(folder / "seams.csv")
    assert float(row["seams_mean"]) == pytest.approx(10 * np.mean(ratios), abs=1e-6)


def test_failures_are_counted_over_seeds(reports):
    rows = rows_of(reports["failure_cases"] / "classes.csv")
    first = rows[0]
    assert (first["wrong"], first["samples"], first["wrong_real"]) == ("30", "20", "15")
    found = {v["claim"]: v["verdict"] for v in summary(reports["failure_cases"])["verdicts"]}
    assert found == {"figure21_samples": "reproduced", "figure21_boundary": "reproduced"}
    assert "50.0% of the samples" in text(reports["failure_cases"])


# ---- pictures ------------------------------------------------------------------------------------


def test_a_hidden_part_does_not_show_its_pixels():
    hidden = np.zeros((16, 16), bool)
    hidden[4:12, 4:12] = True
    first, second = pictures(16, 16, 1, seed=1), pictures(16, 16, 1, seed=2)
    second[~hidden] = first[~hidden]
    np.testing.assert_array_equal(
        render(Tile(first, hidden=hidden)), render(Tile(second, hidden=hidden))
    )
    shown = render(Tile(first, hidden=hidden))
    outside = ~resized(hidden, shown.shape)
    np.testing.assert_array_equal(shown[outside], render(Tile(first))[outside])


def test_a_box_is_outlined_and_nothing_else_changes():
    box = np.zeros((16, 16), bool)
    box[2:10, 3:13] = True
    image = pictures(16, 16, 1)
    changed = (render(Tile(image, box=box)) != render(Tile(image))).any(axis=2)
    large = resized(box, changed.shape)
    assert not changed[~large].any()
    inner = np.zeros_like(large)
    inner[14:58, 20:76] = True  # two pixels inside the box at 6 pixels a pixel
    assert not changed[inner].any()
    assert changed[large & ~inner].mean() > 0.99


def test_masks_are_light_where_unknown():
    masked = np.array([[True, False], [False, True]])
    picture = mask_tile(masked, 8)
    assert picture[2, 2].tolist() == picture[6, 6].tolist() == [214, 214, 214]
    assert picture[2, 6].tolist() == picture[6, 2].tolist() == [72, 72, 72]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_has_its_frames_and_the_same_bytes_again(tmp_path, channels):
    frames = [np.broadcast_to(pictures(8, 8, channels, seed=s), (8, 8, 3)).copy() for s in (1, 2)]
    for name in ("a", "b"):
        animation(name, "alt", frames, [100, 300]).write(tmp_path)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 2
        for i, frame in enumerate(frames):
            image.seek(i)
            assert image.info["duration"] == [100, 300][i]
            shown = np.asarray(image.convert("RGB")).astype(int)
            error = np.abs(shown - frame).max()
            assert error == 0 if channels == 1 else error < 64  # 128 colours for 64 pixels


def test_pages_of_the_paper_s_preset_hold_numbers_against_it(tmp_path):
    run = editing_run(tmp_path / "run")
    grid = json.loads((run / "grid.json").read_text())
    (run / "grid.json").write_text(json.dumps({**grid, "preset": "places2"}))
    assert load_run(run).preset == "places2"
    rows = summary(build(run, tmp_path / "report").parent)["rows"]
    assert [row["verdict"] for row in rows] == ["not reproduced"] * 4
    assert rows[0]["difference"] == "-3.78"
