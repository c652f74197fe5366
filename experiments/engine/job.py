"""What a SLURM job does for an experiment: `slurm.job` calls these functions and no others.

A request is plain data from submission.json: the experiment's name, its options, the folders of the
run and of the report. Only names of the registry of experiments are run. The cells are built as the
command line built them, and their keys must be those that were submitted, so that weights, data or
code that changed meanwhile are noticed on the node.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.engine.cells import Build, Task
from experiments.engine.report import build_report
from experiments.engine.run.progress import Progress
from experiments.engine.run.runner import Runner
from experiments.engine.run.signals import Stopper
from experiments.engine.store.store import Store
from experiments.studies.registry import get_experiment
from maskgit.common.errors import UsageError
from slurm.shards import Work


def build(request: dict[str, Any]) -> Build:
    """The cells of a request and what runs them.

    Raises:
        UsageError: no such experiment or option, or the request cannot be met on this machine.
    """
    try:
        experiment = get_experiment(str(request["experiment"]))
        kind = experiment.options
        hints = typing.get_type_hints(kind)
        values: dict[str, Any] = {
            name: Path(value) if isinstance(value, str) and _is_path(hints[name]) else value
            for name, value in request["options"].items()
        }
        options = kind(**values, out=Path(request["run"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the submission's request is not one of ours ({error})") from None
    options.check()
    return experiment.build(options)


def _is_path(hint: Any) -> bool:
    return hint is Path or Path in typing.get_args(hint)


def work(request: dict[str, Any]) -> list[Work]:
    """The cells of a request, as they would be computed now.

    Raises:
        UsageError: as `build`.
    """
    return work_of(build(request).tasks)


def work_of(tasks: Sequence[Task]) -> list[Work]:
    """Tasks as shards are packed of them."""
    return [Work(task.key, task.cost, task.group, task.blocks) for task in tasks]


def run_cells(
    request: dict[str, Any],
    keys: Sequence[str],
    workers: int,
    running: Callable[[], None],
    make: Callable[[dict[str, Any]], Build] = build,
) -> dict[str, int]:
    """Compute the cells of these keys; returns how many were done, cached and failed.

    running: called when the cells were built and their work begins. make: builds the cells.

    Raises:
        UsageError: as `build`, or the request yields other cells now.
        Interrupted: a signal came.
    """
    with Stopper() as stopper:
        built = make(request)
        known = {task.key: task for task in built.tasks}
        missing = [key for key in keys if key not in known]
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(keys)} cells have other keys now: weights, data or "
                "settings changed since the submission; submit again"
            )
        store = Store(Path(request["run"]))
        store.prepare()
        running()
        processes = partial(built.workers, workers)
        runner = Runner(built.computer, store, workers=processes, progress=Progress(sys.stderr))
        summary = runner.run([known[key] for key in keys], stopper)
    return {"done": summary.done, "cached": summary.cached, "failed": len(summary.failed)}


def report(request: dict[str, Any]) -> Path:
    """Build the report of a request's run; returns its path."""
    return build_report(Path(request["run"]), Path(request["report"]))
