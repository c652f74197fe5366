"""A grid that is all cached: how its start and its check grow with the number of cells."""

import time

import pytest

from experiments.engine.check import check
from experiments.engine.run.runner import split_done
from experiments.engine.store.store import Store
from tests.experiments.engine.engine_doubles import Trivial, tasks
from tests.faults.abuse import run_command
from tests.faults.test_store import compute

START = """
import resource, sys
from pathlib import Path
sys.argv = ["ablate_schedule.py", *sys.argv[1:]]
from experiments import ablate_schedule
try:
    ablate_schedule.main()
except SystemExit as ended:
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status")  # ru_maxrss begins with the parent's size on Linux
    words = status.read_text().partition("VmHWM:")[2].split() if status.exists() else []
    memory = int(words[0]) if words else used.ru_maxrss
    print(ended.code, "torch" in sys.modules, memory / 1024)
"""


def cpu_seconds(call):
    began = time.process_time()
    call()
    return time.process_time() - began


@pytest.mark.slow
def test_looking_at_cached_cells_grows_linearly(tmp_path):
    spent = {}
    for count in (100, 400):
        run = tmp_path / str(count)
        compute(run, count, Trivial(tmp_path / "log"))
        grid, store = tasks(count), Store(run)
        spent[count] = cpu_seconds(lambda: split_done(grid, store, str))  # noqa: B023
        spent[count] += cpu_seconds(lambda: check(run))  # noqa: B023
    assert spent[400] < 4 * 2 * spent[100]
    assert spent[400] / 400 < 5e-3


@pytest.mark.slow
def test_a_cached_grid_starts_without_torch_in_300_mb(tmp_path):
    # Its seconds are in benchmarks/grid.py.
    words = ["--num-samples", "2", "--metrics", "fid", "--T", "1", "--schedules", "cosine"]
    words += ["--workers", "0", "--device", "cpu", "--out", tmp_path / "run"]
    run_command("-c", START, *words, seconds=240)
    ended = run_command("-c", START, *words, seconds=240)
    code, torch, megabytes = ended.out.split()[-3:]
    assert (code, torch) == ("0", "False")
    assert float(megabytes) < 300
