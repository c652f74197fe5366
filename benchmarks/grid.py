"""What a grid costs beside the sampling it is for, and how soon something happens.

    python benchmarks/grid.py                 # overhead, cells a second, start-up
    python benchmarks/grid.py --quick         # the same, fewer rounds
    python benchmarks/grid.py --part          # also 35 cells of a whole grid: five minutes
    python benchmarks/grid.py --full          # also whole grids: very long

- overhead: cells of the embedded benchmark through the engine (lease, stages, metrics, files), in
  turns with nothing but their sampling, decoding and features in the same process. The likelihood
  is left out: it is computed once for all cells of a transformer.
- trivial cells: how many cells that compute nothing the engine takes through in a second.
- start-up: --help of every command line, and the first image, from fresh processes.
- --full: `experiments/ablate_schedule.py --T 4..60`, 399 cells at the preset's number of samples,
  and the same with 256 samples a cell; killed or stopped, the same --runs goes on.
- --part: the seven schedules at five of the 57 T, which have the same mean, with 256 samples a
  cell. Times 57/5 it estimates the whole grid, a little high: start and report count too often.

Prints a table and the targets; --out FILE.json writes a result file, or adds to it.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also without an install

from benchmarks.common import (
    ROOT,
    Parser,
    Results,
    Row,
    at_least_one,
    fail,
    seconds_of,
    shown,
    table,
    verdict,
)

OVERHEAD, HELP_SECONDS, FIRST_IMAGE_SECONDS, FULL_MINUTES = 5.0, 1.0, 10.0, 30.0
METRICS = ("fid", "is", "precision", "recall", "kid")
STEPS = (4, 18, 32, 46, 60)  # on average those of the default run, 4..60
PACKAGES = ("maskgit", "eval", "experiments", "reports", "slurm")
FULL = {
    "399 cells, T 4..60, preset's samples": ["--T", "4..60"],
    "399 cells, T 4..60, 256 samples": ["--T", "4..60", "--num-samples", "256"],
}
PART = {
    "35 of 399 cells, 256 samples": ["--T", ",".join(map(str, STEPS)), "--num-samples", "256"],
}


@dataclass(frozen=True)
class Trivial:
    """A computer of cells that cost nothing."""

    def start(self, worker: int, workers: int) -> None:
        """Nothing to load."""

    def compute(self, task: Any) -> Any:
        """One number."""
        from experiments.engine.cells import Outcome

        return Outcome(metrics={"square": {"id": "square.v1", "value": float(task.cell["i"] ** 2)}})


def trivial_row(cells: int, workers: int) -> Row:
    """Cells a second through a runner with so many workers (0: inline), its start included."""
    from experiments.engine.cells import Task
    from experiments.engine.keys import digest
    from experiments.engine.run.runner import Runner
    from experiments.engine.run.signals import Stopper
    from experiments.engine.store.store import Store

    tasks = [Task(digest({"i": i}), {"i": i}) for i in range(cells)]
    with tempfile.TemporaryDirectory() as folder, Stopper() as stopper:
        store = Store(Path(folder) / "run")
        store.prepare()
        runner = Runner(Trivial(), store, workers=workers)
        first = seconds_of(lambda: runner.run(tasks, stopper))
        again = seconds_of(lambda: runner.run(tasks, stopper))
        if runner.summary.cached != cells:
            raise RuntimeError(f"{runner.summary.cached} of {cells} cells were there at the end")
    return {
        "name": f"trivial cells, {workers} workers",
        "cells": cells,
        "seconds": round(first, 3),
        "cells_per_second": round(cells / first, 1),
        "cached_cells_per_second": round(cells / again, 1),
    }


def overhead_row(rounds: int) -> Row:
    """Cells through the engine and without it, in turns, in this process."""
    from experiments.engine.grid import sampler_cells
    from experiments.engine.run.execute import execute
    from experiments.engine.store.lease import Leases
    from experiments.engine.store.store import Store
    from experiments.sampler.compute import SamplerComputer
    from experiments.sampler.request import make_task, resolve
    from maskgit.presets import get_preset

    preset = get_preset("embedded")
    cells = sampler_cells(
        "benchmark",
        "embedded",
        schedules=["cosine"],
        steps=STEPS,
        seeds=range(rounds),
        num_samples=preset.num_samples,
    )
    # One cell more, which does not count: it loads networks, the reference and its factor.
    cells.insert(0, replace(cells[0], seed=rounds))
    request = resolve(cells, METRICS)
    tasks = [make_task(request, cell) for cell in cells]
    pure: dict[str, list[float]] = {"tokens": [], "features": []}
    through: list[float] = []
    stages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store, leases = Store(Path(folder) / "run"), Leases()
        store.prepare()
        computer = SamplerComputer(request, store.root)
        computer.start(0, 1)

        def engine(task: Any, warm: bool) -> None:
            seconds = seconds_of(lambda: _checked(execute(task, computer, store, leases)))
            if not warm:
                through.append(seconds)
                for name, value in _timing(store, task).items():
                    stages.setdefault(name, []).append(value)

        def alone(task: Any, warm: bool) -> None:
            start = time.perf_counter()
            tokens = computer.sample(task.cell)
            sampled = time.perf_counter()
            images = computer.decode(tokens, task.cell["backend"])
            computer.extractor(task.cell["features"]).extract_batches(images)
            if not warm:
                pure["tokens"].append(sampled - start)
                pure["features"].append(time.perf_counter() - sampled)

        for turn, task in enumerate(tasks):
            for run in (engine, alone) if turn % 2 else (alone, engine):
                run(task, warm=turn == 0)
    bare = [sum(pair) for pair in zip(pure["tokens"], pure["features"], strict=True)]
    metrics = stages["metrics"]
    by_steps = {}
    for steps in STEPS:
        here = [i for i, task in enumerate(tasks[1:]) if task.cell["steps"] == steps]
        ratio = sum(through[i] for i in here) / sum(bare[i] for i in here)
        by_steps[str(steps)] = round(100 * (ratio - 1), 2)
    rest = [t - sum(s) for t, s in zip(through, zip(*stages.values(), strict=True), strict=True)]
    return {
        "name": f"overhead, embedded, {preset.num_samples} samples, T {','.join(map(str, STEPS))}",
        "cells": len(through),
        "seconds_a_cell": round(statistics.mean(through), 4),
        "seconds_pure": round(statistics.mean(bare), 4),
        "overhead_percent": round(100 * (sum(through) / sum(bare) - 1), 2),
        "overhead_percent_by_steps": by_steps,
        "metrics_percent": round(100 * sum(metrics) / sum(bare), 2),
        "leases_files_percent": round(100 * sum(rest) / sum(bare), 2),
        "metrics": list(METRICS),
    }


def _checked(reply: Any) -> None:
    if reply.kind != "done":
        raise RuntimeError(f"a cell ended as {reply.kind}: {reply.error}")


def _timing(store: Any, task: Any) -> dict[str, float]:
    import json

    return json.loads((store.cell(task.key) / "timing.json").read_text())["stages"]


def command_lines() -> list[str]:
    """Modules of our packages that are a command line, as `python -m` takes them."""
    guard = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
    found = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if guard.search(path.read_text())
    ]
    return [name.removesuffix(".__main__") for name in found]


def help_row(module: str, repeats: int) -> Row:
    """Seconds until `--help` has been printed and the process has ended."""

    def run() -> None:
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode or "usage" not in done.stdout.lower():
            raise RuntimeError(f"python -m {module} --help: exit code {done.returncode}")

    run()
    found = [round(seconds_of(run), 3) for _ in range(repeats)]
    return {"name": f"--help of {module}", "seconds": statistics.median(found), "all": found}


def first_image_row(repeats: int) -> Row:
    """Seconds from the start of a process to one image of the embedded transformer as a file."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "image.png"
            words = ["-m", "maskgit", "sample", "--class", "bag", "--output", str(out)]
            return _until_there([sys.executable, *words], Path(folder), "image.png")

    found = [round(run(), 3) for _ in range(repeats)]
    return {
        "name": "first image, python -m maskgit sample",
        "seconds": statistics.median(found),
        "all": found,
    }


def first_cell_row(repeats: int) -> Row:
    """Seconds from the start of `ablate_schedule.py` to the first images of its first cell."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = [str(ROOT / "experiments/ablate_schedule.py"), "--T", "4..6", "--out", folder]
            words += ["--schedules", "cosine", "--metrics", "fid"]
            command = [sys.executable, *words]
            return _until_there(command, Path(folder), "cells/*/samples.npz")

    found = [round(run(), 3) for _ in range(repeats)]
    return {
        "name": "first images of a grid, ablate_schedule.py",
        "seconds": statistics.median(found),
        "all": found,
    }


def _until_there(command: list[str], folder: Path, pattern: str) -> float:
    """Seconds until a file of that name is in the folder; then the process is left to end."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(folder.glob(pattern)):
            if process.poll() is not None and not any(folder.glob(pattern)):
                raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}, no image")
            time.sleep(0.01)
        return time.perf_counter() - start
    finally:
        process.wait()


def full_row(name: str, flags: list[str], runs: Path) -> Row:
    """Minutes of a grid, report included."""
    folder = runs / re.sub(r"\W+", "-", name)
    if folder.exists():
        print(f"{folder}: there already, so this goes on and is not timed as one", file=sys.stderr)
    words = ["experiments/ablate_schedule.py", *flags]
    began = folder.exists()
    command = [sys.executable, *words, "--out", str(folder)]
    seconds = seconds_of(lambda: subprocess.run(command, check=True, cwd=ROOT))
    cells = int(name.split()[0])
    row: Row = {
        "name": name + (" (continued)" if began else ""),
        "command": " ".join(words),
        "minutes": round(seconds / 60, 2),
        "cells_per_second": round(cells / seconds, 3),
    }
    if name in PART and not began:
        row["minutes_of_399_estimated"] = round(seconds / 60 * 399 / cells, 1)
    return row


def line(row: Row) -> tuple[str, str]:
    """A row of the table."""
    if "overhead_percent" in row:
        parts = f"metrics {row['metrics_percent']}, leases and files {row['leases_files_percent']}"
        return row["name"], f"{row['overhead_percent']} % ({parts})"
    if "minutes_of_399_estimated" in row:
        whole = row["minutes_of_399_estimated"]
        return row["name"], f"{row['minutes']} min; all 399 would take about {whole:g}"
    if "minutes" in row:
        return row["name"], f"{row['minutes']} min"
    if "cached_cells_per_second" in row:
        per = f"{shown(row['cells_per_second'])} a second"
        return row["name"], f"{per}, cached {shown(row['cached_cells_per_second'])}"
    return row["name"], f"{row['seconds']:.2f} s"


def targets(rows: list[Row]) -> list[str]:
    """The targets that these rows can answer."""
    said = []
    for row in rows:
        name = row["name"]
        if "overhead_percent" in row:
            said.append(verdict(f"{name}, %", row["overhead_percent"], OVERHEAD, at_most=True))
        elif name.startswith("first image"):
            said.append(verdict(f"{name}, s", row["seconds"], FIRST_IMAGE_SECONDS, at_most=True))
        elif name == "399 cells, T 4..60, 256 samples":
            said.append(verdict(f"{name}, min", row["minutes"], FULL_MINUTES, at_most=True))
        elif "minutes_of_399_estimated" in row:
            what, whole = f"399 cells, estimated from {name}, min", row["minutes_of_399_estimated"]
            said.append(verdict(what, whole, FULL_MINUTES, at_most=True))
    helps = [row for row in rows if row["name"].startswith("--help")]
    if helps:
        worst = max(helps, key=lambda row: row["seconds"])
        what = f"the slowest {worst['name']}, s"
        said.append(verdict(what, worst["seconds"], HELP_SECONDS, at_most=True))
    return said


def main() -> int:
    """Parse the flags, measure, print."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the rounds of make bench")
    parser.add_argument("--part", action="store_true", help="also a part of a whole grid")
    parser.add_argument("--full", action="store_true", help="also whole grids, very long")
    parser.add_argument("--only-grids", action="store_true", help="--part and --full, nothing else")
    parser.add_argument("--only-start-up", action="store_true", help="first image and --help only")
    parser.add_argument("--runs", type=Path, default=None, help="folder of the grids")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="cells of each T")
    parser.add_argument("--out", type=Path, default=None, help="result file, JSON")
    flags = parser.parse_args()
    grids = (PART if flags.part else {}) | (FULL if flags.full else {})
    if not grids and (flags.runs is not None or flags.only_grids):
        fail("--runs and --only-grids: give --part or --full too")
    results = Results("grid", "cpu", flags.out)
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        results.add(row)
        print("  ".join(line(row)), file=sys.stderr)

    if not flags.only_grids:
        repeats = 1 if flags.quick else 3
        if not flags.only_start_up:
            add(overhead_row(1 if flags.quick else flags.rounds))
            for workers in (0, 2):
                add(trivial_row(100 if flags.quick else 500, workers))
        add(first_image_row(repeats))
        add(first_cell_row(repeats))
        for module in command_lines():
            add(help_row(module, repeats))
    if grids:
        runs = flags.runs or Path(tempfile.mkdtemp(prefix="benchmark-grid-"))
        for name, words in grids.items():
            add(full_row(name, words, runs))
        if flags.runs is None:
            shutil.rmtree(runs)
    print(table([("what", "measured"), *map(line, rows)]))
    print("\n".join(targets(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
