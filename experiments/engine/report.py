"""The report of a run: its folder checked before the work, and built by one process at a time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from experiments.engine.store.lease import Lease, Leases
from maskgit.common.errors import UsageError
from reports.build import build, check_out

POLL = 0.2  # seconds between two looks at a report that another process builds


def check_folders(run: Path, report: Path) -> None:
    """Whether the folders of the run and of the report can be used, before any work.

    Raises:
        UsageError: one is a file, or holds what no report wrote.
    """

    if run.exists() and not run.is_dir():
        raise UsageError(f"--out {run}: is a file; give a folder")
    check_out(report)


def build_report(run: Path, report: Path) -> Path:
    """Build the report of a run into a folder. Returns its path.

    Raises:
        UsageError: there is no run.
    """

    if not (run / "grid.json").is_file():
        return build(run, report)  # which says in one line that there is no run
    with _alone(report.with_name(f"{report.name}.lease")):
        return build(run, report)


def _alone(path: Path) -> Lease:
    """The lease on a report: two runners that end together would build one folder."""
    leases = Leases()
    lease = leases.acquire(path)
    if lease is None:
        print(f"waiting for another process to build the report ({path})", file=sys.stderr)
    while lease is None:
        time.sleep(POLL)
        lease = leases.acquire(path)
    return lease
