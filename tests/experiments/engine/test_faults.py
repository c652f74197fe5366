"""Killed runners and workers, two runners at once: nothing lost, nothing twice, nothing torn.

The grid is the trivial one of engine_doubles.py, run as a process of its own, so that it can be
killed. What is compared is what the report reads: grid.json and every result.json.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.experiments.engine.engine_doubles import task, tasks

SCRIPT = Path(__file__).with_name("engine_doubles.py")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def start(store, *options, **env):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def finish(process, timeout=60):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def results(store):
    """Bytes of everything a report reads."""
    files = [store / "grid.json", *store.glob("cells/*/result.json")]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def identities(store):
    """Which file each result is: a result computed again would be another."""
    stats = {path: path.stat() for path in store.glob("cells/*/result.json")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def published(store):
    """How often each cell was published, by the journal."""
    lines = (store / "journal.jsonl").read_text().splitlines()
    return Counter(event["key"] for event in map(json.loads, lines) if event["event"] == "done")


def started(store):
    """Size of the log that a cell is noted in when its computation starts."""
    log = store / "starts.log"
    return log.stat().st_size if log.exists() else 0


def pids_of_children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers_of(process):
    found = []
    for pid in pids_of_children(process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            found.append(pid)
    return found


def wait_for(condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_ten_kills_lose_nothing_and_compute_nothing_twice(tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    cells = 80
    options = ("--cells", cells, "--workers", 2, "--seconds", 0.08)
    code, _, err = finish(start(whole, *options))
    assert code == 0, err
    chance = random.Random(1)
    progressed, seen = 0, {}
    for kill in range(10):
        worked = started(torn)
        process = start(torn, *options)
        if kill % 5:  # four of five kills fall into the work, the others into the start
            wait_for(lambda before=worked: started(torn) > before)
        time.sleep(chance.random() * 0.25)
        assert process.poll() is None, "the grid ended before ten kills: give it more cells"
        process.kill()
        process.communicate()
        now = identities(torn)
        assert {path: now.get(path) for path in seen} == seen  # what was done stays as it was
        progressed += len(now) > len(seen)
        seen = now
    assert progressed >= 5, "too few kills fell into the work"
    for left in torn.glob(".tmp-*"):  # a kill while grid.json was written; swept when an hour old
        os.utime(left, (0, 0))
    code, out, err = finish(start(torn, *options))
    assert code == 0, err
    done, cached, failed = map(int, out.split())
    # An orphaned worker may have finished its cell after the count.
    assert (done + cached, failed) == (cells, 0)
    assert 0 < done <= cells - len(seen)
    assert results(torn) == results(whole)
    assert max(published(torn).values()) == 1
    now = identities(torn)
    assert {path: now[path] for path in seen} == seen
    assert not list(torn.rglob("lease"))
    assert not list(torn.rglob(".tmp-*"))


def test_workers_of_a_killed_runner_end_by_themselves(tmp_path):
    process = start(tmp_path, "--workers", 2, "--seconds", 30)
    wait_for(lambda: len(list(tmp_path.glob("cells/*/lease"))) == 2)
    orphans = workers_of(process)
    assert len(orphans) == 2
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), 10)


def test_a_killed_worker_is_replaced_and_its_cell_computed(tmp_path):
    process = start(tmp_path, "--cells", 8, "--workers", 2, "--seconds", 0.3)
    wait_for(lambda: list(tmp_path.glob("cells/*/lease")))
    lease = next(tmp_path.glob("cells/*/lease"))
    os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)
    code, out, err = finish(process)
    assert (code, out.split()) == (0, ["8", "0", "0"]), err
    assert "SIGKILL" in err
    assert "trying it once more" in err


def test_a_cell_that_kills_its_worker_twice_fails_and_the_others_go_on(tmp_path):
    code, out, err = finish(start(tmp_path, "--cells", 6, "--behave", "die:2", "--seconds", 0))
    assert (code, out.split()) == (1, ["5", "0", "1"]), err
    key = task(2, "die").key
    failure = json.loads((tmp_path / "cells" / key / "failure.json").read_text())
    assert failure["attempts"] == 2
    assert "SIGKILL" in failure["error"]
    assert "\n" not in failure["error"]
    assert not list(tmp_path.rglob("lease"))


def test_a_cell_that_kills_its_worker_once_is_computed(tmp_path):
    code, out, _ = finish(start(tmp_path, "--cells", 6, "--behave", "die-once:2", "--seconds", 0))
    assert (code, out.split()) == (0, ["6", "0", "0"])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_cleanly_and_the_same_command_goes_on(tmp_path, number, code):
    options = ("--cells", 6, "--workers", 2)
    process = start(tmp_path, *options, "--seconds", 20)
    wait_for(lambda: len(list(tmp_path.glob("cells/*/lease"))) == 2)
    workers = workers_of(process)
    began = time.monotonic()
    process.send_signal(number)
    got, out, err = finish(process)
    assert time.monotonic() - began < 10
    assert (got, out) == (code, "")
    assert err.splitlines()[-1].endswith("run the same command again to go on")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("lease"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert finish(start(tmp_path, *options, "--seconds", 0))[0] == 0


def test_ctrl_c_in_a_terminal_reaches_the_workers_too_and_is_quiet(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path), "--seconds", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: workers_of(process))  # they may still be importing: that must be quiet too
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err


def test_two_runners_on_one_store_share_the_work(tmp_path):
    options = ("--cells", 24, "--workers", 2, "--seconds", 0.25)
    both = [start(tmp_path, *options), start(tmp_path, *options)]
    ends = [finish(process) for process in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    done = [int(out.split()[0]) for _, out, _ in ends]
    assert sum(done) == 24
    assert min(done) > 0
    assert set(published(tmp_path).values()) == {1}
    started = Counter(line.split()[0] for line in (tmp_path / "starts.log").open())
    assert set(started.values()) == {1}


def test_a_runner_takes_over_the_cells_of_one_that_was_killed_beside_it(tmp_path):
    # Both work; one is killed with its workers. The other must end with every cell.
    first = start(tmp_path, "--cells", 6, "--workers", 2, "--seconds", 1.5)
    wait_for(lambda: len(list(tmp_path.glob("cells/*/lease"))) == 2)
    second = start(tmp_path, "--cells", 6, "--workers", 2, "--seconds", 0)
    wait_for(lambda: len(list(tmp_path.glob("cells/*/result.json"))) >= 4)
    for pid in [first.pid, *workers_of(first)]:
        os.kill(pid, signal.SIGKILL)
    first.communicate()
    code, out, err = finish(second)
    assert (code, out.split()[2]) == (0, "0"), err
    assert len(results(tmp_path)) == 1 + 6


@pytest.mark.parametrize(("broken", "says"), [("raise", "no such device"), ("die", "SIGKILL")])
def test_workers_that_cannot_start_end_the_run_with_one_line(tmp_path, broken, says):
    code, out, err = finish(start(tmp_path, "--cells", 2, ENGINE_BROKEN=broken))
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: the workers cannot start")
    assert says in last


def test_worker_counts_do_not_change_the_results(tmp_path):
    for workers in (0, 1, 3):
        folder = tmp_path / str(workers)
        code, _, err = finish(start(folder, "--workers", workers, "--seconds", 0))
        assert code == 0, err
    assert results(tmp_path / "0") == results(tmp_path / "1") == results(tmp_path / "3")
    assert len(tasks(12)) == len(results(tmp_path / "0")) - 1
