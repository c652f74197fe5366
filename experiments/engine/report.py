"""The report of a run: its folder checked before the work, and built by one process at a time."""

from __future__ import annotations

from pathlib import Path

from experiments.engine.store.lease import Leases
from maskgit.common.errors import UsageError
from reports.build import build, check_out


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
    # Two runners that end together would build one folder.
    with Leases().wait(report.with_name(f"{report.name}.lease"), patience=0.0):
        return build(run, report)
