"""Any experiment on SLURM: what `--slurm PROFILE` submits, and how a job builds it again.

The payload is plain data: which script, and its options with absolute paths. A job calls the
script's own `run` with them, which builds the very tasks it built when it was submitted and stops
where it would begin to work (`stop_if_preparing`). Their keys must be those of the submission, so
weights, data or code that changed meanwhile are noticed on the node.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import Task
from experiments.engine.options import SweepOptions
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from slurm.profile import Profile
    from slurm.submission import Payload

# What is not for the job: how it was submitted, and where (see `payload_of`).
NOT_SENT = ("slurm", "slurm_set", "snapshot", "chain_report", "wait", "out", "dry_run", "workers")


class _Stopped(BaseException):
    """Ends a script's `run` where it would begin to work. No Exception: no script handles it."""

    def __init__(self, tasks: Sequence[Task], computer: Any):
        super().__init__("the script did not expect to be stopped here")
        self.tasks, self.computer = list(tasks), computer


_preparing = False


def stop_if_preparing(tasks: Sequence[Task], computer: Any) -> None:
    """Called by the engine where the work begins; goes no further in a job's `prepare`."""
    if _preparing:
        raise _Stopped(tasks, computer)


def payload_of(experiment: str, options: SweepOptions) -> Payload:
    """What a job needs to build the tasks again.

    Raises:
        UsageError: there is no script of that name in experiments/.
    """
    from slurm.submission import Payload

    module = f"experiments.{experiment}"
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"--slurm: {experiment} has no script experiments/{experiment}.py")
    run, report = options.folders(experiment)
    values = {}
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        if item.name not in NOT_SENT:
            values[item.name] = _absolute(value) if isinstance(value, Path) else value
    arguments = {"module": module, "options": values, "run": str(run), "report": str(report)}
    here = "experiments.engine.remote"
    return Payload(f"{here}:prepare", arguments, f"{here}:report")


def _absolute(path: Path) -> str:
    return os.path.abspath(path.expanduser())


def prepare(arguments: dict[str, Any]) -> tuple[list[Task], Any, Path]:
    """(tasks, computer, run) of a payload's arguments.

    Raises:
        UsageError: (of any of our packages) the request cannot be met on this machine.
    """
    global _preparing
    module = importlib.import_module(arguments["module"])
    kind = module.Options
    hints = typing.get_type_hints(kind)
    values = {
        name: Path(value) if isinstance(value, str) and _is_path(hints[name]) else value
        for name, value in arguments["options"].items()
    }
    _preparing = True
    try:
        module.run(kind(**values, out=Path(arguments["run"])))
    except _Stopped as stopped:
        return stopped.tasks, stopped.computer, Path(arguments["run"])
    finally:
        _preparing = False
    raise RuntimeError(f"{arguments['module']}.run ended without any work")


def _is_path(hint: Any) -> bool:
    return hint is Path or Path in typing.get_args(hint)


def report(arguments: dict[str, Any]) -> Path:
    """Build the report of a payload's run; returns its path."""
    from experiments.engine.sweep import build_report

    return build_report(Path(arguments["run"]), Path(arguments["report"]))


def run_on_slurm(
    experiment: str,
    options: SweepOptions,
    tasks: Sequence[Task],
    grid: dict[str, Any],
) -> int:
    """Submit what is not done (or plan it); returns the exit code.

    Returns at once, or with --wait when all shards have ended and the report is built: 1 if cells
    are missing then. How to watch and progress go to stderr, the report's path to stdout.

    Raises:
        UsageError: (of slurm too) no such profile, no SLURM here, or it refuses the jobs.
    """
    from experiments.engine.grid import write_grid
    from experiments.engine.run.runner import split_done
    from experiments.engine.store.store import Store
    from experiments.engine.sweep import build_report
    from slurm.shards import Work
    from slurm.submit import submit, watch_words

    profile = options.slurm_profile()
    run, report_folder = options.folders(experiment)
    store = Store(run)
    done, left = split_done(tasks, store, lambda line: print(line, file=sys.stderr))
    work = [Work(task.key, task.cost, task.group) for task in left]
    payload = payload_of(experiment, options)
    if options.dry_run:
        print(f"{len(tasks)} cells: {len(done)} cached, {len(left)} to do")
        print("\n".join(_plan(work, profile, run, done)))
        return 0
    store.prepare()
    write_grid(run, grid)
    if not work:
        print("nothing to submit: every cell has its result", file=sys.stderr)
        print(build_report(run, report_folder))
        return 0
    submission = submit(
        payload,
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
    from slurm.watch import follow

    shards = follow(submission, sys.stderr)
    print(build_report(run, report_folder))
    missing = sum(shard.cells - shard.done for shard in shards)
    if missing:
        print(
            f"{missing} of {len(work)} cells have no result; see python -m slurm.status {run}, and "
            "its resubmit",
            file=sys.stderr,
        )
    return 1 if missing else 0


def _plan(work: Sequence[Any], profile: Profile, run: Path, done: Sequence[Task]) -> list[str]:
    """The shards, and hours by the profile's time of a forward or that of the cells done here."""
    from slurm.submit import plan, plan_words

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
