"""Small synthetic runs and their reports, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.build import build
from tests.reports.synthetic_run import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven schedules, seven values of T, three seeds, everything done."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report of `run`."""
    return build(run, tmp_path_factory.mktemp("reports") / "report").parent
