"""The weights of the networks that metrics use: list them, download them, check them.

    python -m eval.weights list
    python -m eval.weights fetch vgg16 alexnet
    python -m eval.weights verify

`list` shows all of them. `fetch` downloads those named (or `all`) to the cache, or to
--feature-weights. `verify` reads and checks every byte; without names it takes what is here.
A table goes to stdout, progress to stderr.

Exit codes: 0 all is well; 1 `verify` found a damaged file, or one that was named is missing, or
`fetch` could not get one; 2 a mistake in the arguments.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from eval.console import command_line, print_table, progress_bar
from eval.weights import files
from eval.weights.files import SOURCES
from maskgit.common.download import Progress, download
from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import sha256_of
from maskgit.common.records import record_path

PRESENT, MISSING, DAMAGED, OTHER = "present", "missing", "damaged", "other file"


def state_of(name: str, feature_weights: str | Path | None = None) -> dict[str, Any]:
    """Look for one weights file and check all of its bytes.

    Returns:
        name; state: present, missing, damaged, or "other file" (not the published one, in the
        folder of --feature-weights); path: where it is or would go, "" where a package is not
        installed; sha256 and size (bytes, 0 if unknown) of the file, else of the published one;
        licence; serves: the metrics that cannot be computed without it; note: what is wrong with
        the file, or how to get it.

    Raises:
        UsageError: unknown name, or an unreadable record beside the file.
    """
    source, note, state = files.source_of(name), "", PRESENT
    try:
        path: Path | str = files.weights_path(name, feature_weights)
        sha256, size = sha256_of(path), Path(path).stat().st_size
        if note := files.damage(name, Path(path)):
            other = feature_weights is not None and not record_path(Path(path)).exists()
            state = OTHER if other else DAMAGED
    except Unavailable as error:
        state, sha256, size = MISSING, files.published_sha256(name), source.size
        folder = files.weights_folder() if feature_weights is None else Path(feature_weights)
        path = folder / Path(source.file).name if source.url else ""
        note = "" if source.url else str(error)
    about = {"licence": source.licence, "serves": source.serves, "note": note}
    found = {"name": name, "state": state, "path": str(path), "sha256": sha256, "size": size}
    return found | about


def fetch(
    name: str, feature_weights: str | Path | None = None, progress: Progress | None = None
) -> Path:
    """Make sure that a published weights file is here, downloading it if need be.

    Returns:
        its path.

    Raises:
        Unavailable: it cannot be downloaded.
        UsageError: unknown name, no address (it comes with a package), or another file is in
            its place.
    """
    found = state_of(name, feature_weights)
    target = Path(found["path"])
    if found["state"] == PRESENT:
        return target
    if found["state"] != MISSING:
        raise UsageError(f"{target}: {found['note']}; delete it, then fetch again")
    source = SOURCES[name]
    if not source.url:
        raise Unavailable(found["note"])
    download(source.url, target, sha256=source.sha256, size=source.size, progress=progress)
    files.record_first_use(target, name)
    return target


def _fetch_all(names: list[str], feature_weights: str | None) -> int:
    failed = 0
    for name in names:
        try:
            with progress_bar() as progress:
                path = fetch(name, feature_weights, functools.partial(progress, name))
        except UsageError as error:
            failed = 1
            print(f"error: {name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {path}")
    return failed


def _show(states: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(states, indent=2))
        return
    rows = [
        (
            *(of["name"], of["state"], f"{of['size'] / 1e6:.1f}" if of["size"] else "?"),
            *(of["sha256"][:12] or "unknown", of["licence"], of["path"] or "(package)"),
            of["note"] if of["state"] != MISSING or of["note"] else of["serves"],
        )
        for of in states
    ]
    head = ("name", "state", "MB", "sha256", "licence", "place", "note, or what is missing")
    print_table(head, rows)


def run(
    command: tyro.conf.Positional[Literal["list", "fetch", "verify"]],
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    feature_weights: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Carry out one command; returns the exit code.

    Args:
        command: list, fetch or verify.
        names: of the weights, as `list` shows them; `all` for all.
        feature_weights: look and download only here.
        as_json: print JSON instead of a table (list, verify).

    Raises:
        UsageError: an unknown name, no name for `fetch`, or --feature-weights is no folder.
    """
    if feature_weights is not None and command != "fetch" and not os.path.isdir(feature_weights):
        raise UsageError(f"--feature-weights {feature_weights}: no such folder")
    chosen = list(SOURCES) if not names or names == ("all",) else list(dict.fromkeys(names))
    for name in chosen:
        files.source_of(name)
    if command == "fetch":
        if not names:
            raise UsageError(f"fetch: name what to get: all, or of {', '.join(SOURCES)}")
        return _fetch_all(chosen, feature_weights)
    states = [state_of(name, feature_weights) for name in chosen]
    if command == "verify" and not names:
        states = [state for state in states if state["state"] != MISSING]
    _show(states, as_json)
    bad = any(state["state"] != PRESENT for state in states)
    return 1 if command == "verify" and bad else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return command_line(run, arguments, "python -m eval.weights", __doc__)


if __name__ == "__main__":
    sys.exit(main())
