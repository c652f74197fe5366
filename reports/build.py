"""Builds the report of a run: `python -m reports.build RUN --out DIR`.

RUN is the --out folder of an experiment; DIR (default RUN/report) gets report.md with its figures
and tables. The same cells give the same bytes: no dates, no paths, no names of machines. The folder
is built beside DIR and moved into its place when whole, so a killed build leaves no half report.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
import socket
import sys
from pathlib import Path

from maskgit.common.cli import ArgumentParser, exit_code
from maskgit.common.errors import UsageError
from maskgit.common.files import sha256_of
from reports.load import load_run, read_grid

# Experiments with `make_page(run) -> Page` in reports/pages/NAME.py and a template
# reports/templates/NAME.md.jinja. A new report is one line here.
PAGES = (
    "ablate_schedule",
    "class_conditional",
    "decoding_trace",
    "diversity",
    "editing",
    "failure_cases",
    "panorama",
    "reconstruction",
    "rejection_sampling",
    "runtime",
)
MANIFEST = "SHA256SUMS"


def build(run_dir: Path, out_dir: Path) -> Path:
    """Builds the report of `run_dir` into `out_dir` and returns the path of its report.md.

    Raises:
        UsageError: no run in `run_dir`, an unknown schema or experiment, or an `out_dir` that holds
            anything but an earlier report.
    """
    run_dir, out_dir = Path(run_dir), Path(os.path.abspath(out_dir))
    experiment = read_grid(run_dir)["experiment"]
    if experiment not in PAGES:
        raise UsageError(
            f"{run_dir / 'grid.json'}: experiment {experiment!r}; "
            f"there are reports for {', '.join(PAGES)}"
        )
    check_out(out_dir)
    page = importlib.import_module(f"reports.pages.{experiment}").make_page(load_run(run_dir))
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out_dir)
        fresh = _sibling(out_dir, "new")
        fresh.mkdir()
    except OSError as error:
        raise UsageError(f"--out {out_dir}: cannot be written ({error.strerror})") from None
    try:
        page.write(fresh)
        _write_manifest(fresh)
        _swap(fresh, out_dir)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out_dir / "report.md"


def check_out(out_dir: Path) -> None:
    """Refuses an --out that is a file or holds files which no report wrote: they would be lost."""
    if out_dir.exists() and not out_dir.is_dir():
        raise UsageError(f"--out {out_dir}: is a file; expected a folder for the report")
    if not out_dir.is_dir():
        return
    known = {MANIFEST, *read_manifest(out_dir)}
    foreign = sorted(path.name for path in out_dir.iterdir() if path.name not in known)
    if foreign:
        raise UsageError(
            f"--out {out_dir}: holds {foreign[0]}, which is not part of a report; "
            "expected a new or empty folder, or an earlier report"
        )


# In the format of sha256sum: `sha256sum -c SHA256SUMS` checks a report.
def _write_manifest(folder: Path) -> None:
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8", newline="\n")


def _sibling(out_dir: Path, kind: str) -> Path:
    return out_dir.parent / f".{out_dir.name}.{kind}.{socket.gethostname()}.{os.getpid()}"


# A folder cannot replace a full one in one step, so the old one steps aside first. Another runner
# may put its own report there in between: then once more.
def _swap(fresh: Path, out_dir: Path) -> None:
    old = _sibling(out_dir, "old")
    for attempt in range(10):
        with contextlib.suppress(FileNotFoundError):
            os.replace(out_dir, old)
        try:
            os.replace(fresh, out_dir)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == 9:
                raise
        else:
            break
        finally:
            shutil.rmtree(old, ignore_errors=True)


# What builds killed on this machine have left beside DIR.
def _sweep(out_dir: Path) -> None:
    for kind in ("new", "old"):
        prefix = f".{out_dir.name}.{kind}.{socket.gethostname()}."
        for path in out_dir.parent.iterdir():
            owner = path.name.removeprefix(prefix)
            if owner != path.name and owner.isdigit() and not _alive(int(owner)):
                shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_manifest(folder: Path) -> set[str]:
    """Names of the files that a report wrote; empty where it has no manifest."""
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {line[66:] for line in lines}


def main(arguments: list[str] | None = None) -> int:
    """The command line; prints the path of report.md. Exit code 2 for what the user can correct."""
    parser = ArgumentParser(prog="python -m reports.build", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder with grid.json and cells/")
    parser.add_argument("--out", type=Path, metavar="DIR", help="report folder (RUN/report)")

    def run() -> None:
        options = parser.parse_args(arguments)
        print(build(options.run, options.out or options.run / "report"))

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
