"""The weights of the metrics' networks: what is here, and getting the rest.

    python -m eval.weights list
    python -m eval.weights fetch vgg16 alexnet
    python -m eval.weights verify

`list` shows all of them. `fetch` downloads those named (or `all`) to the cache, or to
--weights-dir. `verify` reads and checks every byte; without names it takes what is here.
A table goes to stdout, progress to stderr.

Exit codes: 0 all is well; 1 `verify` found a damaged file, or one that was named is missing, or
`fetch` could not get one; 2 a mistake in the arguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eval.console import exit_code
from eval.weights import files as weights
from eval.weights.files import SOURCES
from maskgit.common.errors import Unavailable, UsageError

PRESENT, MISSING, DAMAGED, OTHER = "present", "missing", "damaged", "other file"


@dataclass(frozen=True)
class State:
    """What is known of one weights file on this machine.

    Attributes:
        name: registry name.
        state: present, missing, damaged, or "other file" (in --weights-dir, not the published one).
        path: where it is, or where it would go; "" where a package is not installed.
        sha256: of the file that is there, else what is known of the published one.
        size: bytes, 0 if unknown.
        licence: of the weights.
        serves: what falls away without it.
        note: what is wrong, or how to get it.
    """

    name: str
    state: str
    path: str
    sha256: str
    size: int
    licence: str
    serves: str
    note: str = ""


def target_path(name: str, weights_dir: str | Path | None = None) -> Path:
    """Where `fetch` puts a file: `weights_dir`, or the cache."""
    folder = Path(weights_dir) if weights_dir is not None else weights.cache_folder()
    return folder / Path(SOURCES[name].file).name


def state_of(name: str, weights_dir: str | Path | None = None) -> State:
    """Look for one weights file and check all of its bytes.

    Raises:
        UsageError: unknown name, or an unreadable record beside the file.
    """
    source = weights.source_of(name)
    known = weights.published_sha256(name)

    def state(what: str, path: Path | str, sha256: str, size: int, note: str = "") -> State:
        return State(name, what, str(path), sha256, size, source.licence, source.serves, note)

    try:
        path = weights.weights_path(name, weights_dir)
    except Unavailable as error:
        where = target_path(name, weights_dir) if source.url else ""
        note = "" if source.url else str(error)
        return state(MISSING, where, known, source.size, note)
    sha256, size = weights.file_sha256(path), path.stat().st_size
    if reason := weights.damage(name, path):
        other = weights_dir is not None and not weights.record_path(path).exists()
        return state(OTHER if other else DAMAGED, path, sha256, size, reason)
    return state(PRESENT, path, sha256, size)


def fetch(
    name: str,
    weights_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make sure that a published weights file is here, downloading it if need be.

    Returns:
        its path.

    Raises:
        Unavailable: it cannot be downloaded.
        UsageError: unknown name, no address (it comes with a package), or another file is in
            its place.
    """
    from eval.weights.download import download

    found = state_of(name, weights_dir)
    if found.state == PRESENT:
        return Path(found.path)
    if found.state != MISSING:
        raise UsageError(f"{found.path}: {found.note}; delete it, then fetch again")
    source = SOURCES[name]
    if not source.url:
        raise Unavailable(found.note)
    target = target_path(name, weights_dir)
    download(source.url, target, sha256=source.sha256, size=source.size, progress=progress)
    weights.write_record(target, name)
    return target


def _fetch_all(names: list[str], weights_dir: str | None) -> int:
    failed = 0
    for name in names:
        try:
            with _progress(name) as progress:
                path = fetch(name, weights_dir, progress)
        except UsageError as error:
            failed = 1
            print(f"error: {name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {path}")
    return failed


def _show(states: list[State], as_json: bool) -> None:
    if as_json:
        print(json.dumps([vars(state) for state in states], indent=2))
        return
    rows = [
        (
            *(state.name, state.state, f"{state.size / 1e6:.1f}" if state.size else "?"),
            *(state.sha256[:12] or "unknown", state.licence, state.path or "(package)"),
            state.note if state.state != MISSING or state.note else state.serves,
        )
        for state in states
    ]
    head = ("name", "state", "MB", "sha256", "licence", "place", "note, or what is missing")
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere; always on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, TransferSpeedColumn(), console=console) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def run(
    command: tyro.conf.Positional[Literal["list", "fetch", "verify"]],
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    weights_dir: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Carry out one command; returns the exit code.

    Args:
        command: list, fetch or verify.
        names: of the weights, as `list` shows them; `all` for all.
        weights_dir: look and download only here.
        as_json: print JSON instead of a table (list, verify).

    Raises:
        UsageError: an unknown name, no name for `fetch`, or --weights-dir is no folder.
    """
    if weights_dir is not None and command != "fetch" and not Path(weights_dir).is_dir():
        raise UsageError(f"--weights-dir {weights_dir}: no such folder")
    chosen = list(SOURCES) if not names or names == ("all",) else list(dict.fromkeys(names))
    for name in chosen:
        weights.source_of(name)
    if command == "fetch":
        if not names:
            raise UsageError(f"fetch: name what to get: all, or of {', '.join(SOURCES)}")
        return _fetch_all(chosen, weights_dir)
    states = [state_of(name, weights_dir) for name in chosen]
    if command == "verify" and not names:
        states = [state for state in states if state.state != MISSING]
    _show(states, as_json)
    bad = any(state.state != PRESENT for state in states)
    return 1 if command == "verify" and bad else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(
        lambda: tyro.cli(run, args=arguments, prog="python -m eval.weights", description=__doc__)
    )


if __name__ == "__main__":
    sys.exit(main())
