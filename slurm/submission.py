"""One submission: a folder of its own with what its jobs need. Its files choose no code.

RUN/slurm/NAME/ holds submission.json (what was asked for, the profile, the shards and their cells,
the fingerprint of the code), the pickles, sbatch file and logs of submitit, state/NUMBER.json (what
a shard last said of itself, for people) and, with --snapshot, code/. Whether a cell is done is
known from its result.json alone. SLURM's job numbers start again when a controller loses its state,
so a job is this submission's only if it has its number and its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maskgit.common.errors import UsageError

SCHEMA = 2
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("maskgit", "eval", "experiments", "reports", "slurm")
SOURCES = (".py", ".toml", ".jinja")


@dataclass(frozen=True)
class Submission:
    """The contents of submission.json, and where it lies."""

    folder: Path
    name: str
    run: Path
    request: dict[str, Any]  # what the jobs compute: plain data, see slurm.job
    profile: dict[str, Any]
    shards: tuple[tuple[str, ...], ...]  # keys of the cells of each
    fingerprint: str
    snapshot: bool = False
    created: str = ""
    job: str = ""  # of the array, as sbatch named it; empty until it was submitted
    report_job: str = ""
    costs: Mapping[str, float] = field(default_factory=dict)  # of each cell, in forwards
    root: str = str(ROOT)  # of the code that was submitted

    @property
    def keys(self) -> list[str]:
        """The cells of all shards."""
        return [key for shard in self.shards for key in shard]

    @property
    def code(self) -> Path:
        """Where the job's code is: the snapshot, or the installation."""
        return self.folder / "code" if self.snapshot else Path(self.root)

    def write(self) -> None:
        """Write submission.json, whole or not at all."""
        content = {**asdict(self), "schema": SCHEMA, "run": str(self.run)}
        del content["folder"]
        write_json(self.folder / "submission.json", content)

    def state(self, number: int) -> dict[str, Any]:
        """What shard `number` last said of itself; empty if it never started."""
        try:
            return json.loads((self.folder / "state" / f"{number}.json").read_text())
        except (OSError, ValueError):
            return {}

    def log(self, number: int, stream: str = "err") -> Path | None:
        """The newest log of a shard, `out` or `err`."""
        part = f"{self.job}_{number}" if len(self.shards) > 1 else self.job
        found = sorted(
            self.folder.glob(f"{part}_*_log.{stream}"), key=lambda path: path.stat().st_mtime
        )
        return found[-1] if found else None


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a temporary name in the same folder, sync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(partial, "x", encoding="ascii") as file:
            file.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def new_folder(run: Path) -> Path:
    """A fresh folder RUN/slurm/DATE-TIME-XXXX; submitit would believe pickles left in an old one.

    Raises:
        UsageError: it cannot be made.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = Path(os.path.abspath(run)) / "slurm" / name
    try:
        (folder / "state").mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"--out {run}: cannot be written ({error.strerror})") from None
    return folder


def load_submission(folder: Path) -> Submission:
    """Read a submission's folder.

    Raises:
        UsageError: there is no submission.json, or not one of ours.
    """
    path = Path(folder) / "submission.json"
    try:
        content = json.loads(path.read_text(encoding="ascii"))
        if content.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        content["run"] = Path(content["run"])
        if not isinstance(content["request"], dict):
            raise ValueError("its request is no object")
        content["shards"] = tuple(tuple(keys) for keys in content["shards"])
        return Submission(folder=Path(os.path.abspath(folder)), **content)
    except FileNotFoundError:
        raise UsageError(f"{folder}: no submission (there is no submission.json)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not readable as a submission ({error})") from None


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
    """The cells without a result.json. (A job looks again, and checks what is in it.)"""
    return [key for key in keys if not (run / "cells" / key / "result.json").is_file()]
