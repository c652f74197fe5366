"""Cells that cost next to nothing, as a payload for jobs: see tests/engine/engine_doubles.py."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from engine_doubles import Trivial, task

from experiments.engine.grid import grid_json
from experiments.engine.store import atomic_write
from slurm.shards import Work
from slurm.submission import Payload

HERE = Path(__file__).parent
# For the jobs, which import this file by name.
PATHS = os.pathsep.join([str(HERE), str(HERE.parent / "engine")])


def tasks(arguments):
    behave = {int(index): kind for index, kind in arguments.get("behave", {}).items()}
    return [task(index, behave.get(index, "")) for index in range(arguments["cells"])]


def prepare(arguments):
    """What `Payload.entry` names: (tasks, computer, run)."""
    run = Path(arguments["run"])
    return tasks(arguments), Trivial(run / "starts.log", arguments.get("seconds", 0.05)), run


def report(arguments):
    """The squares, in order; the same bytes however the cells were computed."""
    run = Path(arguments["run"])
    grid = grid_json("trivial", "none", tasks(arguments), {}, {})
    lines = []
    for cell in grid["cells"]:
        path = run / "cells" / cell["key"] / "result.json"
        value = (
            json.loads(path.read_text())["metrics"]["square"]["value"] if path.exists() else None
        )
        lines.append(f"{cell['cell']['index']} {value}")
    atomic_write(run / "report.txt", "\n".join(lines).encode())
    return run / "report.txt"


def request(run, cells=12, seconds=0.05, **behave):
    """(payload, work) of a trivial grid."""
    arguments = {"run": str(run), "cells": cells, "seconds": seconds}
    arguments["behave"] = {str(i): kind.replace("_", "-") for kind, i in behave.items()}
    payload = Payload("slurm_doubles:prepare", arguments, "slurm_doubles:report")
    return payload, [Work(t.key, t.cost, t.group) for t in tasks(arguments)]
