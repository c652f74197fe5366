"""A grid whose cells cost next to nothing, to run the engine without torch, weights or data.

    python tests/experiments/engine/engine_doubles.py STORE --cells 12 --workers 2 --seconds 0.1

`--behave KIND:i` makes cell i misbehave: `raise`, `die` (SIGKILL to its worker, every time) or
`die-once`.
"""

import argparse
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.engine.cells import Outcome, Task
from experiments.engine.grid import grid_json, write_grid
from experiments.engine.keys import digest
from experiments.engine.run.progress import Progress
from experiments.engine.run.runner import Runner
from experiments.engine.run.signals import Interrupted, Stopper
from experiments.engine.store.lease import Leases
from experiments.engine.store.store import Store
from maskgit.common.errors import RunError


def task(index: int, behave: str = "") -> Task:
    cell = {"index": index, "schedule": f"s{index % 3}"}
    if behave:
        cell["behave"] = behave
    return Task(digest(cell), cell, group=str(cell["schedule"]), cost=1.0 + index % 4, size=10)


def tasks(count: int, **behave: int) -> list[Task]:
    kinds = {index: kind.replace("_", "-") for kind, index in behave.items()}
    return [task(index, kinds.get(index, "")) for index in range(count)]


@dataclass(frozen=True)
class Trivial:
    """Sleeps and returns the square of the index; notes each start in an append-only log."""

    log: Path
    seconds: float = 0.0

    def start(self, worker: int, workers: int) -> None:
        if os.environ.get("ENGINE_BROKEN") == "raise":
            raise RuntimeError("no such device")
        if os.environ.get("ENGINE_BROKEN") == "die":
            os.kill(os.getpid(), signal.SIGKILL)

    def compute(self, task: Task) -> Outcome:
        with open(self.log, "ab", 0) as file:
            file.write(f"{task.cell['index']} {os.getpid()}\n".encode())
        index, behave = task.cell["index"], task.cell.get("behave", "")
        if behave == "raise":
            raise ValueError(f"cell {index} does not want\nto be computed")
        marker = self.log.with_name("died")
        if behave == "die" or (behave == "die-once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if task.blocks > 1:
            index = int(self.blocks(task).read().sum())
        else:
            time.sleep(self.seconds)
        return Outcome(
            metrics={"square": {"id": "square.v1", "value": float(index**2)}},
            arrays=self.arrays(index) if index == 3 else {},
        )

    def help(self, task: Task) -> bool:
        return self.blocks(task).help()

    def blocks(self, task: Task) -> Any:
        """A pool of five rows a block; notes each block in the log."""
        from experiments.engine.store.blocks import Blocks
        from experiments.engine.store.stages import Stages

        def make(ids):
            with open(self.log, "ab", 0) as file:
                file.write(f"block-{ids[0] // 5} {os.getpid()}\n".encode())
            time.sleep(self.seconds)
            return ids * ids

        stages = Stages(self.log.parent, Leases(0.2, 1.0))
        return Blocks(stages, "tokens", task.key, 5 * task.blocks - 2, 5, make)

    def arrays(self, index: int) -> dict:
        """For one cell only: importing numpy takes longer than a whole run otherwise."""
        import numpy as np

        return {"images": np.full((2, 4, 4, 1), index % 256, np.uint8)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--behave", default="")
    parser.add_argument("--blocks", type=int, default=1, help="of each cell")
    options = parser.parse_args()
    kind, _, index = options.behave.partition(":")
    grid = tasks(options.cells, **({kind.replace("-", "_"): int(index)} if kind else {}))
    grid = [replace(item, blocks=options.blocks) for item in grid]
    store = Store(options.store)
    store.prepare()
    write_grid(store.root, grid_json("trivial", "none", grid, {}, {}))
    computer = Trivial(options.store / "starts.log", options.seconds)
    leases = Leases(beat_every=0.2, stale_after=1.0)
    progress = Progress(sys.stderr)
    runner = Runner(computer, store, workers=options.workers, progress=progress, leases=leases)
    try:
        with Stopper() as stopper:
            summary = runner.run(grid, stopper)
    except Interrupted as ended:
        print(f"{ended}; run the same command again to go on", file=sys.stderr)
        return ended.exit_code
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{summary.done} {summary.cached} {len(summary.failed)}")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
