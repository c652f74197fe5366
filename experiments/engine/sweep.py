"""A sweep of the sampler from options to report: what every script in `experiments/` calls."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.engine.cells import Cell, Task
from experiments.engine.errors import UsageError
from experiments.engine.grid import grid_json, write_grid
from experiments.engine.lease import Leases
from experiments.engine.options import MAX_WORKERS, SweepOptions
from experiments.engine.progress import Progress, clock
from experiments.engine.runner import Runner, Summary, split_done
from experiments.engine.signals import Stopper
from experiments.engine.store import Store

GAMMA_POINTS = 101  # r = 0, 0.01, ..., 1: the curves of the report's Figure 8, left


def run_sweep(experiment: str, options: SweepOptions, cells: Sequence[Cell]) -> int:
    """Run a grid (or plan it, or only report it); returns the exit code.

    Prints the path of the report on stdout, everything else on stderr.

    Raises:
        UsageError: (of any of our packages) the request cannot be met; nothing was computed.
        Interrupted: a signal came.
        RunError: the workers cannot be started.
    """
    from reports.build import check_out

    run, report = options.folders(experiment)
    store = Store(run)
    if run.exists() and not run.is_dir():
        raise UsageError(f"--out {run}: is a file; give a folder")
    check_out(report)
    if options.only_report:
        print(_report(run, report))
        return 0
    with Stopper() as stopper:
        tasks, computer, grid = _prepare(experiment, options, cells, run)
        workers = default_workers(options)
        if options.dry_run:
            _plan(tasks, store, computer, workers)
            return 0
        store.prepare()
        write_grid(run, grid)
        runner = Runner(computer, store, workers=workers, progress=Progress(sys.stderr))
        summary = runner.run(tasks, stopper)
        write_grid(run, grid)  # another runner in this folder may have asked for something else
        print(_report(run, report))
    return _verdict(summary, store)


def _prepare(
    experiment: str, options: SweepOptions, cells: Sequence[Cell], run: Path
) -> tuple[list[Task], Any, dict[str, Any]]:
    from experiments.engine.compute import SamplerComputer
    from experiments.engine.request import check_device, make_task, resolve

    schedules = list(dict.fromkeys(cell.schedule for cell in cells))
    check_device(options.device)
    request = resolve(options.preset, schedules, options.metric_list(), options.weights)
    tasks = [make_task(request, cell) for cell in cells]
    computer = SamplerComputer(request, run, options.batch_size, options.device)
    protocol = grid_protocol(options, request, schedules)
    return tasks, computer, grid_json(experiment, request.preset, tasks, protocol, request.cards)


def grid_protocol(options: SweepOptions, request: Any, schedules: Sequence[str]) -> dict[str, Any]:
    """What holds for all cells of a grid, for the report: plain data without times or paths."""
    import numpy as np

    from experiments.engine import held_out, imaging, measuring
    from maskgit.presets import get_preset
    from maskgit.schedules import mask_ratio

    preset = get_preset(request.preset)
    r = np.linspace(0.0, 1.0, GAMMA_POINTS, dtype=np.float32)
    gamma = {name: mask_ratio(name, r, preset.num_tokens) for name in schedules}
    count = options.num_samples or preset.num_samples
    return {
        "features": request.features,
        "reference": request.reference,
        "num_samples": count,
        "choice_temperature": options.choice_temperature,
        "num_tokens": preset.num_tokens,
        "class_names": list(preset.class_names),
        "metrics": request.metrics,
        "rounding": imaging.ROUNDING,
        "inception_score": (
            f"{measuring.SPLITS} splits, shuffled; one split below {measuring.SPLITS_FROM} samples"
        ),
        "precision_recall": f"k={measuring.K}; as many real images as samples, the first of a "
        "shuffled, class-balanced subset of the reference",
        "nll": f"first {held_out.IMAGES} test images, one mask each, noise seed {held_out.SEED}; "
        "nats per masked token over the whole vocabulary, unsmoothed",
        "code": request.code,
        "gamma": {name: [float(value) for value in values] for name, values in gamma.items()},
    }


def default_workers(options: SweepOptions) -> int:
    """--workers, or one per GPU, or one per core up to a few."""
    from experiments.engine.compute import available_cores, resolve_device

    if options.workers is not None:
        return options.workers
    if resolve_device(options.device).startswith("cuda"):
        import torch

        return torch.cuda.device_count() if options.device in ("auto", "cuda") else 1
    return min(available_cores(), MAX_WORKERS)


def _plan(tasks: Sequence[Task], store: Store, computer: Any, workers: int) -> None:
    from experiments.engine.estimate import forwards, seconds_of
    from experiments.engine.stages import Stages

    done, left = split_done(tasks, store, lambda line: print(line, file=sys.stderr))
    count = forwards(left, Stages(store.root))
    print(f"{len(tasks)} cells: {len(done)} cached, {len(left)} to do")
    print(f"{count} transformer forwards (images x iterations)")
    seconds = seconds_of(left, computer, workers) if left else 0.0
    print(f"about {clock(seconds)} with {workers} workers, from a one-second measurement")


def _report(run: Path, report: Path) -> Path:
    from reports.build import build

    if not (run / "grid.json").is_file():
        return build(run, report)  # which says in one line that there is no run
    leases = Leases()
    while (lease := leases.acquire(run / "report.lease")) is None:
        time.sleep(0.2)  # two runners that end together would build one folder
    with lease:
        return build(run, report)


def _verdict(summary: Summary, store: Store) -> int:
    if not summary.failed:
        return 0
    print(
        f"{len(summary.failed)} of {summary.total} cells failed; tracebacks are in "
        f"{store.root}/cells/*/failure.json; run the same command again to try them again",
        file=sys.stderr,
    )
    return 1
