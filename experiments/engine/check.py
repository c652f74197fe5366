"""Look at every file of a run: what is whole, what is missing, damaged, or does not belong there.

python -m experiments.engine.check RUN                 says; changes nothing
python -m experiments.engine.check RUN --quarantine    moves damaged and foreign files away

RUN is the --out folder of a sweep, or of reproduce.py with several in it; it may be at work
meanwhile. Files go to RUN/quarantine/, under their own paths; nothing is deleted, and the next run
computes again what was taken away.
Exit codes: 0 every cell of grid.json is there and sound; 1 something is not; 2 a wrong request.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.cells import Task
from experiments.engine.keys import SCHEMA, digest
from experiments.engine.store.lease import Leases, read_lease
from experiments.engine.store.store import Store
from maskgit.common.errors import UsageError

OLD = 3600.0  # seconds from which a temporary file is nobody's any more

# A finding of one of these kinds is a problem; the others are told, no more.
PROBLEMS = ("damaged", "missing", "failed", "foreign")
IN_RUN = {"grid.json", "journal.jsonl", "cells", "stages", "slurm", "report", "quarantine", "cas"}
IN_ALL = {"stages", "cas", "report", "not_run", "quarantine"}  # of reproduce.py, beside the runs
IN_CELL = {"result.json", "samples.npz", "timing.json", "failure.json", "lease", "rejected.json"}
TEMPORARY = (".tmp-", ".lease-", ".report.")  # the last beside a report that is being built
STAGES = {"tokens": ".npy", "features": ".npz", "likelihood": ".json"}
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. `path` is below the run's folder.

    kind: damaged (a file that cannot be believed), missing (a cell of the grid without result),
        failed (one whose last attempt raised), foreign (a file that no part of the engine writes
        there); stale (the result of a cell that the last grid does not ask for), leftover (of a
        writer that was killed) and working (a cell that somebody computes now) are no problems.
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
    found = [*_stages(run), *_trained(run), *_foreign(run, IN_ALL | set(below))]
    for name in below:
        checked = _check_run(run / name)
        cells, sound = cells + checked.cells, sound + checked.sound
        found += [replace(one, path=f"{name}/{one.path}") for one in checked.findings]
    return Checked(cells, sound, tuple(found))


def _check_run(run: Path) -> Checked:
    grid = _read_grid(run)
    store, leases = Store(run), Leases()
    found: list[Finding] = []
    sound = 0
    references: dict[tuple[str, str], str] = {}
    for key, cell in grid.items():
        kind, reason = _state(store, leases, key, cell)
        beside = list(_cell_files(run, key)) if kind == "sound" else []
        found.extend(beside)
        if kind == "sound" and not beside:
            kind, reason = _reference(store, key, references)
            sound += kind == "sound"
        if kind != "sound":
            where = "/result.json" if kind == "damaged" else ""
            found.append(Finding(kind, f"cells/{key}{where}", reason))
    found.extend(_other_cells(store, grid))
    found.extend(_stages(run))
    found.extend(_trained(run))
    found.extend(_foreign(run, IN_RUN))
    return Checked(len(grid), sound, tuple(found))


def _read_grid(run: Path) -> dict[str, dict[str, Any]]:
    path = run / "grid.json"
    try:
        grid = json.loads(path.read_bytes())
        if grid["schema"] != SCHEMA:
            raise UsageError(f"{path}: of schema {grid['schema']}, not {SCHEMA}")
        return {item["key"]: item["cell"] for item in grid["cells"]}
    except FileNotFoundError:
        raise UsageError(
            f"{run}: no run (there is no grid.json); expected the --out folder of a sweep"
        ) from None
    except UsageError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not readable as a grid ({error})") from None


def _state(store: Store, leases: Leases, key: str, cell: dict[str, Any]) -> tuple[str, str]:
    """(kind, reason) of a cell of the grid."""
    if not _KEY.fullmatch(key):
        return "damaged", "its key in grid.json is no key"
    found = store.find(Task(key, cell))
    if found.result is not None:
        return "sound", ""
    if found.problem:
        return "damaged", found.problem
    if _is_held(leases, store.lease_path(key)):
        return "working", "somebody computes it now"
    failure = store.cell(key) / "failure.json"
    if failure.is_file():
        return "failed", _failure(failure)
    return "missing", Task(key, cell).label


def _is_held(leases: Leases, path: Path) -> bool:
    """Whether a lease is held: by a living process here, or by another host not long ago."""
    seen = read_lease(path)
    if seen is None or leases.is_dead(path, seen):
        return False
    return time.time() - seen.mtime < OLD


def _failure(path: Path) -> str:
    try:
        return " ".join(str(json.loads(path.read_bytes())["error"]).split())
    except (OSError, ValueError, KeyError, TypeError):
        return "and its failure.json cannot be read"


def _reference(store: Store, key: str, known: dict[tuple[str, str], str]) -> tuple[str, str]:
    """Whether a cell was measured against the same statistics as the cells before it.

    known: (reference, feature network) -> sha256; the first cell's is added.
    """
    protocol = json.loads((store.cell(key) / "result.json").read_bytes())["protocol"]
    name = str(protocol.get("reference", "")), str(protocol.get("features", ""))
    sha256 = protocol.get("reference_sha256")
    if sha256 is None or known.setdefault(name, sha256) == sha256:
        return "sound", ""
    return "damaged", (
        f"its reference {name[0]} is {sha256[:12]}, that of the cells before {known[name][:12]}"
    )


def _cell_files(run: Path, key: str) -> Iterator[Finding]:
    """The files beside a sound result."""
    folder = run / "cells" / key
    samples = folder / "samples.npz"
    if samples.is_file() and (reason := _broken_arrays(samples)):
        yield Finding("damaged", f"cells/{key}/samples.npz", reason)
    timing = folder / "timing.json"
    if timing.is_file() and (reason := _broken_json(timing)):
        yield Finding("damaged", f"cells/{key}/timing.json", reason)


def _broken_arrays(path: Path) -> str:
    """Why an .npy or .npz file cannot be read, in full; empty if it can."""

    try:
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)
            return ""
        with np.load(path, allow_pickle=False) as file:  # its CRC finds damaged bytes
            for name in file.files:
                file[name]
        return ""
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        return f"cannot be read ({' '.join(str(error).split())})"


def _broken_json(path: Path) -> str:
    try:
        json.loads(path.read_bytes())
        return ""
    except (OSError, ValueError):
        return "is not JSON"


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
        path = folder / "result.json"
        if not path.is_file():
            yield Finding("stale", where, "without a result, and not in the grid")
            continue
        try:
            cell = json.loads(path.read_bytes())["cell"]
        except (OSError, ValueError, KeyError, TypeError):
            cell = {}
        problem = store.find(Task(folder.name, cell)).problem
        if problem:
            yield Finding("damaged", f"{where}/result.json", problem)
        else:
            yield Finding("stale", where, "not in the grid")


def _stages(run: Path) -> Iterator[Finding]:
    for kind, suffix in STAGES.items():
        for path in sorted((run / "stages" / kind).rglob(f"*{suffix}")):
            if path.name.startswith("."):
                continue
            reason = _broken_arrays(path) if suffix != ".json" else _broken_value(path)
            if reason:
                yield Finding("damaged", str(path.relative_to(run)), reason)


def _broken_value(path: Path) -> str:
    try:
        kept = json.loads(path.read_bytes())
        whole = kept["checksum"] == digest(kept["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return "is not JSON of a stage"
    return "" if whole else "does not match its checksum (edited or damaged)"


def _trained(run: Path) -> Iterator[Finding]:
    """The classifiers of the CAS: their results, and what is needed to resume their training."""
    for path in sorted((run / "cas").glob("*")):
        if path.suffix == ".json" and _broken_json(path):
            yield Finding("damaged", str(path.relative_to(run)), "is not JSON")
        elif path.suffix not in (".json", ".pt"):
            yield from _not_ours(run, path)


def _foreign(run: Path, ours: set[str]) -> Iterator[Finding]:
    """Files that nobody here writes, and those that killed writers left."""
    for path in sorted(run.iterdir()):
        if path.name not in ours and path.suffix != ".lease":
            yield from _not_ours(run, path)
    for folder in sorted((run / "cells").glob("*")):
        if _KEY.fullmatch(folder.name) and folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.name not in IN_CELL:
                    yield from _not_ours(run, path)
    stages = run / "stages"
    for path in sorted(stages.rglob("*")):
        kind = path.relative_to(stages).parts[0]
        if path.is_dir() and (kind in STAGES):
            continue
        stem = path.relative_to(stages).parts[-1].partition(".")[0]
        known = path.suffix in (STAGES.get(kind), ".lease")
        in_parts = path.parent.suffix == ".parts" and kind == "tokens"
        if not (known and (_KEY.fullmatch(stem) or in_parts)):
            yield from _not_ours(run, path)


def _not_ours(run: Path, path: Path) -> Iterator[Finding]:
    where = str(path.relative_to(run))
    if path.name.startswith(TEMPORARY):
        try:
            old = time.time() - path.stat().st_mtime > OLD
        except OSError:
            return
        if old:
            yield Finding("leftover", where, "of a writer that was killed")
        return
    yield Finding("foreign", where)


def quarantine(run: Path, findings: tuple[Finding, ...]) -> list[str]:
    """Move what is damaged or foreign to RUN/quarantine/; returns the paths that were moved.

    A cell that somebody computes at this moment is left alone.

    Raises:
        UsageError: the folder cannot be written.
    """
    moved = []
    for finding in findings:
        if finding.kind not in ("damaged", "foreign"):
            continue
        path = run / finding.path
        parts = Path(finding.path).parts
        try:
            if "cells" in parts[-3:-2]:
                lease = Leases().acquire(path.parent / "lease")
                if lease is None:
                    continue
                with lease:
                    moved += _move(run, finding.path)
                    if finding.kind == "damaged":  # without its samples a cell is not done
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
    lines = []
    for finding in checked.findings:
        reason = f": {finding.reason}" if finding.reason else ""
        lines.append(f"{finding.kind}: {finding.path}{reason}")
    kinds = Counter(finding.kind for finding in checked.findings)
    said = "".join(f", {count} {kind}" for kind, count in sorted(kinds.items()))
    lines.append(f"{checked.sound} of {checked.cells} cells are done and sound{said}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; one line and exit code 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.engine.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out folder of a sweep")
    parser.add_argument("--quarantine", action="store_true", help="move what is damaged or foreign")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    options = parser.parse_args(arguments)
    try:
        checked = check(options.run)
        if options.json:
            facts = {"cells": checked.cells, "sound": checked.sound}
            findings = [vars(finding) for finding in checked.findings]
            print(json.dumps({**facts, "findings": findings}, indent=1))
        else:
            print("\n".join(report_lines(checked)))
        if options.quarantine:
            moved = quarantine(options.run, checked.findings)
            print(f"moved {len(moved)} files to {options.run / 'quarantine'}", file=sys.stderr)
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 1 if checked.problems else 0


if __name__ == "__main__":
    sys.exit(main())
