"""The command line of every experiment, from options to report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial

from experiments.engine.cells import Build
from experiments.engine.grid import write_grid
from experiments.engine.options import RunOptions
from experiments.engine.remote import run_on_slurm
from experiments.engine.report import build_report, check_folders
from experiments.engine.run.progress import Progress
from experiments.engine.run.runner import Runner, Summary, split_done
from experiments.engine.run.signals import Stopper
from experiments.engine.store.store import Store
from experiments.studies.registry import get_experiment
from maskgit.common import cli


def main(name: str, description: str | None) -> None:
    """Run experiments/NAME.py with the words of the command line, and end the process.

    Exit codes: 0 all cells done; 1 some failed; 2 the request is wrong (one line on stderr); 130
    or 143 ended by Ctrl-C or SIGTERM.
    """
    options = get_experiment(name).options
    cli.main(lambda given: run(name, given), options, f"{name}.py", description or "")


def run(name: str, options: RunOptions) -> int:
    """Run an experiment (or plan it, submit it, or only report it); returns the exit code.

    Prints the path of the report on stdout, everything else on stderr.

    Raises:
        UsageError: the request cannot be met; nothing was computed.
        Interrupted: a signal came.
        RunError: the workers cannot be started.
    """
    options.check()
    folder, report = options.folders(name)
    check_folders(folder, report)
    if options.only_report:
        print(build_report(folder, report))
        return 0
    with Stopper():
        build = get_experiment(name).build(options)
    return run_build(name, options, build)


def run_build(name: str, options: RunOptions, build: Build) -> int:
    """Compute what is not done of an experiment, and build its report; returns the exit code.

    Raises as `run`.
    """
    folder, report = options.folders(name)
    store = Store(folder)
    workers = cache(partial(build.workers, options.workers))
    if not all(store.has_result(task) for task in build.tasks):
        workers()  # what cannot be loaded is known before anything is written
    for what, why in build.grid["protocol"].get("missing", {}).items():
        print(f"warning: {what} will be missing: {why}", file=sys.stderr)
    if options.slurm is not None:
        return run_on_slurm(name, options, build)
    if options.dry_run:
        _plan(build, store, workers)
        return 0
    with Stopper() as stopper:
        store.prepare()
        write_grid(folder, build.grid)
        runner = Runner(build.computer, store, workers=workers, progress=Progress(sys.stderr))
        summary = runner.run(build.tasks, stopper)
        # Another runner in this folder may have asked for something else meanwhile.
        write_grid(folder, build.grid)
        print(build_report(folder, report))
    return _exit_code(summary, store)


def _plan(build: Build, store: Store, workers: Callable[[], int]) -> None:
    done, left = split_done(build.tasks, store, lambda line: print(line, file=sys.stderr))
    print(f"{len(build.tasks)} cells: {len(done)} cached, {len(left)} to do")
    if build.estimate is not None:
        print("\n".join(build.estimate(left, workers() if left else 0)))


def _exit_code(summary: Summary, store: Store) -> int:
    if not summary.failed:
        return 0
    print(
        f"{len(summary.failed)} of {summary.total} cells failed; tracebacks are in "
        f"{store.root}/cells/*/failure.json; run the same command again to try them again",
        file=sys.stderr,
    )
    return 1
