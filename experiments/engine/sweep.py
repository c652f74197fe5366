"""A sweep of the sampler from options to report: what every script in `experiments/` calls."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import Cell, Task
from experiments.engine.grid import grid_json, write_grid
from experiments.engine.options import GPU_WORKERS, MAX_WORKERS, SweepOptions
from experiments.engine.remote import run_on_slurm, stop_if_preparing
from experiments.engine.run.progress import Progress, clock
from experiments.engine.run.runner import Runner, Summary, split_done
from experiments.engine.run.signals import Stopper
from experiments.engine.store.lease import Leases
from experiments.engine.store.store import Store
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.sampler.compute import SamplerComputer
    from experiments.sampler.networks import Network
    from experiments.sampler.request import Request

GAMMA_POINTS = 101  # r = 0, 0.01, ..., 1: the curves of the report's Figure 8, left
LARGE = 2**26  # bytes of a network's weights from which one worker has the whole CPU


def run_sweep(experiment: str, options: SweepOptions, cells: Sequence[Cell]) -> int:
    """Run a grid of the sampler (or plan it, or only report it); returns the exit code.

    Raises:
        UsageError: (of any of our packages) the request cannot be met; nothing was computed.
        Interrupted: a signal came.
        RunError: the workers cannot be started.
    """
    run, _ = options.folders(experiment)
    if options.only_report:
        return only_report(experiment, options)
    check_folders(experiment, options)
    with Stopper():
        tasks, computer, grid = _prepare(experiment, options, cells, run)
    return run_tasks(experiment, options, tasks, computer, grid, estimate=True)


def check_folders(experiment: str, options: SweepOptions) -> None:
    """Whether the folders of the run and of the report can be used, before any work.

    Raises:
        UsageError: one is a file, or holds what no report wrote.
    """
    from reports.build import check_out

    run, report = options.folders(experiment)
    if run.exists() and not run.is_dir():
        raise UsageError(f"--out {run}: is a file; give a folder")
    check_out(report)


def only_report(experiment: str, options: SweepOptions) -> int:
    """Build the report of what is there, and print its path."""
    check_folders(experiment, options)
    print(build_report(*options.folders(experiment)))
    return 0


def run_tasks(
    experiment: str,
    options: SweepOptions,
    tasks: Sequence[Task],
    computer: Any,
    grid: dict[str, Any],
    *,
    estimate: bool = False,
) -> int:
    """Compute what is not done of any experiment, and build its report; returns the exit code.

    computer: see execute.Computer; has `request`, too. grid: see grid.grid_json. estimate: whether
    --dry-run also tells the time, which only sweeps of the sampler know. Prints the path of the
    report on stdout, everything else on stderr. Raises as `run_sweep`.
    """
    stop_if_preparing(tasks, computer)
    if options.slurm is not None:
        return run_on_slurm(experiment, options, tasks, grid)
    run, report = options.folders(experiment)
    store = Store(run)
    with Stopper() as stopper:
        workers = default_workers(options, computer.request)
        if options.dry_run:
            _plan(tasks, store, computer, workers, estimate)
            return 0
        store.prepare()
        write_grid(run, grid)
        runner = Runner(computer, store, workers=workers, progress=Progress(sys.stderr))
        summary = runner.run(tasks, stopper)
        write_grid(run, grid)  # another runner in this folder may have asked for something else
        print(build_report(run, report))
    return _verdict(summary, store)


def _prepare(
    experiment: str, options: SweepOptions, cells: Sequence[Cell], run: Path
) -> tuple[list[Task], SamplerComputer, dict[str, Any]]:
    from experiments.sampler.compute import SamplerComputer
    from experiments.sampler.request import check_device, make_task, resolve

    if options.slurm is None:  # the device is that of the nodes
        check_device(options.device)
    request = resolve(
        cells,
        options.metric_list(),
        weights=options.weights,
        weights_dir=options.weights_dir,
        data=options.data,
    )
    for what, why in request.unavailable().items():
        print(f"warning: {what} will be missing: {why}", file=sys.stderr)
    tasks = [make_task(request, cell) for cell in cells]
    computer = SamplerComputer(request, options.stages or run, options.batch_size, options.device)
    protocol = grid_protocol(options, request, tasks)
    cards = {name: network.card for name, network in _samplers(request, tasks).items()}
    return tasks, computer, grid_json(experiment, request.preset, tasks, protocol, cards)


def _samplers(request: Request, tasks: Sequence[Task]) -> dict[str, Network]:
    """Schedule (or the sampler that has none) -> the network that samples its cells."""
    return {
        task.cell["schedule" if task.cell["sampler"] == "maskgit" else "sampler"]: request.network(
            task.cell
        )
        for task in tasks
    }


def grid_protocol(options: SweepOptions, request: Request, tasks: Sequence[Task]) -> dict[str, Any]:
    """What holds for all cells of a grid, for the report: plain data without times or paths."""
    import numpy as np

    from experiments.sampler import held_out, imaging, measuring
    from experiments.sampler.networks import shared_words
    from maskgit.presets import get_preset
    from maskgit.schedules import mask_ratio

    preset = get_preset(request.preset)
    samplers = _samplers(request, tasks)
    schedules = [name for name in samplers if name != "autoregressive"]
    r = np.linspace(0.0, 1.0, GAMMA_POINTS, dtype=np.float32)
    gamma = {name: mask_ratio(name, r, preset.num_tokens) for name in schedules}
    shared = shared_words({name: samplers[name] for name in schedules})
    # Flags without which these cells cannot be asked for; where the folders are is nobody's matter.
    flags = [
        flag
        for flag, value in (
            ("--weights", options.weights),
            ("--weights-dir", options.weights_dir),
            ("--data", options.data),
        )
        if value is not None
    ]
    protocol = {
        "features": _all(task.cell["features"] for task in tasks),
        "reference": _all(request.sides[task.cell["features"]].reference for task in tasks),
        "backend": _all(task.cell["backend"] for task in tasks),
        "precision": _all(task.cell["precision"] for task in tasks),
        "mode": _all(task.cell["mode"] for task in tasks),
        "num_samples": options.num_samples or preset.num_samples,
        "choice_temperature": options.choice_temperature,
        "num_tokens": preset.num_tokens,
        "class_names": list(preset.class_names),
        "metrics": {
            name: _all(measuring.metric_ids(features)[name] for features in request.sides)
            for name in request.metrics
        },
        "rounding": imaging.ROUNDING,
        "inception_score": (
            f"{measuring.SPLITS} splits, shuffled; one split below {measuring.SPLITS_FROM} samples"
        ),
        "precision_recall": f"k={measuring.K}; as many real images as samples, the first of a "
        "shuffled, class-balanced subset of the reference",
        "nll": f"{request.held_out.words}, one mask each, noise seed {held_out.SEED}; "
        "nats per masked token over the whole vocabulary, unsmoothed",
        "code": {
            stage: _all(task.spec.protocol["code"].get(stage, "") for task in tasks)
            for stage in ("tokens", "images", "features", "metrics", "likelihood")
        },
        "gamma": {name: [float(value) for value in values] for name, values in gamma.items()},
    }
    # Only where there is something to say.
    more = {"missing": request.unavailable(), "transformer": shared, "flags": flags}
    return protocol | {name: value for name, value in more.items() if value}


def _all(values: Iterable[str]) -> str:
    """The different values, each once, in order."""
    return ", ".join(filter(None, dict.fromkeys(values)))


def default_workers(options: SweepOptions, request: Request) -> int:
    """--workers; or two per GPU; or one per core up to a few, but one for large networks and JAX.

    A large network uses all cores by itself, and each worker would hold a copy of it.
    """
    from experiments.sampler.compute import available_cores, gpu_count

    if options.workers is not None:
        return options.workers
    if options.backend == "jax":
        return 1
    if gpus := gpu_count(options.device):
        return GPU_WORKERS * gpus
    if max(network.bytes for network in request.networks.values()) > LARGE:
        return 1
    return min(available_cores(), MAX_WORKERS)


def _plan(tasks: Sequence[Task], store: Store, computer: Any, workers: int, estimate: bool) -> None:
    from experiments.engine.store.stages import Stages
    from experiments.sampler.estimate import forwards, seconds_of

    done, left = split_done(tasks, store, lambda line: print(line, file=sys.stderr))
    print(f"{len(tasks)} cells: {len(done)} cached, {len(left)} to do")
    if not estimate:
        return
    count = forwards(left, Stages(computer.run))
    print(f"{count} transformer forwards (images x iterations)")
    seconds = seconds_of(left, computer, workers) if left else 0.0
    print(f"about {clock(seconds)} with {workers} workers, from a short measurement")


def build_report(run: Path, report: Path) -> Path:
    """Build the report of a run into a folder; one process at a time does. Returns its path."""
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
