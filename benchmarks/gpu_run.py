"""Everything that needs a GPU, in phases that end in time and keep what they have found.

    python benchmarks/gpu_run.py measure --deadline 300 --out OUT
    python benchmarks/gpu_run.py train --deadline 420 --data FOLDER --out OUT
    python benchmarks/gpu_run.py all --deadline 600 --dry-run-cpu --out OUT

PHASES are names separated by commas, in the order in which they run; `measure`, `train` and `all`
stand for several. NAME:SECONDS gives a phase another limit. Each command of a phase is a process of
its own, which is stopped at the phase's limit or at the deadline; the next phases run all the same.

After every phase OUT/gpu_run.json has its row, and OUT holds all results so far: gpu_run.log (what
the commands printed), sampling.json, training.json, the trained weights in weights-1.tar and
weights-2.tar, and the grids' results and reports in grids.tar.gz. A table comes last. Networks are
trained below --work, where an interrupted training goes on. --data has Fashion-MNIST's IDX files.

--dry-run-cpu runs every phase on a CPU with tiny numbers, which say nothing of speed; only the
deadline limits it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks import runner
from benchmarks.gpu_phases import GROUPS, PHASES, Command, Plan, dry_data
from benchmarks.runner import ROOT, Columns, Row
from maskgit.common.cli import exit_code
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError
from maskgit.common.files import read_json

TAR_BYTES = 16 * 2**20
GRACE = 8.0  # seconds from SIGTERM to SIGKILL, in which a grid ends its cells
RESERVE = 5.0  # seconds before the deadline that packing and the table take
TAIL = 12  # lines of a phase's output that are shown
KEPT = (".json", ".html", ".svg", ".png", ".csv", ".tex", ".md")  # of a grid
COLUMNS: Columns = {
    "phase": lambda row: row["name"],
    "state": lambda row: row["state"],
    "seconds": runner.number("seconds"),
    "last line": lambda row: row["last_line"][:90],
}


# Running commands


def run_command(command: Command, limit: float, log: BinaryIO) -> int | None:
    """The exit code of `python COMMAND`; None if it was stopped after `limit` seconds.

    It and the processes it started get SIGTERM, and SIGKILL after GRACE.
    """
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return None
    finally:
        with suppress(ProcessLookupError):  # also what a command that ended left running
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_phase(name: str, limit: float, plan: Plan) -> Row:
    """The row of a phase, for which there are `limit` seconds."""
    began, states, commands = time.monotonic(), [], []
    path = plan.out / "gpu_run.log"
    with path.open("ab") as log:
        start = log.seek(0, os.SEEK_END)
        for command in PHASES[name].commands(plan):
            left = began + limit - time.monotonic()
            if left <= 0:
                states.append("stopped at the limit")
                break
            commands.append(shlex.join(["python", *command]) if command[0] != "-c" else "-c")
            log.write(f"\n== {name}: {commands[-1]}\n".encode())
            log.flush()
            code = run_command(command, left, log)
            if code != 0:
                states.append("stopped at the limit" if code is None else f"exit code {code}")
    printed = path.read_bytes()[start:].decode(errors="replace")
    lines = [line for line in printed.splitlines() if line.strip() and line[:3] != "== "][-TAIL:]
    print("\n".join(lines), flush=True)
    return {
        "name": name,
        "state": states[0] if states else "done",
        "seconds": round(time.monotonic() - began, 1),
        "limit": round(limit, 1),
        "commands": commands,
        "last_line": lines[-1] if lines else "",
    }


def pack(plan: Plan) -> Row:
    """Write the tar files of --out; what they hold, and what found no room in them."""
    folders = [path.parent for path in sorted(plan.weights.glob("*/card.json"))]
    cards = {f.name: read_json(f / "card.json").get("results") for f in folders}
    groups: list[list[Path]] = [[], []]
    room, left_out = [TAR_BYTES - 2**16] * 2, []
    for folder in sorted(folders, key=_size, reverse=True):
        fits = [i for i in (0, 1) if room[i] >= _size(folder)]
        if not fits:
            left_out.append(folder.name)
            continue
        room[fits[0]] -= _size(folder)
        groups[fits[0]].append(folder)
    for number, group in enumerate(groups, 1):
        _tar(plan.out / f"weights-{number}.tar", {path.name: path for path in group})
    grids = plan.work / "grids"
    kept = [path for path in sorted(grids.rglob("*")) if path.suffix in KEPT and path.is_file()]
    _tar(plan.out / "grids.tar.gz", {str(path.relative_to(grids)): path for path in kept})
    cells = len(list(grids.glob("*/cells/*/result.json")))
    return {"cards": cards, "cells": cells, "weights_left_out": left_out}


def _size(folder: Path) -> int:
    """Bytes of a folder in a tar file: a header, and whole blocks, for each file."""
    return sum(1024 + path.stat().st_size for path in folder.rglob("*"))


def _tar(path: Path, members: dict[str, Path]) -> None:
    """Write a tar file beside its place and put it there whole; none without members."""
    if not members:
        return
    part = path.with_name(f".{path.name}")
    with tarfile.open(part, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, member in members.items():
            archive.add(member, name)
    part.replace(path)


# The command line


def parse_phases(text: str) -> dict[str, float]:
    """Name -> seconds of `check,tests:60` or of a group's name.

    Raises:
        UsageError: no such phase, or its seconds are no whole number above 0.
    """
    found: dict[str, float] = {}
    for word in text.split(","):
        name, colon, seconds = word.partition(":")
        if name not in {**PHASES, **GROUPS} or (colon and not seconds.isdecimal()):
            known = ", ".join([*PHASES, *GROUPS])
            raise UsageError(f"PHASES {word}: expected NAME or NAME:SECONDS of {known}")
        for each in GROUPS.get(name, [name]):
            found[each] = float(seconds) if colon else PHASES[each].limit
    return found


def main() -> int:
    """Parse the flags, run the phases, print the table; 1 if a phase failed."""
    parser = runner.Parser(__doc__)
    parser.add_argument("phases", metavar="PHASES", help=", ".join([*PHASES, *GROUPS]))
    parser.add_argument("--deadline", type=runner.at_least_one, required=True, help="seconds")
    parser.add_argument("--dry-run-cpu", action="store_true", help="all phases tiny, on a CPU")
    parser.add_argument("--data", type=Path, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="where it trains")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu/out"), help="results")
    flags: Any = parser.parse_args()
    end = time.monotonic() + flags.deadline - RESERVE
    phases = parse_phases(flags.phases)
    plan = Plan(flags.out.resolve(), flags.work.resolve(), flags.data, flags.dry_run_cpu)
    check_device(plan.device)
    plan.out.mkdir(parents=True, exist_ok=True)
    plan.work.mkdir(parents=True, exist_ok=True)
    if plan.dry:
        plan = Plan(plan.out, plan.work, dry_data(plan.work / "data"), True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the command that runs, too
    results = runner.Results("gpu_run", plan.device, plan.out / "gpu_run.json")
    rows = []
    for name, limit in phases.items():
        left = end - time.monotonic()
        if not plan.dry:
            left = min(limit, left)
        print(f"{name} ({max(0.0, left):.0f} s) ...", flush=True)
        if left > 1:
            row = run_phase(name, left, plan)
        else:
            row = {"name": name, "state": "no time left", "seconds": 0.0, "last_line": ""}
        results.add(row)  # should packing fail
        results.content |= pack(plan)
        results.add(row)
        rows.append(row)
    print(runner.table(COLUMNS, rows))
    return int(any(row["state"].startswith("exit code") for row in rows))


if __name__ == "__main__":
    sys.exit(exit_code(main))
