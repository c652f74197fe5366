"""The store: a folder per cell, whose `result.json`, written last and atomically, means done.

RUN/cells/KEY/ holds result.json, samples.npz, timing.json, failure.json and lease; RUN/stages/
holds tokens, features and likelihoods under keys of their own. RUN/journal.jsonl gets one line per
published or failed cell: a log for people and for counting, never read to decide anything.
"""

import contextlib
import io
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.cells import Outcome, Task
from experiments.engine.keys import SCHEMA, digest
from experiments.engine.store.owner import host_id
from maskgit.common.errors import RunError, UsageError
from maskgit.common.files import (
    atomic_write,
    describe,
    json_bytes,
    make_way,
    read_described,
    read_json,
    read_regular,
)

SAMPLES = "samples.npz"
PARTS = ("metrics", "missing", "protocol", "files")  # of a result, each an object


@dataclass(frozen=True)
class Found:
    """What a cell's folder holds: a valid `result`, or a `problem` with a `file`, or neither."""

    result: dict[str, Any] | None = None
    problem: str = ""
    file: str = "result.json"


def checksum(result: dict[str, Any]) -> str:
    """sha256 of a result without its own checksum."""
    return digest({name: value for name, value in result.items() if name != "checksum"})


class Store:
    """The folder of a run. Every method may be called by several processes at once."""

    def __init__(self, root: Path):
        self.root = Path(root)

    def cell(self, key: str) -> Path:
        """Folder of a cell."""
        return self.root / "cells" / key

    def lease_path(self, key: str) -> Path:
        """Lease of a cell."""
        return self.cell(key) / "lease"

    def prepare(self, flag: str = "--out") -> None:
        """Make the folders and try a write.

        Raises:
            UsageError: the folder is a file or cannot be written.
        """
        try:
            for folder in (self.root / "cells", self.root / "stages"):
                folder.mkdir(parents=True, exist_ok=True)
            now = _file_time(self.root)
            sweep(self.root.glob(".tmp-*"), now)
            sweep(self.root.glob("stages/*/.tmp-*"), now)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(
                f"{flag} {self.root}: is a file or lies below one; give a folder"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{flag} {self.root}: {error.strerror}; give a folder that can be written"
            ) from None

    def has_result(self, task: Task) -> bool:
        """Whether there is a result of a task, which `find` may yet find damaged."""
        return (self.cell(task.key) / "result.json").exists()

    def find(self, task: Task) -> Found:
        """The result of a task, checked: readable, whole, of this schema, key and cell, and with
        the samples that it names."""
        folder = self.cell(task.key)
        try:
            result = json.loads(read_regular(folder / "result.json"))
        except FileNotFoundError:
            return Found()
        except OSError as error:
            return Found(problem=f"cannot be read ({error.strerror})")
        except (ValueError, RecursionError):
            return Found(problem="is not JSON (truncated?)")
        if not isinstance(result, dict) or result.get("schema") != SCHEMA:
            return Found(problem=f"is not of schema {SCHEMA}")
        try:
            intact = result.get("checksum") == checksum(result)
        except (TypeError, ValueError, RecursionError):
            intact = False
        if not intact:
            return Found(problem="does not match its checksum (edited or damaged)")
        if result.get("key") != task.key or result.get("cell") != task.cell:
            return Found(problem="belongs to another cell")
        if not all(isinstance(result.get(part), dict) for part in PARTS):
            return Found(problem="has another form")
        if SAMPLES in result["files"]:
            try:
                read_described(folder / SAMPLES, result["files"][SAMPLES])
            except UsageError as error:
                return Found(problem=str(error), file=SAMPLES)
        return Found(result=result)

    def publish(
        self,
        task: Task,
        outcome: Outcome,
        timing: dict[str, Any],
        is_mine: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write a cell's files, result.json last, and forget an earlier failure.

        is_mine: whether the caller still holds the cell's lease; asked before each file.

        Raises:
            OSError: the disk is full or not writable; the cell is then not done.
            RunError: another process took the cell over.
            ValueError, TypeError: the outcome is not finite plain data.
        """
        files = {"timing.json": json_bytes(timing)}
        if outcome.arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **outcome.arrays)
            files[SAMPLES] = buffer.getvalue()
        result = {
            "schema": SCHEMA,
            "key": task.key,
            "cell": task.cell,
            "metrics": outcome.metrics,
            "missing": outcome.missing,
            "protocol": outcome.protocol,
            # Without timing.json: a result is the same on every machine and in every run.
            "files": {name: describe(files[name]) for name in (SAMPLES,) if name in files},
        }
        result["checksum"] = checksum(result)
        files["result.json"] = json_bytes(result)
        for name, content in files.items():
            if not is_mine():
                raise RunError("another process took the cell over")
            atomic_write(self.cell(task.key) / name, content)
        self.forget_failure(task)
        self.note("done", task.key)

    def record_failure(self, task: Task, error: str, trace: str, attempts: int = 1) -> None:
        """Write failure.json, adding to the attempts of earlier runs. Never raises OSError."""
        path = self.cell(task.key) / "failure.json"
        with contextlib.suppress(UsageError, ValueError, KeyError, TypeError, OverflowError):
            attempts += int(read_json(path)["attempts"])
        failure = {"error": error, "traceback": trace, "attempts": attempts}
        with contextlib.suppress(OSError):  # the disk may be what failed: the run still reports it
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json_bytes(failure))
            self.note("failed", task.key)

    def forget_failure(self, task: Task) -> None:
        """Remove failure.json, if any."""
        with contextlib.suppress(OSError):
            (self.cell(task.key) / "failure.json").unlink(missing_ok=True)

    def clean(self, task: Task) -> None:
        """Remove what a killed owner left: for the holder of the lease only.

        A result that fails its check is set aside as rejected.json, so that nobody reads it even if
        computing it again fails. What is no file where one is to be written is renamed.
        """
        folder = self.cell(task.key)
        if self.find(task).problem:
            os.replace(folder / "result.json", folder / "rejected.json")
        for left in folder.glob(".tmp-*"):
            with contextlib.suppress(OSError):
                left.unlink()
        for name in (SAMPLES, "timing.json", "failure.json"):
            make_way(folder / name)
        if leases := list(folder.glob(".lease-*")):
            with contextlib.suppress(OSError):  # a full disk: they stay
                sweep(leases, _file_time(folder))

    def note(self, event: str, key: str) -> None:
        """Append a line to the journal. A journal that cannot be written stops nothing."""
        line = {"event": event, "key": key, "host": host_id(), "pid": os.getpid()}
        line["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError), open(self.root / "journal.jsonl", "ab", 0) as file:
            file.write((json.dumps(line) + "\n").encode())


def _file_time(folder: Path) -> float:
    """The time that a file written now gets: a machine's own clock may have jumped."""
    probe = folder / f".tmp-probe-{os.getpid()}-{secrets.token_hex(4)}"
    atomic_write(probe, b"")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def sweep(files: Iterable[Path], now: float) -> None:
    """Remove temporary files that killed writers left: an hour-old one is nobody's any more."""
    for file in files:
        with contextlib.suppress(OSError):
            if now - file.stat().st_mtime > 3600:
                file.unlink()
