"""benchmarks/faults.py: it kills, and it would notice."""

import argparse
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from experiments.engine.store.store import Store

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_a_few_kills(tmp_path):
    words = ["--kills", "4", "--cells", "20", "--seconds", "0.05", "--pause", "0.8"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--out", str(tmp_path / "f.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "lost: 0\ndoubled: 0\ntorn: 0\nchanged: 0\ndifferent: 0" in done.stdout
    found = json.loads((tmp_path / "f.json").read_text())
    assert sum(found["kills"].values()) == 4
    assert found["computations_begun"] >= found["cells_expected"] == 20 * found["grids"]


def test_it_counts_what_went_wrong(faults, tmp_path):
    run, flags = tmp_path / "grid", argparse.Namespace(cells=5)
    assert faults.run_grid(Store(run), 5, 0.0, 0) == 0
    expected = faults.results(run)
    counts = Counter()
    faults.count_grid(flags, run, expected, counts)
    assert +counts == {"begun": 5}
    keys = [task.key for task in faults.tasks(5)]
    (run / "cells" / keys[0] / "result.json").unlink()
    (run / "cells" / keys[1] / "result.json").write_text("{")
    with open(run / "journal.jsonl", "a") as journal:
        print(json.dumps({"event": "done", "key": keys[2]}), file=journal)
    faults.count_grid(flags, run, expected, counts)
    assert +counts == {"lost": 1, "doubled": 1, "different": 1, "torn": 1, "begun": 10}


def test_mistakes_are_one_line():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "0"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, "error: --kills 0: expected more than 0\n")
