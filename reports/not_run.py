"""A page for what did not run, so that the index has a row and a reason for it too."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from reports.load import one_line
from reports.page import Page
from reports.verdicts.numbers import not_run


def write_page(folder: Path, reasons: Mapping[str, str]) -> Path:
    """Write the page into `folder` (replaced if it is there); returns it.

    reasons: what of the paper -> why it did not run.
    """
    numbers = [not_run(what, one_line(why, 300)) for what, why in reasons.items()]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    Page("not_run", numbers=numbers).write(folder)
    return folder
