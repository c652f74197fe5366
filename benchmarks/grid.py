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
  and the same with 256 samples in each cell; killed or stopped, the same --runs goes on.
- --part: the seven schedules at five of the 57 T, which have the same mean, with 256 samples in
  each cell. Times 57/5 it estimates the whole grid, a little high, as the start and the report
  count too often.

Prints a table and the targets; --out FILE.json writes a result file, or adds to it.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import runner
from benchmarks.runner import ROOT, Columns, Row, seconds_of, shown, verdict
from maskgit.common.cli import exit_code
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError

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
class TrivialComputer:
    """Computes cells that cost nothing."""

    def start(self, worker: int, workers: int) -> None:
        """Load nothing."""

    def compute(self, task: Any) -> Any:
        """Return one number."""
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
        engine = Runner(TrivialComputer(), store, workers=workers)
        first = seconds_of(lambda: engine.run(tasks, stopper))
        again = seconds_of(lambda: engine.run(tasks, stopper))
        done = sum(1 for _ in store.root.glob("cells/*/result.json"))
    if done != cells:
        raise RuntimeError(f"{cells} trivial cells, but {done} results")
    return {
        "name": f"trivial cells, {workers} workers",
        "cells": cells,
        "seconds": round(first, 3),
        "cells_per_second": round(cells / first, 1),
        "cached_cells_per_second": round(cells / again, 1),
    }


def overhead_row(rounds: int, device: str) -> Row:
    """Cells through the engine and without it, in turns, in this process."""
    from experiments.engine.cells import Sampling
    from experiments.engine.run.execute import execute
    from experiments.engine.store.lease import Leases
    from experiments.engine.store.store import Store
    from experiments.studies.ablate_schedule.experiment import Options, build
    from maskgit.presets import load_preset

    samples = load_preset("embedded").num_samples
    steps = ",".join(map(str, STEPS))
    shared = {"schedules": "cosine", "metrics": ",".join(METRICS), "num_samples": samples}
    shared["device"] = device
    # One cell more, which does not count: it loads networks, the reference and its factor.
    first = build(Options(T=str(STEPS[0]), seeds=str(rounds), **shared))
    built = build(Options(T=steps, seeds=f"0..{rounds - 1}", **shared))
    tasks, computer = [*first.tasks, *built.tasks], built.computer
    through, bare = list[float](), list[float]()
    stages: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        store, leases = Store(Path(folder) / "run"), Leases()
        store.prepare()
        computer.run = store.root
        computer.start(0, 1)

        def with_engine(task: Any) -> None:
            reply = execute(task, computer, store, leases)
            if reply.kind != "done":
                raise RuntimeError(f"a cell ended as {reply.kind}: {reply.error}")

        def alone(task: Any) -> None:
            images = computer.decode(computer.sample(Sampling.of(task.cell)))
            computer.extractor(task.cell["features"]).extract_batches(images)

        for turn, task in enumerate(tasks):
            kinds = ((with_engine, through), (alone, bare))
            for run, seconds in kinds if turn % 2 else kinds[::-1]:
                seconds.append(seconds_of(lambda run=run, task=task: run(task)))
            timing = json.loads((store.cell(task.key) / "timing.json").read_text())
            stages.append(timing["stages"])
    del tasks[0], through[0], bare[0], stages[0]
    by_steps = {}
    for steps in STEPS:
        here = [i for i, task in enumerate(tasks) if task.cell["steps"] == steps]
        ratio = sum(through[i] for i in here) / sum(bare[i] for i in here)
        by_steps[str(steps)] = round(100 * (ratio - 1), 2)
    metrics = sum(stage["metrics"] for stage in stages)
    rest = sum(through) - sum(sum(stage.values()) for stage in stages)
    return {
        "name": f"overhead, embedded, {samples} samples, T {','.join(map(str, STEPS))}",
        "cells": len(through),
        "seconds_a_cell": round(statistics.mean(through), 4),
        "seconds_pure": round(statistics.mean(bare), 4),
        "overhead_percent": round(100 * (sum(through) / sum(bare) - 1), 2),
        "overhead_percent_by_steps": by_steps,
        "metrics_percent": round(100 * metrics / sum(bare), 2),
        "leases_files_percent": round(100 * rest / sum(bare), 2),
        "metrics": list(METRICS),
    }


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


def repeated(name: str, run: Callable[[], float], repeats: int) -> Row:
    """A row of the median of `repeats` measurements."""
    found = [round(run(), 3) for _ in range(repeats)]
    return {"name": name, "seconds": statistics.median(found), "all": found}


def help_row(module: str, repeats: int) -> Row:
    """Seconds until `--help` has been printed and the process has ended."""

    def run() -> None:
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode or "usage" not in done.stdout.lower():
            raise RuntimeError(f"python -m {module} --help: exit code {done.returncode}")

    run()
    return repeated(f"--help of {module}", lambda: seconds_of(run), repeats)


def seconds_until_there(words: list[str], pattern: str) -> float:
    """Seconds from the start of a Python process until it has written a file like `pattern`.

    words: FOLDER in them becomes the folder that is looked at. The process is then left to end.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(word.replace("FOLDER", folder) for word in words)]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with process:
            while not any(Path(folder).glob(pattern)):
                if process.poll() is not None and not any(Path(folder).glob(pattern)):
                    code = process.returncode
                    raise RuntimeError(f"{' '.join(command)}: exit code {code}, no image")
                time.sleep(0.01)
            return time.perf_counter() - start


def first_image_row(repeats: int, device: str) -> Row:
    """Seconds from the start of a process to one image of the embedded transformer as a file."""
    words = ["-m", "maskgit", "sample", "--class", "bag", "--output", "FOLDER/image.png"]
    words += ["--device", device]
    name = "first image, python -m maskgit sample"
    return repeated(name, lambda: seconds_until_there(words, "image.png"), repeats)


def first_cell_row(repeats: int, device: str) -> Row:
    """Seconds from the start of `ablate_schedule.py` to the first images of its first cell."""
    words = ["--T", "4..6", "--schedules", "cosine", "--metrics", "fid", "--out", "FOLDER"]
    words += ["--device", device]
    words.insert(0, str(ROOT / "experiments/ablate_schedule.py"))
    name = "first images of a grid, ablate_schedule.py"
    return repeated(name, lambda: seconds_until_there(words, "cells/*/samples.npz"), repeats)


def cached_start_row(cells: int, device: str) -> Row:
    """CPU seconds and memory of a whole grid that is cached, by its number of cells T=1..cells."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["experiments/ablate_schedule.py", "--T", f"1..{cells}", "--schedules", "cosine"]
        words += ["--metrics", "fid", "--num-samples", "2", "--device", device, "--out", folder]
        command = [sys.executable, *words]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        with open(f"{folder}/said", "wb") as said:
            process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
            _, code, used = os.wait4(process.pid, 0)
        if code or f"{cells} cached" not in Path(f"{folder}/said").read_text():
            raise RuntimeError(f"the grid of {cells} cells was not all cached")
    return {
        "name": f"a grid of {cells} cached cells and its report, CPU",
        "seconds": round(used.ru_utime + used.ru_stime, 3),
        "megabytes": round(used.ru_maxrss / 1024, 1),
    }


def full_row(name: str, flags: list[str], runs: Path) -> Row:
    """Minutes of a grid, report included."""
    folder = runs / re.sub(r"\W+", "-", name)
    began = folder.exists()
    if began:
        print(f"{folder} exists: its grid goes on and is not timed as a whole", file=sys.stderr)
    words = ["experiments/ablate_schedule.py", *flags]
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


def measured(row: Row) -> str:
    """The cell of a row's result."""
    if "overhead_percent" in row:
        parts = f"metrics {row['metrics_percent']}, leases and files {row['leases_files_percent']}"
        return f"{row['overhead_percent']} % ({parts})"
    if "minutes" in row:
        whole = row.get("minutes_of_399_estimated")
        more = f"; all 399 would take about {whole:g}" if whole else ""
        return f"{row['minutes']} min{more}"
    if "cached_cells_per_second" in row:
        rate, cached = row["cells_per_second"], row["cached_cells_per_second"]
        return f"{shown(rate)} a second, cached {shown(cached)}"
    memory = f", {row['megabytes']:.0f} MB" if "megabytes" in row else ""
    return f"{row['seconds']:.2f} s{memory}"


COLUMNS: Columns = {"what": lambda row: row["name"], "measured": measured}


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
    parser = runner.Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="the rounds of make bench")
    parser.add_argument("--part", action="store_true", help="also a part of a whole grid")
    parser.add_argument("--full", action="store_true", help="also whole grids, very long")
    parser.add_argument("--only-grids", action="store_true", help="--part and --full, nothing else")
    parser.add_argument("--only-start-up", action="store_true", help="first image and --help only")
    parser.add_argument("--runs", type=Path, help="folder of the grids")
    parser.add_argument("--device", default="cpu", help="of the networks: cpu, cuda or cuda:1")
    parser.add_argument("--rounds", type=runner.at_least_one, default=3, help="cells of each T")
    parser.add_out()
    flags = parser.parse_args()
    grids = (PART if flags.part else {}) | (FULL if flags.full else {})
    if not grids and (flags.runs is not None or flags.only_grids):
        raise UsageError("--runs and --only-grids: give --part or --full too")
    device = str(check_device(flags.device))
    results = runner.Results("grid", device, flags.out)
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        results.add(row)
        print(f"{row['name']}: {measured(row)}", file=sys.stderr)

    if not flags.only_grids:
        repeats = 1 if flags.quick else 3
        if not flags.only_start_up:
            add(overhead_row(1 if flags.quick else flags.rounds, device))
            for workers in (0, 2):
                add(trivial_row(100 if flags.quick else 500, workers))
        add(first_image_row(repeats, device))
        add(first_cell_row(repeats, device))
        for cells in (1, 16) if flags.quick else (1, 57):
            add(cached_start_row(cells, device))
        for module in command_lines():
            add(help_row(module, repeats))
    with ExitStack() as stack:
        for name, words in grids.items():
            runs = flags.runs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            add(full_row(name, [*words, "--device", device], runs))
    print(runner.table(COLUMNS, rows))
    print("\n".join(targets(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
