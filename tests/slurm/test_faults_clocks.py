"""Two machines whose clocks jump, as two runners that take themselves for two hosts."""

import json
import os
import signal
import subprocess
import sys

import pytest

from experiments.engine.check import check
from tests.paths import ROOT
from tests.slurm.slurm_doubles import published, wait_for

CELLS = 14


def start(store, host, jump, seconds=0.2):
    words = ["--cells", CELLS, "--workers", 1, "--seconds", seconds]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.slurm.clock_doubles", str(store), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "CLOCK_HOST": host, "CLOCK_JUMP": str(jump)},
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return [int(word) for word in out.split()]


def assert_whole(store):
    found = check(store)
    assert found.sound == CELLS
    assert {f.path for f in found.problems} <= {"starts.log"}  # of the doubles
    assert set(published(store).values()) == {1}


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_jump_takes_no_cell_from_a_machine_that_works_on_it(tmp_path, jump):
    both = [start(tmp_path, "a", jump), start(tmp_path, "b", 0)]
    ends = [finish(process) for process in both]
    assert sum(done for done, _, _ in ends) == CELLS
    assert [failed for _, _, failed in ends] == [0, 0]
    assert_whole(tmp_path)


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_jump_keeps_no_cell_from_being_taken_over(tmp_path, jump):
    dead = start(tmp_path, "a", 0, seconds=60)
    wait_for(lambda: list(tmp_path.glob("cells/*/lease")))
    os.killpg(dead.pid, signal.SIGKILL)
    dead.communicate()
    (left,) = tmp_path.glob("cells/*/lease")
    assert json.loads(left.read_text())["host"] == "a"
    done, _, _ = finish(start(tmp_path, "b", jump, seconds=0))
    assert done == CELLS
    assert_whole(tmp_path)
