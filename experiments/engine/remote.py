"""`--slurm PROFILE` of every experiment: what is submitted, and what is said about it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import Build, Task
from experiments.engine.grid import write_grid
from experiments.engine.job import work_of
from experiments.engine.options import RunOptions
from experiments.engine.report import build_report
from experiments.engine.run.runner import split_done
from experiments.engine.store.store import Store
from maskgit.presets import NAMES, load_preset, preset_toml
from slurm.submission import keys_left
from slurm.submit import plan, plan_words, submit, watch_words
from slurm.watch import follow

if TYPE_CHECKING:
    from slurm.profile import Profile
    from slurm.shards import Work

# Options that are not for the job: how it was submitted, and where.
NOT_SENT = ("slurm", "slurm_set", "snapshot", "chain_report", "wait", "out", "dry_run", "workers")


def request_of(experiment: str, options: RunOptions) -> dict[str, Any]:
    """What a job needs to build the cells again (see `engine.job`): plain data, absolute paths."""
    run, report = options.folders(experiment)
    values = {}
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        if item.name == "preset" and value not in NAMES:
            value = preset_toml(load_preset(value))  # the file may be another one by then
        if item.name == "weights" and value is None and options.preset not in NAMES:
            value = load_preset(options.preset).weights_folder
            value = None if not value.is_dir() else value
        if item.name not in NOT_SENT:
            values[item.name] = _absolute(value) if isinstance(value, Path) else value
    return {"experiment": experiment, "options": values, "run": str(run), "report": str(report)}


def _absolute(path: Path) -> str:
    return os.path.abspath(os.path.expanduser(path))


def run_on_slurm(experiment: str, options: RunOptions, build: Build) -> int:
    """Submit what is not done (or plan it); returns the exit code.

    Returns at once, or with --wait when all shards have ended and the report is built: 1 if cells
    are missing then. How to watch and progress go to stderr, the report's path to stdout.

    Raises:
        UsageError: no such profile, no SLURM here, or it refuses the jobs.
    """

    profile = options.slurm_profile()
    run, report_folder = options.folders(experiment)
    store = Store(run)
    tasks = build.tasks
    done, left = split_done(tasks, store, lambda line: print(line, file=sys.stderr))
    work = work_of(left)
    if options.dry_run:
        print(f"{len(tasks)} cells: {len(done)} cached, {len(left)} to do")
        print("\n".join(_plan(work, profile, run, done)))
        return 0
    store.prepare()
    write_grid(run, build.grid)
    if not work:
        print("nothing to submit: every cell has its result", file=sys.stderr)
        print(build_report(run, report_folder))
        return 0
    submission = submit(
        request_of(experiment, options),
        work,
        run,
        profile,
        label=experiment,
        snapshot=options.snapshot,
        chain_report=options.chain_report,
    )
    print("\n".join(watch_words(submission)), file=sys.stderr)
    if not options.wait:
        return 0
    follow(submission, sys.stderr)
    print(build_report(run, report_folder))
    missing = len(keys_left(submission.keys, run))
    if missing:
        print(
            f"{missing} of {len(work)} cells have no result; see python -m slurm.status {run}, and "
            "its resubmit",
            file=sys.stderr,
        )
    return 1 if missing else 0


def _plan(work: Sequence[Work], profile: Profile, run: Path, done: Sequence[Task]) -> list[str]:
    """The shards, and hours by the profile's time of a forward or that of the cells done here."""

    measured = None
    if profile.seconds_per_forward is None:
        measured = seconds_per_forward(run, done)
    shards = plan(work, profile)
    if measured is None:
        return plan_words(shards, profile)
    words = plan_words(shards, dataclasses.replace(profile, seconds_per_forward=measured[0]))
    return [*words, f"at {measured[0]:.3g} s a forward, as {measured[1]}"]


def seconds_per_forward(run: Path, done: Sequence[Task]) -> tuple[float, str] | None:
    """(seconds, on which cells they were measured) from their timing.json; None if there are none.

    A cell's time holds decoding and measuring too, and its cost counts them as forwards.
    """
    seconds, cost, cells, devices = 0.0, 0.0, 0, set()
    for task in done:
        try:
            timing = json.loads((run / "cells" / task.key / "timing.json").read_bytes())
            seconds += float(timing["seconds"])
            devices.add(str(timing.get("device", "")))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        cost += task.cost
        cells += 1
    if not seconds or not cost:
        return None
    return seconds / cost, f"{cells} cells of this run took on {', '.join(sorted(devices))}"
