"""A cell's files and leases: what is damaged is found and made again; former owners are quiet."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.engine.cells import Outcome
from experiments.engine.check import check, main, quarantine
from experiments.engine.grid import grid_json, write_grid
from experiments.engine.run.execute import execute
from experiments.engine.run.runner import Runner
from experiments.engine.run.signals import Stopper
from experiments.engine.store.lease import Leases, read_lease
from experiments.engine.store.store import Store, checksum
from tests.experiments.engine.engine_doubles import Trivial, task, tasks
from tests.faults.abuse import Hang, damaged, fault, report, run_command, strange_json
from tests.paths import ROOT

DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


class Pictures(Trivial):
    """Cells that cost nothing, each with a picture of its own."""

    def compute(self, task):
        import numpy as np

        index = task.cell["index"]
        images = np.random.default_rng(index).integers(0, 256, (2, 16, 16, 1), np.uint8)
        metrics = {"square": {"id": "square.v1", "value": float(index**2)}}
        return Outcome(metrics=metrics, arrays={"images": images, "labels": np.arange(2)})


def compute(folder, count=3, computer=None):
    """Run (or go on with) a grid in this process; returns the runner's summary."""
    grid, store = tasks(count), Store(folder)
    store.prepare()
    write_grid(folder, grid_json("trivial", "none", grid, {}, {}))
    with Stopper() as stopper:
        computer = computer or Pictures(folder.parent / "log")
        return Runner(computer, store, workers=0).run(grid, stopper)


@pytest.fixture
def run(tmp_path):
    """A finished run of three cells with pictures."""
    compute(tmp_path / "run")
    return tmp_path / "run"


def samples(run, index):
    return run / "cells" / task(index).key / "samples.npz"


# 1: every file of a cell is named in result.json, checked, and made again.


def test_check_survives_any_damage_of_samples(run):
    path = samples(run, 1)
    whole, found = path.read_bytes(), {}
    for name, content in damaged(whole, 120):
        path.write_bytes(content)
        if what := fault(lambda: check(run)):
            found[name] = what
    assert not found


@pytest.mark.parametrize("how", ["flipped", "empty", "deleted", "swapped"])
def test_damaged_samples_are_made_again_by_the_same_command(run, how):
    path, whole = samples(run, 1), samples(run, 1).read_bytes()
    spoil(run, how)
    compute(run)
    assert path.exists()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("how", ["deleted", "swapped"])
def test_check_knows_that_the_samples_are_another_cells(run, how):
    spoil(run, how)
    assert check(run).sound == 2


def spoil(run, how):
    path = samples(run, 1)
    if how == "flipped":
        held = bytearray(path.read_bytes())
        held[len(held) // 2] ^= 1
        path.write_bytes(held)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "deleted":
        path.unlink()
    else:
        shutil.copy(samples(run, 2), path)


# 6 and 17: signals.


def test_a_run_under_nohup_goes_on_when_the_terminal_closes(tmp_path):
    words = ["tests/experiments/engine/engine_doubles.py", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, *words, "--cells", "6", "--seconds", "0.2", "--workers", "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    log = tmp_path / "run" / "starts.log"
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.split()) == (0, [b"6", b"0", b"0"])


MASKS = """
import pathlib, signal, sys, time
from experiments.engine.run.workers import Setup, Worker
from tests.faults.test_store import Mask
file = pathlib.Path(sys.argv[1])
worker = Worker(Setup(Mask(file / "log", file / "mask"), file, 1, 10.0, 120.0), 0)
worker.pipe.poll(60)
worker.process.kill()
"""


class Mask(Trivial):
    """Notes whether Ctrl-C is held back in the worker's process."""

    def __init__(self, log, note):
        super().__init__(log)
        object.__setattr__(self, "note", note)

    def start(self, worker, workers):
        held = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self.note.write_text(str(held))


def test_the_first_worker_is_shielded_from_ctrl_c(tmp_path):
    ended = run_command("-c", MASKS, tmp_path)
    assert ended.fault() == ""
    assert (tmp_path / "mask").read_text() == "True"


# 7, 8, 9: disks that are full, owners that lost their lease, replies that were lost.


def test_a_lease_that_was_written_short_is_no_lease(tmp_path, monkeypatch):
    write, path = os.write, tmp_path / "lease"
    monkeypatch.setattr(os, "write", lambda handle, text: write(handle, text[:7]))
    try:
        lease = Leases().acquire(path)
    except OSError:
        assert not path.exists()
        return
    seen = read_lease(path)
    lease.release()
    assert seen.host != ""


class Robbed(Trivial):
    """Its lease is taken over while it computes, by an owner who publishes; then it raises."""

    def compute(self, task):
        store = Store(self.log.parent / "run")
        path = store.lease_path(task.key)
        path.unlink()
        with Leases().acquire(path):
            store.publish(task, Outcome(metrics={"square": {"id": "s.v1", "value": 0.0}}), {})
        raise OSError("stale file handle")


def test_an_owner_that_lost_its_lease_writes_no_failure(tmp_path):
    store = Store(tmp_path / "run")
    store.prepare()
    reply = execute(task(0), Robbed(tmp_path / "log"), store, Leases())
    assert store.find(task(0)).result is not None
    assert not (store.cell(task(0).key) / "failure.json").exists()
    assert reply.kind != "failed"


def test_a_link_whose_reply_was_lost_is_ours(tmp_path, monkeypatch):
    link = os.link

    def lost(source, target):
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", lost)
    lease = Leases().acquire(tmp_path / "lease")
    assert lease is not None
    lease.release()
    assert list(tmp_path.iterdir()) == []


# 11: empty paths, and a quarantine that takes the user's own files.


def test_quarantine_leaves_what_the_store_did_not_write(run):
    (run / "thesis.tex").write_text("mine")
    (run / "photos").mkdir()
    (run / "photos" / "cat.png").write_bytes(b"mine too")
    quarantine(run, check(run).findings)
    assert (run / "thesis.tex").exists()
    assert (run / "photos" / "cat.png").exists()


def test_check_refuses_an_empty_path(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    assert main([""]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# 15: leases and results that are no files, or hold what nobody wrote.


def odd_file(path, kind):
    """Put something of that kind at a path that should be a small JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    owner = {"host": "elsewhere 1 1", "pid": 1, "start": "1", "token": "t", "heartbeat": 0}
    texts = {
        "pid Infinity": json.dumps(owner | {"pid": float("inf")}),
        "deep": DEEP,
        "digits": json.dumps(owner).replace('"pid": 1', '"pid": ' + "1" * 5000),
        "BOM": "\ufeff" + json.dumps(owner),
        "list": "[]",
        "null": "null",
        "UTF-16": json.dumps(owner).encode("utf-16").decode("latin-1"),
    }
    if kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text(texts[kind])


@pytest.mark.parametrize(
    "kind",
    [
        "list",
        "null",
        "UTF-16",
        "BOM",
        "digits",
        "deep",
        "dangling",
        "loop",
        "fifo",
        "directory",
        "pid Infinity",
    ],
)
def test_a_strange_lease_neither_ends_nor_hangs_a_runner(tmp_path, kind):
    path = tmp_path / "lease"
    odd_file(path, kind)
    assert fault(lambda: read_lease(path), (), seconds=2) == ""
    # It may be refused or waited for by the caller, but acquire itself comes back.
    assert fault(lambda: Leases().acquire(path), (), seconds=2) == ""


@pytest.mark.parametrize(
    "kind",
    ["dangling", "loop", "directory", "list", "null", "BOM", "UTF-16", "fifo", "deep"],
)
def test_a_strange_result_is_a_problem_and_no_more(run, kind):
    odd_file(run / "cells" / task(1).key / "result.json", kind)
    store = Store(run)
    assert fault(lambda: store.find(task(1)), (), seconds=2) == ""
    assert fault(lambda: check(run), (), seconds=2) == ""


@pytest.mark.parametrize("kind", ["directory", "loop"])
def test_a_strange_result_is_made_again(run, kind):
    odd_file(run / "cells" / task(1).key / "result.json", kind)
    summary = compute(run)
    assert not summary.failed
    assert check(run).sound == 3


@pytest.mark.parametrize("value", [[], None, "x", 1])
def test_a_forged_protocol_is_a_finding(run, value):
    path = run / "cells" / task(1).key / "result.json"
    result = json.loads(path.read_text())
    result["protocol"] = value
    result["checksum"] = checksum(result)
    path.write_text(json.dumps(result))
    assert fault(lambda: check(run)) == ""
    assert check(run).sound == 2


def test_who_waits_for_the_report_says_so(run, capsys):
    from experiments.engine.report import build_report

    (run / "report.lease").write_text("garbage")
    what = fault(lambda: build_report(run, run / "report"), seconds=2)
    assert what == "" or "report.lease" in capsys.readouterr().err


FILES = ("result.json", "timing.json", "failure.json", "grid.json", "lease")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_of_a_run_end_no_check(run, name):
    """Every kind of damage of one file is a finding, a refusal, or nothing that matters."""
    cell = run / "cells" / task(1).key
    path = run / name if name == "grid.json" else cell / name
    if name in ("failure.json", "lease"):
        (cell / "result.json").unlink()
        owner = {"host": "elsewhere 1 1", "pid": 1, "start": "1", "token": "t", "heartbeat": 0}
        path.write_text(json.dumps(owner | {"error": "x", "traceback": "x", "attempts": 1}))
    whole = path.read_bytes()
    cases = [*strange_json(json.loads(whole), 150), *damaged(whole, 150)]
    wrong = {}
    for case, content in cases:
        path.write_bytes(content)
        if what := fault(lambda: check(run), seconds=3):
            wrong[case] = what
    report(wrong, len(cases))


def test_a_hang_is_a_fault_and_nothing_swallows_it():
    assert "did not come back" in fault(lambda: time.sleep(5), seconds=0.1)
    with pytest.raises(Hang):
        raise Hang
