"""Full disks and permissions: one line, a documented exit code, and nothing left behind."""

import errno
import os

import pytest

from experiments.engine import check, command
from experiments.engine.cells import Build
from experiments.engine.grid import grid_json
from experiments.engine.options import RunOptions
from experiments.engine.store.lease import Leases
from maskgit.common.cli import exit_code
from reports import build
from tests.experiments.engine.engine_doubles import Trivial, task, tasks
from tests.faults.abuse import fault, largest_file, owner_rights
from tests.faults.test_store import compute
from tests.reports.synthetic_run import write_run


@pytest.fixture
def run(tmp_path):
    """A finished run of three cells with pictures."""
    compute(tmp_path / "run")
    return tmp_path / "run"


def ends_in_a_line(command, capsys, codes=(1, 2)):
    """Check that a command, a function, ends with one of the codes and one line of error."""
    code = []
    what = fault(lambda: code.append(exit_code(command)), (), seconds=20)
    said = capsys.readouterr()
    assert what == ""
    assert code[0] in codes
    assert said.err.count("\n") == 1 or (said.out and not said.err), said.err


def sweep(folder):
    grid = tasks(3)
    options = RunOptions(out=folder / "run", workers=0)
    described = grid_json("trivial", "none", grid, {}, {})
    return command.run_build("trivial", options, Build(grid, Trivial(folder / "log"), described))


def test_a_full_disk_at_the_start_of_a_run(tmp_path, capsys):
    with largest_file(50):
        ends_in_a_line(lambda: sweep(tmp_path), capsys)
    assert not list((tmp_path / "run").rglob(".tmp-*"))


def test_a_full_disk_while_the_report_is_built(tmp_path, capsys):
    run = write_run(tmp_path / "run", ["cosine"], [4, 8], [0])
    with largest_file(2000):
        ends_in_a_line(lambda: build.main([str(run), "--out", str(tmp_path / "out")]), capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_full_disk_leaves_no_empty_lease_where_links_are_unknown(tmp_path, monkeypatch):
    def refuse(number):
        def call(*_):
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(os, "replace", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="space"):
        Leases().acquire(tmp_path / "lease")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["check", "build", "sweep"])
def test_a_run_below_a_private_folder(tmp_path, capsys, command):
    private = tmp_path / "private"
    private.mkdir()
    compute(private / "run")
    private.chmod(0)
    call = {
        "check": lambda: check.main([str(private / "run")]),
        "build": lambda: build.main([str(private / "run")]),
        "sweep": lambda: sweep(private),
    }[command]
    try:
        with owner_rights():
            ends_in_a_line(call, capsys)
    finally:
        private.chmod(0o700)


def test_a_report_of_a_run_that_may_only_be_read(tmp_path, capsys):
    run = write_run(tmp_path / "run", ["cosine"], [4, 8], [0], samples=False)
    run.chmod(0o500)
    try:
        with owner_rights():
            options = RunOptions(out=run, only_report=True)
            ends_in_a_line(lambda: command.run("ablate_schedule", options), capsys)
    finally:
        run.chmod(0o700)


@pytest.mark.parametrize("what", ["result", "cell", "lease"])
def test_check_names_what_it_may_not_read(run, capsys, what):
    cell = run / "cells" / task(1).key
    if what == "lease":
        (cell / "result.json").unlink()
        (cell / "lease").write_text("{}")
    path = {"cell": cell, "lease": cell / "lease", "result": cell / "result.json"}[what]
    path.chmod(0)
    try:
        with owner_rights():
            ends_in_a_line(lambda: check.main([str(run)]), capsys)
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("what", ["cell", "lease"])
def test_a_runner_reports_the_cell_it_may_not_read(run, what):
    cell = run / "cells" / task(1).key
    (cell / "lease").write_text("{}")
    if what == "lease":
        (cell / "result.json").unlink()
    path = cell if what == "cell" else cell / "lease"
    path.chmod(0)
    summaries = []
    try:
        with owner_rights():
            what = fault(lambda: summaries.append(compute(run)), (), seconds=3)
    finally:
        path.chmod(0o700)
    assert what == ""
    assert list(summaries[0].failed) == [task(1).key]


@pytest.mark.parametrize("mode", [0o500, 0])
def test_sample_into_a_folder_that_may_not_be_written(tmp_path, capsys, mode):
    from maskgit import __main__ as maskgit

    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    words = ["sample", "--steps", "1", "--output", str(folder / "x.png"), "--device", "cpu"]
    try:
        with owner_rights():
            what = fault(lambda: maskgit.main(words), (SystemExit,), seconds=60, memory=64 << 30)
    finally:
        folder.chmod(0o700)
    assert what == ""
    assert capsys.readouterr().err.count("\n") == 1
