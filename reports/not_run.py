"""A page for what did not run, so that the index has a row and a reason for it too."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from reports.load import one_line
from reports.page import Page, Section, Text
from reports.rows import Row
from reports.verdicts.schedules import NOT_RUN


def write_page(folder: Path, reasons: Mapping[str, str]) -> Path:
    """Write the page into `folder` (replaced if it is there); returns it.

    reasons: what of the paper -> why it did not run.
    """
    reasons = {what: one_line(why, 300) for what, why in reasons.items()}
    page = Page(
        experiment="not_run",
        title="Not run",
        finding=[f"{len(reasons)} of the experiments did not run."],
        status="No cells.",
        verdicts=[],
        sections=[Section("Why", [Text("", [f"{what}: {why}" for what, why in reasons.items()])])],
        rows=[
            Row(what, math.nan, math.nan, math.nan, 0, 0, NOT_RUN, why)
            for what, why in reasons.items()
        ],
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    page.write(folder)
    return folder
