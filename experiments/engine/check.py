"""Look at every file of a run: what is whole, what is missing, damaged, or does not belong there.

python -m experiments.engine.check RUN                 says; changes nothing
python -m experiments.engine.check RUN --quarantine    moves damaged files away

RUN is the --out folder of a sweep, or of reproduce.py with several in it; it may be at work
meanwhile. Damaged files go to RUN/quarantine/, under their own paths; nothing is deleted, and the
next run computes again what was taken away. Files that no part of the engine writes stay.
Exit codes: 0 every cell of grid.json is there and sound; 1 something is not; 2 a wrong request.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.engine.cells import Task
from experiments.engine.store.lease import Leases, read_lease
from experiments.engine.store.stages import ENDS, Stages
from experiments.engine.store.store import Store
from maskgit.common.cli import ArgumentParser, exit_code
from maskgit.common.errors import UsageError
from maskgit.common.files import read_json
from reports.load import read_grid

OLD = 3600.0  # seconds from which a temporary file is nobody's any more

# A finding of one of these kinds is a problem; the others are told, no more.
PROBLEMS = ("damaged", "missing", "failed", "foreign")
IN_RUN = {"grid.json", "journal.jsonl", "cells", "stages", "slurm", "report", "quarantine", "cas"}
IN_ALL = {"stages", "cas", "report", "not_run", "quarantine"}  # of reproduce.py, beside the runs
IN_CELL = {"result.json", "samples.npz", "timing.json", "failure.json", "lease", "rejected.json"}
TEMPORARY = (".tmp-", ".lease-", ".report.")  # the last beside a report that is being built
_KEY = re.compile(r"[0-9a-f]{64}")
_STAGE = re.compile(r"[0-9a-f]{64}(/\d{5,})?|reference-[a-z0-9-]+")  # a file's, or a block's


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. `path` is below the run's folder.

    kind: damaged (a file that does not hold what was written), missing (a cell of the grid without
        result), failed (one whose last attempt raised), foreign (a file that no part of the engine
        writes there); stale (the result of a cell that the last grid does not ask for), leftover
        (of a writer that was killed) and working (a cell that somebody computes now) are no
        problems.
    """

    kind: str
    path: str
    reason: str = ""


@dataclass(frozen=True)
class Checked:
    """What `check` found: cells in the grid, those with a sound result, and everything else."""

    cells: int
    sound: int
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> list[Finding]:
        """The findings that make the exit code 1."""
        return [finding for finding in self.findings if finding.kind in PROBLEMS]


def check(run: Path) -> Checked:
    """Read every file of a run, or of all runs of a folder of reproduce.py.

    Raises:
        UsageError: there is no grid.json, or it is not one of ours.
    """
    run = Path(run)
    below = sorted(path.parent.name for path in run.glob("*/grid.json"))
    if (run / "grid.json").is_file() or not below:
        return _check_run(run)
    cells = sound = 0
    found = list(_beside_cells(run, IN_ALL | set(below)))
    for name in below:
        checked = _check_run(run / name)
        cells, sound = cells + checked.cells, sound + checked.sound
        found += [replace(one, path=f"{name}/{one.path}") for one in checked.findings]
    return Checked(cells, sound, tuple(found))


def _check_run(run: Path) -> Checked:
    grid = {item["key"]: item["cell"] for item in read_grid(run)["cells"]}
    store = Store(run)
    found: list[Finding] = []
    sound = 0
    references: dict[tuple[str, str], str] = {}
    for key, cell in grid.items():
        here = list(_cell(store, key, cell, references))
        sound += not here
        found += here
    found += [*_other_cells(store, grid), *_beside_cells(run, IN_RUN)]
    return Checked(len(grid), sound, tuple(found))


# ---- cells ---------------------------------------------------------------------------------------


def _cell(
    store: Store, key: str, cell: dict[str, Any], references: dict[tuple[str, str], str]
) -> Iterator[Finding]:
    """What is wrong with a cell of the grid; nothing if its result is there and sound.

    references: (reference, feature network) -> sha256 of the cells before; this cell's is added.
    """
    where, folder = f"cells/{key}", store.cell(key)
    if not _KEY.fullmatch(key):
        yield Finding("damaged", f"{where}/result.json", "its key in grid.json is no key")
        return
    found = store.find(Task(key, cell))
    if found.problem:
        yield Finding("damaged", f"{where}/{found.file}", found.problem)
    elif found.result is not None:
        timing = folder / "timing.json"
        if os.path.lexists(timing) and (reason := _broken(timing)):
            yield Finding("damaged", f"{where}/timing.json", reason)
        elif reason := _other_reference(found.result["protocol"], references):
            yield Finding("damaged", f"{where}/result.json", reason)
    elif _is_held(store.lease_path(key)):
        yield Finding("working", where, "somebody computes it now")
    elif os.path.lexists(folder / "failure.json"):
        yield Finding("failed", where, _failure(folder / "failure.json"))
    else:
        yield Finding("missing", where, Task(key, cell).label)


def _is_held(path: Path) -> bool:
    """Whether a lease is held: by a living process here, or by another host not long ago."""
    try:
        seen = read_lease(path)
    except OSError:
        return False
    if seen is None or Leases().is_dead(path, seen):
        return False
    return time.time() - seen.mtime < OLD


def _failure(path: Path) -> str:
    try:
        return " ".join(str(read_json(path)["error"]).split())
    except (UsageError, KeyError):
        return "and its failure.json cannot be read"


def _broken(path: Path) -> str:
    """Why a .json file that has no checksum cannot be read; empty if it can."""
    try:
        read_json(path)
    except UsageError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def _other_reference(protocol: dict[str, Any], known: dict[tuple[str, str], str]) -> str:
    """In words, that a cell was measured against other statistics than those before; else empty."""
    name = str(protocol.get("reference", "")), str(protocol.get("features", ""))
    sha256 = str(protocol.get("reference_sha256", ""))
    if not sha256 or known.setdefault(name, sha256) == sha256:
        return ""
    return f"its reference {name[0]} is {sha256[:12]}, that of the cells before {known[name][:12]}"


def _other_cells(store: Store, grid: dict[str, Any]) -> Iterator[Finding]:
    """Folders below cells/ that the grid does not name."""
    for folder in sorted((store.root / "cells").glob("*")):
        where = f"cells/{folder.name}"
        if folder.name in grid:
            continue
        if not folder.is_dir() or not _KEY.fullmatch(folder.name):
            if not folder.name.startswith(".tmp-"):
                yield Finding("foreign", where)
            continue
        try:
            cell = read_json(folder / "result.json")["cell"]
        except (UsageError, KeyError):
            cell = {}
        found = store.find(Task(folder.name, cell))
        if found.problem:
            yield Finding("damaged", f"{where}/{found.file}", found.problem)
        else:
            without = "" if found.result else "without a result, and "
            yield Finding("stale", where, f"{without}not in the grid")


# ---- everything else -----------------------------------------------------------------------------


def _beside_cells(run: Path, ours: set[str]) -> Iterator[Finding]:
    """Damaged stages and classifiers, and files that nobody here writes. ours: names in `run`."""
    for path in sorted(run.iterdir()):
        if path.name not in ours and path.suffix != ".lease":
            yield from _not_ours(run, path)
    for path in sorted((run / "cells").glob("*/*")):
        if _KEY.fullmatch(path.parent.name) and path.name not in IN_CELL:
            yield from _not_ours(run, path)
    for path in sorted((run / "stages").rglob("*")):
        yield from _stage(run, path)
    for path in sorted((run / "cas").glob("*")):  # results, and what training is resumed from
        if path.suffix not in (".json", ".pt"):
            yield from _not_ours(run, path)
        elif path.suffix == ".json" and (reason := _broken(path)):
            yield Finding("damaged", str(path.relative_to(run)), reason)


def _stage(run: Path, path: Path) -> Iterator[Finding]:
    parts = path.relative_to(run / "stages").parts
    kind = parts[0]
    if path.is_dir() and kind in ENDS and (len(parts) == 1 or _KEY.fullmatch(parts[1])):
        return
    known = path.suffix in (ENDS.get(kind), ".lease")
    if not known or not _STAGE.fullmatch("/".join(parts[1:]).partition(".")[0]):
        yield from _not_ours(run, path)
    elif path.suffix != ".lease" and Stages(run).read(path) is None:
        reason = "does not match its checksum (edited, damaged or made for another key)"
        yield Finding("damaged", str(path.relative_to(run)), reason)


def _not_ours(run: Path, path: Path) -> Iterator[Finding]:
    where = str(path.relative_to(run))
    if not path.name.startswith(TEMPORARY):
        yield Finding("foreign", where)
        return
    try:
        old = time.time() - path.stat().st_mtime > OLD
    except OSError:
        return
    if old:
        yield Finding("leftover", where, "of a writer that was killed")


def quarantine(run: Path, findings: tuple[Finding, ...]) -> list[str]:
    """Move what is damaged to RUN/quarantine/; returns the paths that were moved.

    A cell that somebody computes at this moment is left alone, and so is what the engine did not
    write.

    Raises:
        UsageError: the folder cannot be written.
    """
    moved = []
    for finding in findings:
        if finding.kind != "damaged":
            continue
        path = run / finding.path
        parts = Path(finding.path).parts
        try:
            if "cells" in parts[-3:-2]:
                lease = Leases().acquire(path.parent / "lease")
                if lease is None:
                    continue
                with lease:
                    moved += _move(run, finding.path)  # without its samples a cell is not done
                    moved += _move(run, str(Path(finding.path).with_name("result.json")))
            else:
                moved += _move(run, finding.path)
        except OSError as error:
            raise UsageError(f"--quarantine: {path}: {error.strerror}") from None
    return moved


def _move(run: Path, where: str) -> list[str]:
    target = run / "quarantine" / where
    count = 0
    while os.path.lexists(target):  # an earlier one of that name stays too
        count += 1
        target = run / "quarantine" / f"{where}.{count}"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(run / where, target)
    except FileNotFoundError:
        return []  # somebody repaired or removed it meanwhile
    return [where]


def report_lines(checked: Checked) -> list[str]:
    """A line per finding, and one that counts."""
    lines = [
        f"{one.kind}: {one.path}{f': {one.reason}' if one.reason else ''}"
        for one in checked.findings
    ]
    kinds = Counter(finding.kind for finding in checked.findings)
    said = "".join(f", {count} {kind}" for kind, count in sorted(kinds.items()))
    return [*lines, f"{checked.sound} of {checked.cells} cells are done and sound{said}"]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; one line and exit code 2 for bad input."""
    parser = ArgumentParser(prog="python -m experiments.engine.check", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out folder of a sweep")
    parser.add_argument("--quarantine", action="store_true", help="move what is damaged")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")

    def run() -> int:
        options = parser.parse_args(arguments)
        return _run(options.run, options.quarantine, options.json)

    return exit_code(run)


def _run(run: Path, move: bool, as_json: bool) -> int:
    checked = check(run)
    if as_json:
        facts = {"cells": checked.cells, "sound": checked.sound}
        findings = [vars(finding) for finding in checked.findings]
        print(json.dumps({**facts, "findings": findings}, indent=1))
    else:
        print("\n".join(report_lines(checked)))
    if move:
        moved = quarantine(run, checked.findings)
        print(f"moved {len(moved)} files to {run / 'quarantine'}", file=sys.stderr)
    return 1 if checked.problems else 0


if __name__ == "__main__":
    sys.exit(main())
