"""Runners killed at random moments, again and again: is any cell lost, computed twice, or torn?

    python benchmarks/faults.py --kills 200                  # at most --minutes 30
    python benchmarks/faults.py --kills 20 --seed 1 --out other.json

Two runners of the engine work on one grid of cells that cost next to nothing. At random moments
SIGKILL hits a worker process, a runner, or a runner with all its workers; what died is started
again by the same command, and a finished grid is followed by another in a new folder. After every
kill all files are read: a cell counts as torn if any of them cannot be believed, as changed if a
published result is another file than before. At the end of each grid a cell counts as lost if it
has no result, as doubled if it was published twice, as different if its result's bytes are not
those of a run without kills. Prints the counts; writes them to benchmarks/results/faults.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import runner
from experiments.engine.cells import Outcome, Task
from experiments.engine.check import check
from experiments.engine.grid import grid_json, write_grid
from experiments.engine.keys import digest
from experiments.engine.run.runner import Runner
from experiments.engine.run.signals import Interrupted, Stopper
from experiments.engine.store.lease import Leases
from experiments.engine.store.store import Store
from maskgit.common.cli import exit_code
from maskgit.common.errors import UsageError
from maskgit.common.files import write_json

KINDS = ("worker", "runner", "group")


@dataclass(frozen=True)
class Squares:
    """Sleeps and returns a square; every fourth cell has an array, too."""

    log: Path
    seconds: float

    def start(self, worker: int, workers: int) -> None:
        """Nothing to load."""

    def compute(self, task: Task) -> Outcome:
        """One cell; notes its beginning in an append-only log."""
        index = task.cell["index"]
        with open(self.log, "ab", 0) as file:
            file.write(f"{index}\n".encode())
        time.sleep(self.seconds)
        images = {"images": np.full((8, 16, 16), index % 256, np.uint8)}
        metrics = {"square": {"id": "square.v1", "value": float(index**2)}}
        return Outcome(metrics, arrays=images if index % 4 == 0 else {})


def tasks(cells: int) -> list[Task]:
    """The grid."""
    grid = ({"index": index} for index in range(cells))
    return [Task(digest(cell), cell, group=str(cell["index"] % 3)) for cell in grid]


def run_grid(store: Store, cells: int, seconds: float, workers: int) -> int:
    """What a runner process does: the exit code is 1 if a cell failed."""
    grid = tasks(cells)
    store.prepare()
    write_grid(store.root, grid_json("faults", "none", grid, {}, {}))
    computer = Squares(store.root.with_suffix(".log"), seconds)
    engine = Runner(computer, store, workers=workers, leases=Leases(1.0, 10.0))
    try:
        with Stopper() as stopper:
            return 1 if engine.run(grid, stopper).failed else 0
    except Interrupted as ended:
        return ended.exit_code


class Victims:
    """The runner processes of one grid."""

    def __init__(self, flags: argparse.Namespace, store: Path, log: Path):
        self.flags, self.store = flags, store
        self.log = open(log, "ab")  # noqa: SIM115  # for as long as the processes live
        self.processes: list[subprocess.Popen] = []
        self.clean = 0  # runners that ended by themselves with every cell done

    def fill(self) -> None:
        """Start what is not running, unless the grid is finished."""
        for process in [p for p in self.processes if p.poll() is not None]:
            self.processes.remove(process)
            self.clean += process.returncode == 0
        while not self.clean and len(self.processes) < self.flags.runners:
            words = ["--run", self.store, "--cells", self.flags.cells]
            words += ["--seconds", self.flags.seconds, "--workers", self.flags.workers]
            command = [sys.executable, __file__, *map(str, words)]
            self.processes.append(
                subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)
            )

    def kill(self, kind: str, chance: random.Random) -> str:
        """Kill one of them; returns what was killed, empty if nothing runs."""
        running = [p for p in self.processes if p.poll() is None]
        if not running:
            return ""
        process = chance.choice(running)
        workers = workers_of(process.pid)
        if kind == "worker" and not workers:
            kind = "runner"  # it has not started any yet
        try:
            if kind == "group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(chance.choice(workers) if kind == "worker" else process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return ""
        if kind != "worker":
            process.wait()
        return kind

    def end(self) -> None:
        """After the last kill: let them finish."""
        while not self.clean:
            self.fill()
            for process in self.processes:
                process.wait()
        for process in self.processes:
            process.wait()
        self.log.close()


def workers_of(pid: int) -> list[int]:
    """The worker processes of a runner (Linux only: from /proc)."""
    found = []
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def identities(store: Path) -> dict[Path, tuple[int, int]]:
    """Which file each result is: a result that is computed again would be another file."""
    stats = {path: path.stat() for path in store.glob("cells/*/result.json")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def results(store: Path) -> dict[str, bytes]:
    """What a report reads."""
    return {path.parent.name: path.read_bytes() for path in store.glob("cells/*/result.json")}


def torn(store: Path) -> int:
    """The number of files whose content does not agree with their checksums."""
    if not (store / "grid.json").exists():
        return 0
    try:
        return sum(finding.kind == "damaged" for finding in check(store).findings)
    except UsageError:  # grid.json itself
        return 1


def soak(flags: argparse.Namespace, folder: Path) -> dict:
    """Kill until the kills or the minutes are used up; returns the counts."""
    chance = random.Random(flags.seed)
    counts: Counter[str] = Counter()
    whole = folder / "undisturbed"
    began = time.monotonic()
    undisturbed = Victims(flags, whole, folder / "runners.log")
    undisturbed.end()
    alone = time.monotonic() - began
    expected = results(whole)
    began, grid, done_kills = time.monotonic(), 0, 0
    deadline = began + 60 * flags.minutes
    while done_kills < flags.kills and time.monotonic() < deadline:
        store = folder / f"grid{grid}"
        grid += 1
        victims = Victims(flags, store, folder / "runners.log")
        seen: dict[Path, tuple[int, int]] = {}
        victims.fill()
        while not victims.clean and done_kills < flags.kills and time.monotonic() < deadline:
            time.sleep(chance.uniform(0.0, flags.pause))
            killed = victims.kill(chance.choice(KINDS), chance)
            if killed:
                done_kills += 1
                counts[killed] += 1
                counts["torn"] += torn(store)
                now = identities(store)
                counts["changed"] += sum(now.get(path) != file for path, file in seen.items())
                seen = now
            victims.fill()
        victims.end()
        count_grid(flags, store, expected, counts)
        print(f"{done_kills} kills in {grid} grids", file=sys.stderr)
    seconds = time.monotonic() - began
    found = {name: counts[name] for name in ("lost", "doubled", "torn", "changed", "different")}
    return {
        "kills": {kind: counts[kind] for kind in KINDS},
        "grids": grid,
        "cells_expected": grid * flags.cells,
        "cells": found,
        "computations_begun": counts["begun"],
        "seconds": round(seconds, 1),
        "seconds_of_a_grid_without_kills": round(alone, 2),
        "seconds_lost_a_kill": round((seconds - grid * alone) / max(1, done_kills), 2),
        "settings": {
            name: getattr(flags, name)
            for name in ("cells", "seconds", "runners", "workers", "pause", "seed")
        },
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def count_grid(
    flags: argparse.Namespace, store: Path, expected: dict[str, bytes], counts: Counter[str]
) -> None:
    """Add what a finished grid shows."""
    found = results(store)
    events = map(json.loads, (store / "journal.jsonl").read_text().splitlines())
    times = Counter(event["key"] for event in events if event["event"] == "done")
    counts["lost"] += sum(task.key not in found for task in tasks(flags.cells))
    counts["doubled"] += sum(number > 1 for number in times.values())
    counts["different"] += sum(expected.get(key) != value for key, value in found.items())
    counts["torn"] += torn(store)
    counts["begun"] += len(store.with_suffix(".log").read_text().splitlines())


def words(found: dict) -> str:
    """The result in plain words."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["kills"].items())
    cells = found["cells"]
    extra = found["computations_begun"] - found["cells_expected"]
    return "\n".join(
        [
            f"{sum(found['kills'].values())} kills ({kinds}) in {found['grids']} grids, "
            f"{found['seconds']:.0f} s",
            f"cells expected: {found['cells_expected']}",
            *(f"{name}: {count}" for name, count in cells.items()),
            f"computations that a kill cut off: {extra}",
            f"a grid without kills takes {found['seconds_of_a_grid_without_kills']:.1f} s; "
            f"a kill costs {found['seconds_lost_a_kill']:.2f} s",
        ]
    )


def parser() -> runner.Parser:
    """The command line."""
    found = runner.Parser(__doc__)
    found.add_argument("--kills", type=int, default=200)
    found.add_argument("--minutes", type=float, default=30.0, help="at most so long")
    found.add_argument("--cells", type=int, default=60, help="of a grid")
    found.add_argument("--seconds", type=float, default=0.1, help="that a cell takes")
    found.add_argument("--runners", type=int, default=2, help="at a time")
    found.add_argument("--workers", type=int, default=2, help="of a runner")
    found.add_argument("--pause", type=float, default=1.5, help="most seconds between two kills")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--out", type=Path, default=runner.RESULTS / "faults.json")
    found.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    return found


def main() -> int:
    """Parse the flags and run; exit code 1 if a cell was lost, doubled, torn or changed."""
    flags = parser().parse_args()
    for name in ("kills", "minutes", "cells", "runners", "workers"):
        if getattr(flags, name) <= 0:
            raise UsageError(f"--{name} {getattr(flags, name)}: expected more than 0")
    if flags.run is not None:
        return run_grid(Store(flags.run), flags.cells, flags.seconds, flags.workers)
    if not Path("/proc/self").exists():
        raise UsageError("the workers are found in /proc: this runs on Linux only")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        found = soak(flags, Path(folder))
    print(words(found))
    write_json(flags.out, found, "--out")
    return 1 if any(found["cells"].values()) else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
