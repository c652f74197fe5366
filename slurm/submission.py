"""One submission: a folder of its own with what its jobs need. Its files choose no code.

RUN/slurm/NAME/ holds submission.json (what was asked for, the profile, the shards and their cells,
the fingerprint of the code), the pickles, sbatch file and logs of submitit, state/NUMBER.json (what
a shard last said of itself, for people) and, with --snapshot, code/. Whether a cell is done is
known from its result.json alone. SLURM's job numbers start again when a controller loses its state,
so a job is this submission's only if it has its number and its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import atomic_write, cache_folder, json_bytes, read_json

SCHEMA = 2
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("maskgit", "eval", "experiments", "reports", "slurm")
SOURCES = (".py", ".toml", ".jinja")
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{0,200}")  # of jobs and cells


@dataclass(frozen=True)
class Submission:
    """The contents of submission.json, and where it lies."""

    folder: Path
    name: str
    run: Path
    request: dict[str, Any]  # what the jobs compute: plain data, see slurm.job
    profile: dict[str, Any]
    shards: tuple[tuple[str, ...], ...]  # keys of the cells of each, some in several
    fingerprint: str
    snapshot: bool = False
    created: str = ""
    job: str = ""  # of the array, as sbatch named it; empty until it was submitted
    report_job: str = ""
    costs: Mapping[str, float] = field(default_factory=dict)  # of each cell, in forwards
    root: str = str(ROOT)  # of the code that was submitted

    @property
    def keys(self) -> list[str]:
        """The cells of all shards, each once."""
        return list(dict.fromkeys(key for shard in self.shards for key in shard))

    @property
    def code(self) -> Path:
        """Where the job's code is: the snapshot, or the installation."""
        return self.folder / "code" if self.snapshot else Path(self.root)

    def write(self) -> None:
        """Write submission.json, whole or not at all, and remember that it was written here."""
        content = {**asdict(self), "schema": SCHEMA, "run": str(self.run)}
        del content["folder"]
        atomic_write(self.folder / "submission.json", json_bytes(content))
        with contextlib.suppress(OSError):  # without a cache only `written_here` says no
            self._record.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._record, self._digest)

    def written_here(self) -> bool:
        """Whether this user submitted it, with this profile and code. A profile has shell lines,
        so that of a folder which came from somebody else must not be run."""
        try:
            return self._record.read_bytes() == self._digest
        except OSError:
            return False

    @property
    def _record(self) -> Path:
        return cache_folder() / "submissions" / self.name

    @property
    def _digest(self) -> bytes:
        runs = {"profile": self.profile, "root": self.root}
        return hashlib.sha256(json_bytes(runs)).hexdigest().encode()

    def state(self, number: int) -> dict[str, Any]:
        """What shard `number` last said of itself; empty if it never started."""
        try:
            said = read_json(self.folder / "state" / f"{number}.json")
        except UsageError:
            return {}
        texts = all(isinstance(said.get(name, ""), str) for name in ("state", "reason", "node"))
        return said if texts and isinstance(said.get("attempt", 0), int) else {}

    def log(self, number: int, stream: str = "err") -> Path | None:
        """The newest log of a shard, `out` or `err`."""
        part = f"{self.job}_{number}" if len(self.shards) > 1 else self.job
        found = sorted(
            self.folder.glob(f"{part}_*_log.{stream}"), key=lambda path: path.stat().st_mtime
        )
        return found[-1] if found else None


def new_folder(run: Path, flag: str = "--out") -> Path:
    """A fresh folder RUN/slurm/DATE-TIME-XXXX; submitit would believe pickles left in an old one.

    flag: the flag that named `run`, for the message.

    Raises:
        UsageError: it cannot be made, or its path would be misread: sbatch puts other texts for %
            and a backslash in the names of logs, a colon ends a folder of PYTHONPATH.
    """
    for letter in "%\\:\n":
        if letter in os.path.abspath(run):
            raise UsageError(f"{flag} {run}: {letter!r} in a path is misread by SLURM's jobs")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = Path(os.path.abspath(run)) / "slurm" / name
    try:
        (folder / "state").mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{flag} {run}: cannot be written ({error.strerror})") from None
    return folder


def load_submission(folder: Path) -> Submission:
    """Read a submission's folder.

    Raises:
        UsageError: there is no submission.json, or not one of ours.
    """
    path = Path(folder) / "submission.json"
    if not path.is_file():
        raise UsageError(f"{folder}: no submission (there is no submission.json)")
    try:
        content = read_json(path)
        if content.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        content["run"] = Path(content["run"])
        content["shards"] = tuple(tuple(keys) for keys in content["shards"])
        submission = Submission(folder=Path(os.path.abspath(folder)), **content)
        _check(submission)
        return submission
    except (ValueError, KeyError, TypeError) as error:
        reason = one_line(error).removeprefix(f"{path}: ")  # UsageError is a ValueError
        raise UsageError(f"{path}: not readable as a submission ({reason})") from None


def _check(submission: Submission) -> None:
    """Raise a ValueError for values that none of ours has, such as a key that leads elsewhere."""
    texts = [submission.name, submission.job, submission.report_job, *submission.keys]
    costs = submission.costs
    sound = (
        isinstance(submission.request, dict)
        and isinstance(submission.profile, dict)
        and isinstance(submission.root, str)
        and isinstance(submission.fingerprint, str)
        and all(isinstance(text, str) and _NAME.fullmatch(text) for text in texts)
        and submission.name
        and "\0" not in str(submission.run)
        and str(submission.run).isprintable()
        and isinstance(costs, dict)
        and all(isinstance(cost, int | float) and math.isfinite(cost) for cost in costs.values())
        and set(submission.keys) <= set(costs)
    )
    if not sound:
        raise ValueError("a value of another form")


def submissions(run: Path) -> list[Submission]:
    """All submissions of a run, the oldest first; what cannot be read is left out."""
    found = []
    for path in sorted((Path(run) / "slurm").glob("*/submission.json")):
        try:
            found.append(load_submission(path.parent))
        except UsageError:
            continue
    return found


def source_files(root: Path) -> list[Path]:
    """The files that a job's result can depend on: sources of all packages, without tests."""
    return sorted(
        path
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.suffix in SOURCES
        and path.is_file()
        and "__pycache__" not in path.parts
        and path.relative_to(root).parts[:2] != ("reports", "out")
    )


def code_fingerprint(root: Path) -> str:
    """sha256 over the names and bytes of all source files below `root`."""
    total = hashlib.sha256()
    for path in source_files(root):
        if path.parent == root / "slurm" / "profiles":
            continue  # read once, at the submission, which keeps what they said
        total.update(f"{path.relative_to(root)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def take_snapshot(root: Path, target: Path) -> None:
    """Copy the sources to `target`; the shipped weights are linked, as the cells' keys have their
    hashes."""
    for path in source_files(root):
        place = target / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)
    for package in ("maskgit", "eval"):
        (target / package / "zoo").symlink_to(root / package / "zoo")


def keys_left(keys: Sequence[str], run: Path) -> list[str]:
    """The cells without a result. (A job looks again, and checks what is in it.)"""
    return [key for key in keys if not has_result(run / "cells" / key)]


def has_result(cell: Path) -> bool:
    """Whether a cell's folder has a result.json that is whole."""
    try:
        read_json(cell / "result.json")
    except UsageError:
        return False
    return True
