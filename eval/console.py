"""What the command lines of this package share: their start, progress bars and tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from maskgit.common.cli import exit_code, parse, without_aliases

FORMER_FLAGS = {"--weights-dir": "--feature-weights"}


def command_line(
    command: Callable[..., object] | dict[str, Any],
    arguments: Sequence[str] | None,
    prog: str,
    description: str,
    interrupted: str = "interrupted",
) -> int:
    """Parse the words of a command line for a function, run it, and return the exit code.

    Args:
        command: the function, or one for each subcommand.
        arguments: None takes those of this process.
        prog, description: for --help.
        interrupted: printed after Ctrl-C.
    """
    words = without_aliases(sys.argv[1:] if arguments is None else arguments, FORMER_FLAGS)
    return exit_code(lambda: parse(command, words, prog, description)(), interrupted)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Bars on stderr, if that is a terminal: called as (what, done, total)."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield progress


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with lines on a terminal; plain columns in a pipe, no line wrapped or cut."""
    if sys.stdout.isatty():
        table = Table(*header)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
