"""`experiments.engine.check`: each kind of damage is found and named; nothing else is touched."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.engine.check import check, main, quarantine
from experiments.engine.grid import grid_json, write_grid
from experiments.engine.run.runner import Runner
from experiments.engine.run.signals import Stopper
from experiments.engine.store.blocks import Blocks
from experiments.engine.store.lease import Leases
from experiments.engine.store.stages import Stages
from experiments.engine.store.store import Store, checksum
from maskgit.common.errors import UsageError
from tests.experiments.engine.engine_doubles import Trivial, tasks

KEY = "ab" * 32


@pytest.fixture
def run(tmp_path):
    """A finished run of six cells, with a stage of each kind."""
    folder = tmp_path / "run"
    compute(folder)
    stages = Stages(folder)
    stages.kept("tokens", KEY, lambda: np.zeros((3, 4), np.uint16))
    Blocks(stages, "tokens", KEY, 6, 3, lambda ids: np.zeros((3, 4), np.uint16)).read()
    Blocks(stages, "features", KEY, 6, 3, lambda ids: {"features": np.zeros((3, 2))}).read()
    stages.kept("likelihood", KEY, lambda: {"value": 1.0})
    return folder


def compute(folder, **behave):
    grid = tasks(6, **behave)
    store = Store(folder)
    store.prepare()
    write_grid(folder, grid_json("trivial", "none", grid, {}, {}))
    with Stopper() as stopper:
        Runner(Trivial(folder.parent / "log"), store, workers=0).run(grid, stopper)
    return grid


def cell(run, index):
    return run / "cells" / tasks(6)[index].key


def kinds(run):
    return sorted((f.kind, f.path) for f in check(run).findings)


def content(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def damage(path, where=0.5):
    """Another bit in a byte."""
    held = bytearray(path.read_bytes())
    held[int(len(held) * where)] ^= 1
    path.write_bytes(held)


def test_a_whole_run_is_clean(run, capsys):
    assert check(run).findings == ()
    before = content(run)
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == "6 of 6 cells are done and sound\n"
    assert content(run) == before


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_any_changed_bit_of_a_result_is_found(run, where):
    path = cell(run, 2) / "result.json"
    damage(path, where)
    found = check(run)
    assert [(f.kind, run / f.path) for f in found.findings] == [("damaged", path)]
    assert found.sound == 5


@pytest.mark.parametrize("name", ["samples.npz", "timing.json"])
def test_a_truncated_file_beside_a_result_is_found(run, name):
    path = cell(run, 3) / name
    path.write_bytes(path.read_bytes()[:-30])
    assert kinds(run) == [("damaged", str(path.relative_to(run)))]
    assert check(run).sound == 5


@pytest.mark.parametrize(
    "name",
    [
        *(f"tokens/{KEY}.npy", f"tokens/{KEY}/00001.npy", f"features/{KEY}/00000.npz"),
        f"likelihood/{KEY}.json",
    ],
)
def test_a_damaged_stage_is_found(run, name):
    path = run / "stages" / name
    path.write_bytes(path.read_bytes()[:-5])
    assert kinds(run) == [("damaged", str(path.relative_to(run)))]


def test_a_result_of_another_cell_is_found(run):
    (cell(run, 1) / "result.json").write_bytes((cell(run, 2) / "result.json").read_bytes())
    (found,) = check(run).findings
    assert (found.kind, found.reason) == ("damaged", "belongs to another cell")


def test_a_result_with_another_reference_is_found(run):
    for index, sha256 in ((0, "1" * 64), (1, "1" * 64), (2, "2" * 64)):
        path = cell(run, index) / "result.json"
        result = json.loads(path.read_text())
        del result["checksum"]
        result["protocol"] = {"reference": "r", "features": "f", "reference_sha256": sha256}
        path.write_text(json.dumps({**result, "checksum": checksum(result)}))
    (found,) = check(run).findings
    assert found.path == f"cells/{cell(run, 2).name}/result.json"
    assert "reference r is 222222222222" in found.reason


def test_missing_failed_stale_and_working_cells_are_told_apart(tmp_path, capsys):
    run = tmp_path / "run"
    grid = compute(run, **{"raise": 4})
    (run / "cells" / grid[0].key / "result.json").unlink()
    (run / "cells" / grid[1].key / "result.json").unlink()
    write_grid(run, grid_json("trivial", "none", grid[:5], {}, {}))
    with Leases().acquire(run / "cells" / grid[1].key / "lease"):
        assert main([str(run)]) == 1
        found = {f.kind: f for f in check(run).findings}
    assert {kind: f.path for kind, f in found.items()} == {
        "missing": f"cells/{grid[0].key}",
        "working": f"cells/{grid[1].key}",
        "failed": f"cells/{grid[4].key}",
        "stale": f"cells/{grid[5].key}",
    }
    assert "does not want to be computed" in found["failed"].reason
    said = capsys.readouterr().out.splitlines()
    assert f"missing: cells/{grid[0].key}: index=0 schedule=s0" in said
    assert said[-1] == "2 of 5 cells are done and sound, 1 failed, 1 missing, 1 stale, 1 working"


def test_stale_cells_alone_are_no_problem(run):
    write_grid(run, grid_json("trivial", "none", tasks(4), {}, {}))
    found = check(run)
    assert [f.kind for f in found.findings] == ["stale", "stale"]
    assert found.problems == []
    damage(cell(run, 5) / "result.json")
    assert [f.kind for f in check(run).problems] == ["damaged"]


def test_foreign_files_are_found_and_young_temporaries_are_not(run):
    places = ["notes.txt", "cells/x", f"cells/{cell(run, 0).name}/y", "stages/z", "stages/tokens/w"]
    places += [f"stages/tokens/{KEY}/00000.npz", f"stages/features/{KEY}/0.npz"]
    for name in places:
        (run / name).write_text("")
    (run / ".tmp-young").write_text("")
    (run / ".report.new.host.1").mkdir()
    old = run / "cells" / cell(run, 0).name / ".tmp-old"
    old.write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    found = check(run)
    assert sorted(f.path for f in found.problems) == sorted(places)
    assert [f.path for f in found.findings if f.kind == "leftover"] == [str(old.relative_to(run))]


def test_quarantine_moves_what_is_damaged_and_the_next_run_repairs(run, capsys):
    sound = content(run)
    damage(cell(run, 2) / "result.json")
    damage(cell(run, 3) / "samples.npz")
    assert main([str(run), "--quarantine"]) == 1
    assert "moved 3 files" in capsys.readouterr().err
    kept = run / "quarantine"
    assert (kept / cell(run, 2).relative_to(run) / "result.json").is_file()
    assert [f.kind for f in check(run).findings] == ["missing", "missing"]
    compute(run)
    assert main([str(run)]) == 0
    for path in (cell(run, 2) / "result.json", cell(run, 3) / "samples.npz"):
        assert path.read_bytes() == sound[path]


def test_all_runs_of_a_folder_are_checked_with_what_they_share(run, capsys):
    every = run.parent / "all"
    for name in ("one", "two"):
        shutil.copytree(run, every / name)
    for shared in ("stages", "cas", "report"):
        (every / shared).mkdir()
    (every / "cas" / "samples-1.json").write_text("{}")
    assert main([str(every)]) == 0
    assert capsys.readouterr().out == "12 of 12 cells are done and sound\n"
    broken = every / "two" / cell(run, 1).relative_to(run) / "result.json"
    damage(broken)
    (every / "cas" / "samples-1.json").write_text("{")
    (every / "notes").mkdir()
    found = sorted((f.kind, f.path) for f in check(every).findings)
    damaged = str(broken.relative_to(every))
    assert found == [("damaged", "cas/samples-1.json"), ("damaged", damaged), ("foreign", "notes")]
    assert len(quarantine(every, check(every).findings)) == 2
    assert [f.kind for f in check(every).findings] == ["foreign", "missing"]


def test_quarantine_leaves_a_cell_in_work_and_an_earlier_quarantine_alone(run):
    path = cell(run, 2) / "result.json"
    damage(path)
    with Leases().acquire(path.parent / "lease"):
        assert quarantine(run, check(run).findings) == []
    assert path.exists()
    for _ in range(2):
        path.write_text("{}")
        assert quarantine(run, check(run).findings) == [str(path.relative_to(run))]
    names = sorted(p.name for p in (run / "quarantine" / path.parent.relative_to(run)).iterdir())
    assert names == ["result.json", "result.json.1"]


@pytest.mark.parametrize(
    ("text", "says"), [(None, "no run"), ("", "not readable"), ('{"schema": 9}', "of schema 9")]
)
def test_no_run_is_one_line(tmp_path, text, says, capsys):
    if text is not None:
        (tmp_path / "grid.json").write_text(text)
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    with pytest.raises(UsageError):
        check(tmp_path)


def test_json_and_help(run):
    command = [sys.executable, "-m", "experiments.engine.check"]
    root = Path(__file__).parents[3]
    (run / "notes").write_text("")
    done = subprocess.run([*command, str(run), "--json"], capture_output=True, text=True, cwd=root)
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"] == [
        {"kind": "foreign", "path": "notes", "reason": ""}
    ]
