"""What runs on a node: one shard, or the report after all shards. submitit pickles these classes.

A shard computes its cells; what is done is skipped, what another shard works on is waited for, and
helped with where it has blocks that nobody is at. After a time limit or a preemption submitit calls
`checkpoint`, which asks for the same shard again: it goes on with the first cell that has no
result, and within that cell with the samples that were kept.

What a cell is and how it is computed is not known here. ENTRY names the one module that knows; it
has `run_cells(request, keys, workers, running)`, `work(request)` and `report(request)`, see
experiments/engine/job.py. A run folder is data: nothing in submission.json names code.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from maskgit.common.errors import Interrupted, UsageError
from maskgit.common.files import atomic_write, json_bytes
from slurm.submission import Submission, code_fingerprint, load_submission

ENTRY = "experiments.engine.job"


class Refused(RuntimeError):
    """The shard must not run: the code, weights or data are not those of the submission."""


@dataclass(frozen=True)
class ShardJob:
    """Shard `number` of the submission in `folder`; see `run_shard`.

    entry: the module that computes; another than ENTRY for trivial cells, in tests.
    """

    folder: str
    number: int
    entry: str = ENTRY

    def __call__(self) -> dict[str, int]:
        return run_shard(load_submission(Path(self.folder)), self.number, self.entry)

    def checkpoint(self) -> Any:
        """Called by submitit at a time limit or a preemption: the same shard, requeued."""
        from submitit.helpers import DelayedSubmission

        write_state(load_submission(Path(self.folder)), self.number, state="requeued")
        return DelayedSubmission(self)


@dataclass(frozen=True)
class ReportJob:
    """The report of the submission in `folder`, however its shards ended."""

    folder: str
    entry: str = ENTRY

    def __call__(self) -> str:
        return str(entry_module(self.entry).report(load_submission(Path(self.folder)).request))


def entry_module(entry: str = ENTRY) -> ModuleType:
    """The module that computes. Only code chooses it: it is imported by a constant's name."""
    return importlib.import_module(entry)


def run_shard(submission: Submission, number: int, entry: str = ENTRY) -> dict[str, int]:
    """Compute the cells of a shard; returns how many were done, cached and failed.

    Raises:
        Refused: the code changed since the submission, or the request cannot be met now or yields
            other cells.
    """
    try:
        return _run_shard(submission, number, entry)
    except Refused as refused:
        write_state(submission, number, state="refused", reason=str(refused))
        raise
    except Interrupted as ended:
        reason = f"{ended}: cancelled, preempted or requeued"
        write_state(submission, number, state="stopped", reason=reason)
        raise
    except Exception as error:
        # Among these what submitit raises in the middle of the work after too many time limits.
        reason = " ".join(str(error).split())
        write_state(submission, number, state="broken", reason=f"{type(error).__name__}: {reason}")
        raise


def _run_shard(submission: Submission, number: int, entry: str) -> dict[str, int]:
    write_state(submission, number, state="starting")
    now = code_fingerprint(submission.code)
    if now != submission.fingerprint:
        raise Refused(
            f"the code in {submission.code} changed since the submission ({now[:12]}, not "
            f"{submission.fingerprint[:12]}); submit again, or use --snapshot"
        )
    workers = max(1, submission.profile["gpus"] * submission.profile["workers_per_gpu"])
    try:
        counts: dict[str, int] = entry_module(entry).run_cells(
            submission.request,
            submission.shards[number],
            workers,
            lambda: write_state(submission, number, state="running"),
        )
    except UsageError as error:
        raise Refused(str(error)) from error
    write_state(submission, number, state="ended", **counts)
    return counts


def write_state(submission: Submission, number: int, **facts: Any) -> None:
    """Keep what shard `number` says of itself, for people: its state (starting, running, ended, and
    stopped, broken, refused with a `reason`), job, node, attempt, time. A full disk stops nothing.
    """
    before = submission.state(number)
    started = facts["state"] == "starting"
    content = {
        **facts,
        "attempt": before.get("attempt", 0) + started,
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        atomic_write(submission.folder / "state" / f"{number}.json", json_bytes(content))
    except OSError as error:
        print(f"warning: the shard's state cannot be written ({error})", file=sys.stderr)
