"""The folder of a report: same bytes from the same cells, no half reports, errors in one line."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskgit.common.errors import UsageError
from reports.build import MANIFEST, build, main
from reports.load import checksum, load_run, one_line
from tests.paths import ROOT
from tests.reports.synthetic_run import write_run

SMALL = {"schedules": ["cosine", "logarithmic"], "steps": [4, 8, 60], "seeds": [0, 1]}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", **SMALL)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def key_of(run: Path, schedule: str, T: int, seed: int) -> str:
    for item in json.loads((run / "grid.json").read_text())["cells"]:
        cell = item["cell"]
        if (cell["schedule"], cell["steps"], cell["seed"]) == (schedule, T, seed):
            return item["key"]
    raise KeyError


# ---- the same bytes -----------------------------------------------------------------------------


def test_two_builds_are_byte_identical(report: Path, run: Path, tmp_path: Path):
    build(run, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(report)


def test_another_process_folder_and_order_give_the_same_bytes(report: Path, tmp_path: Path):
    """Another hash seed, working folder, run folder, order of cells; a cold start of matplotlib."""
    run = write_run(tmp_path / "elsewhere" / "copy of a run", reverse=True)
    environment = dict(os.environ, PYTHONHASHSEED="7", PYTHONPATH=str(ROOT))
    subprocess.run(
        [sys.executable, "-m", "reports.build", run, "--out", "fresh"],
        check=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
    )
    assert digests(tmp_path / "fresh") == digests(report)


def test_a_users_matplotlib_settings_change_nothing(small: Path, tmp_path: Path):
    import matplotlib

    build(small, tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 40}):
        build(small, tmp_path / "styled")
    assert digests(tmp_path / "plain") == digests(tmp_path / "styled")


def test_one_changed_number_changes_the_bytes(small: Path, tmp_path: Path):
    build(small, tmp_path / "before")
    path = small / "cells" / key_of(small, "cosine", 8, 0) / "result.json"
    result = json.loads(path.read_text())
    result["metrics"]["fid"]["value"] += 0.5
    result["checksum"] = checksum(result)
    path.write_text(json.dumps(result))
    build(small, tmp_path / "after")
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    changed = {name for name in before if before[name] != after[name]}
    assert {"report.md", "figure8.png", "figure8.svg", "table3.csv", "cells.csv"} <= changed


def test_no_dates_paths_or_program_names(report: Path, run: Path):
    for path in report.iterdir():
        content = path.read_bytes()
        assert str(run).encode() not in content
        assert b"/tmp" not in content
        if path.suffix == ".svg":
            assert b"<dc:date>" not in content
            assert b"matplotlib.org" not in content
        if path.suffix == ".png":
            assert b"Software" not in content
        if path.suffix in (".md", ".csv", ".json"):
            assert not re.search(rb"20\d\d-\d\d-\d\d", content)


def test_timing_files_are_never_read(small: Path, tmp_path: Path):
    build(small, tmp_path / "without")
    for folder in (small / "cells").iterdir():
        (folder / "timing.json").write_text('{"seconds": 1.5, "host": "elsewhere"}')
    build(small, tmp_path / "with")
    assert digests(tmp_path / "without") == digests(tmp_path / "with")


# ---- the folder ---------------------------------------------------------------------------------


def test_the_manifest_is_what_sha256sum_writes(report: Path):
    lines = (report / MANIFEST).read_text().splitlines()
    listed = {line[66:]: line[:64] for line in lines}
    actual = digests(report)
    del actual[MANIFEST]
    assert listed == actual


def test_a_new_report_replaces_an_old_one_whole(small: Path, tmp_path: Path):
    out = tmp_path / "report"
    build(small, out)
    write_run(small, ["cosine"], [4, 8], [0])
    build(small, out)
    assert "4 of 4 cells" not in (out / "report.md").read_text()
    assert "2 of 2 cells" in (out / "report.md").read_text()
    assert not (out / "samples_logarithmic.png").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report", "run"]


def test_a_build_that_fails_leaves_the_old_report(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "report"
    build(small, out)
    before = digests(out)

    def fail(folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("reports.build._write_manifest", fail)
    with pytest.raises(OSError, match="disk full"):
        build(small, out)
    assert digests(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report", "run"]


def test_what_a_killed_build_left_is_swept(small: Path, tmp_path: Path):
    out = tmp_path / "report"
    code = (
        "import os, reports.build as b\n"
        "b._swap = lambda *a: os._exit(9)\n"
        f"b.build({str(small)!r}, {str(out)!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 9
    assert not out.exists()
    assert len(list(tmp_path.glob(".report.new.*"))) == 1
    build(small, out)
    assert (out / "report.md").is_file()
    assert not list(tmp_path.glob(".report.*"))


def test_two_builds_at_once_both_end_well(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another runner's report appears between the two renames."""
    out, replace, calls = tmp_path / "report", os.replace, []

    def interfering(source, target):
        calls.append(target)
        if len(calls) == 2:
            shutil.copytree(source, target)
        replace(source, target)

    monkeypatch.setattr("reports.build.os.replace", interfering)
    assert build(small, out).is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report", "run"]
    assert len(calls) == 4


def test_foreign_files_in_out_are_never_deleted(small: Path, tmp_path: Path):
    out = tmp_path / "report"
    build(small, out)
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds thesis\.tex, which is not part of a report"):
        build(small, out)
    with pytest.raises(UsageError, match=r"holds \S+, which is not part of a report"):
        build(small, small)
    assert (out / "thesis.tex").read_text() == "years of work"
    assert (small / "grid.json").is_file()


# ---- states of cells ----------------------------------------------------------------------------


def test_failed_missing_and_tampered_cells_are_told(small: Path, tmp_path: Path):
    def place(T: int, seed: int) -> Path:
        return small / "cells" / key_of(small, "cosine", T, seed)

    (place(4, 0) / "result.json").unlink()
    (place(4, 0) / "failure.json").write_text(
        json.dumps({"error": "OutOfMemory: at /home/me/weights.bin | 8 GB", "attempts": 2})
    )
    shutil.rmtree(place(8, 0))
    tampered = json.loads((place(8, 1) / "result.json").read_text())
    tampered["metrics"]["fid"]["value"] = 0.1
    (place(8, 1) / "result.json").write_text(json.dumps(tampered))
    truncated = (place(60, 1) / "result.json").read_text()[:100]
    (place(60, 1) / "result.json").write_text(truncated)
    text = build(small, tmp_path / "report").read_text()
    assert "8 of 12 cells, 1 failed, 3 missing:" in text
    assert "- 1 x OutOfMemory: at …/weights.bin \\| 8 GB: schedule=cosine seed=0 steps=4" in text
    assert "- 1 x checksum: schedule=cosine seed=1 steps=8" in text
    assert "- 1 x no result: schedule=cosine seed=0 steps=8" in text
    assert "- 1 x result.json unreadable: schedule=cosine seed=1 steps=60" in text
    with (tmp_path / "report" / "curves.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["schedule"] == "cosine"]
    assert [(row["T"], row["fid_n"]) for row in rows] == [("4", "1"), ("60", "1")]


def test_a_finished_cell_with_an_old_failure_is_done(small: Path):
    key = key_of(small, "cosine", 4, 0)
    (small / "cells" / key / "failure.json").write_text('{"error": "first try"}')
    assert {entry.status for entry in load_run(small).entries} == {"done"}


def test_a_result_of_another_cell_is_missing(small: Path):
    one, other = (small / "cells" / key_of(small, "cosine", T, 0) for T in (4, 8))
    shutil.copy(one / "result.json", other / "result.json")
    reasons = [entry.reason for entry in load_run(small).with_status("missing")]
    assert reasons == ["result of another cell"]


def test_cells_that_were_not_asked_for_are_ignored(small: Path, tmp_path: Path):
    build(small, tmp_path / "before")
    extra = write_run(tmp_path / "other", ["linear"], [8], [0])
    for folder in (extra / "cells").iterdir():
        shutil.copytree(folder, small / "cells" / folder.name)
    build(small, tmp_path / "after")
    assert digests(tmp_path / "before") == digests(tmp_path / "after")


def test_nothing_done_yet_is_a_report_too(small: Path, tmp_path: Path):
    shutil.rmtree(small / "cells")
    text = build(small, tmp_path / "report").read_text()
    assert "No cell has a FID, so nothing can be said about the schedules." in text
    assert "0 of 12 cells, 12 missing" in text
    assert text.count("**not run**") == 4


@pytest.mark.parametrize("damage", ["absent", "truncated", "pickled", "wrong shape"])
def test_samples_that_cannot_be_read_are_left_out(small: Path, tmp_path: Path, damage: str):
    for path in small.glob("cells/*/samples.npz"):
        if damage == "absent":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[:100])
        elif damage == "pickled":
            np.savez(path, images=np.array([{}], dtype=object), labels=np.array([0]))
        else:
            np.savez(path, images=np.zeros((3, 8), np.uint8), labels=np.zeros(3))
    text = build(small, tmp_path / "report").read_text()
    assert "No samples were stored with these cells." in text


# ---- one clear line -----------------------------------------------------------------------------


def grid_with(**changes):
    grid = {"schema": 2, "experiment": "ablate_schedule", "preset": "embedded"}
    grid |= {"cells": [], "protocol": {}, "models": {}, "metrics": {}}
    return json.dumps(grid | changes)


def cells_of(**changes):
    cell = {"schedule": "cosine", "steps": 4, "seed": 0} | changes
    return [{"key": "k", "cell": cell}]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (None, "no grid.json in it; expected the --out folder of an experiment"),
        ("{", "grid.json: not readable as JSON"),
        ("[]", "grid.json: expected a JSON object, got list"),
        (grid_with(schema=1), "grid.json: of schema 1; this version reads schema 2"),
        (grid_with(experiment="bake_cake"), "'bake_cake'; there are reports for ablate_schedule"),
        (grid_with(experiment=None), "grid.json: experiment None; expected a name"),
        (grid_with(), "grid.json: no cells; expected at least one"),
        (grid_with(cells={}), "cells must be a list of {key, cell}"),
        (grid_with(cells=[{"key": "../../etc", "cell": {}}]), "with plain folder names"),
        (grid_with(cells=cells_of(steps="8")), "cell k has schedule='cosine' steps='8' seed=0"),
        (grid_with(cells=[*cells_of(), {**cells_of()[0], "key": "j"}]), "T=4 seed=0 twice"),
        (grid_with(cells=cells_of(), models=[]), "models must be an object"),
        (grid_with().replace(', "metrics": {}', ""), "of the metrics; run the same command again"),
        (grid_with(metrics={"fid": {"label": 1}}), "metrics must be {name: {label, digits, dir"),
    ],
)
def test_what_is_not_a_run_is_refused_in_one_line(tmp_path, capsys, grid, message):
    if grid is not None:
        (tmp_path / "grid.json").write_text(grid)
    assert main([str(tmp_path), "--out", str(tmp_path / "report")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "report").exists()


def test_out_on_a_file_is_refused(small: Path, tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(small), "--out", str(tmp_path / "file")]) == 2
    assert "is a file; expected a folder" in capsys.readouterr().err
    assert main([str(small), "--out", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_command_line_prints_the_path_alone(small: Path, capsys):
    assert main([str(small)]) == 0
    assert capsys.readouterr().out.strip() == str(small.resolve() / "report" / "report.md")


def test_help_needs_neither_matplotlib_nor_pandas():
    code = (
        "import sys\nfrom reports.build import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'matplotlib', 'pandas', 'jinja2', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n b\tc", "a b c"),
        ("cannot read /home/me/x/weights.bin: gone", "cannot read …/weights.bin: gone"),
        ("'/usr/lib/a.so' and 1/2", "'…/a.so' and 1/2"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_one_line(text: str, expected: str):
    assert one_line(text) == expected
