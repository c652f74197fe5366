"""Cells that cost next to nothing (tests/experiments/engine/engine_doubles.py), as jobs.

This module takes the place of `experiments.engine.job`, see `slurm.job.ENTRY`.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from experiments.engine import job
from experiments.engine.cells import Build
from experiments.engine.check import check
from experiments.engine.grid import grid_json, write_grid
from experiments.engine.run.runner import Runner
from experiments.engine.run.signals import Stopper
from experiments.engine.store.store import Store
from maskgit.common.files import atomic_write
from slurm import resubmit as slurm_resubmit
from slurm import submit as slurm_submit
from slurm.watch import collect
from tests.experiments.engine.engine_doubles import Trivial, task
from tests.paths import ROOT

ENTRY = "tests.slurm.slurm_doubles"
submit = partial(slurm_submit.submit, entry=ENTRY)
resubmit = partial(slurm_resubmit.resubmit, entry=ENTRY)
# For the jobs, which import this file by name.
PATHS = str(ROOT)


@dataclass(frozen=True)
class Greedy(Trivial):
    """Trivial, and `hog`: a cell that asks for more memory than a limit on it allows."""

    def compute(self, task):
        if task.cell.get("behave") == "hog":
            bytearray(64 << 30)
        return super().compute(task)


def tasks(arguments):
    behave = {int(index): kind for index, kind in arguments.get("behave", {}).items()}
    found = [task(index, behave.get(index, "")) for index in range(arguments["cells"])]
    return [replace(item, blocks=arguments.get("blocks", 1)) for item in found]


def build(arguments):
    """The trivial cells and what runs them."""
    computer = Greedy(starts_log(Path(arguments["run"])), arguments.get("seconds", 0.05))
    return Build(tasks(arguments), computer, {})


def work(arguments):
    """As `experiments.engine.job.work`."""
    return job.work_of(tasks(arguments))


def run_cells(arguments, keys, workers, running):
    """As `experiments.engine.job.run_cells`."""
    return job.run_cells(arguments, keys, workers, running, build)


def starts_log(run):
    """A line per computation that starts. In the report's folder: it is no part of the run."""
    return run / "report" / "starts.log"


def report(arguments):
    """The squares, in order; the same bytes however the cells were computed."""
    run = Path(arguments["run"])
    lines = []
    for item in tasks(arguments):
        path = run / "cells" / item.key / "result.json"
        value = (
            json.loads(path.read_text())["metrics"]["square"]["value"] if path.exists() else None
        )
        lines.append(f"{item.cell['index']} {value}")
    path = run / "report" / "report.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, "\n".join(lines).encode())
    return path


def request(run, cells=12, seconds=0.05, blocks=1, **behave):
    """(request, work) of a trivial grid; writes its grid.json, as the sweep that submits does."""
    arguments = {"run": str(run), "cells": cells, "seconds": seconds, "blocks": blocks}
    arguments["behave"] = {str(i): kind.replace("_", "-") for kind, i in behave.items()}
    (Path(run) / "report").mkdir(parents=True, exist_ok=True)
    write_grid(Path(run), grid_json("trivial", "none", tasks(arguments), {}, {}))
    return arguments, work(arguments)


def wait_for(condition, seconds=60.0, cluster=None):
    """What the condition returned when it held; with a cluster a failure says how that stands."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            about = ""
            if cluster is not None:
                about = cluster.run("squeue", "-r", "-o", "%i %T %r %S %N", check=False).stdout
                about += f"{cluster.node_states()} {cluster.log('slurmctld', 2000)}"
            raise AssertionError(f"waited in vain {about}")
        time.sleep(0.2)
    return found


def ended(submission):
    return all(shard.settled for shard in collect(submission))


def states(submission):
    return [shard.state for shard in collect(submission)]


def inline_report(folder, cells):
    """The bytes of the report of an undisturbed run in this process."""
    arguments, _ = request(folder, cells, 0.0)
    built = build(arguments)
    with Stopper() as stopper:
        Runner(built.computer, Store(folder), workers=0).run(built.tasks, stopper)
    return report(arguments).read_bytes()


def published(run):
    """How often each cell was published, by the journal."""
    lines = (run / "journal.jsonl").read_text().splitlines()
    return Counter(event["key"] for event in map(json.loads, lines) if event["event"] == "done")


def started(run):
    """How often the computation of each cell was begun, by its index."""
    return Counter(int(line.split()[0]) for line in starts_log(run).read_text().splitlines())


def assert_sound(run, cells, folder):
    """No cell lost, none published twice, none torn; the report is that of an undisturbed run.

    folder: for the undisturbed run.
    """
    found = check(run)
    assert found.findings == (), found.findings
    assert found.sound == found.cells == cells
    assert set(published(run).values()) == {1}
    assert len(published(run)) == cells
    arguments, _ = request(run, cells)
    assert report(arguments).read_bytes() == inline_report(folder / "inline", cells)
