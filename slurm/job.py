"""What runs on a node: one shard, or the report after all shards. submitit pickles these classes.

A shard runs the engine's own runner with its cells alone; what is done is skipped, what another
shard works on is waited for. After a time limit or a preemption submitit calls `checkpoint`, which
asks for the same shard again: it goes on with the first cell that has no result, and within that
cell with the samples that were kept.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm.submission import Submission, code_fingerprint, load_submission, write_json


class Refused(RuntimeError):
    """The shard must not run: the code, weights or data are not those of the submission."""


@dataclass(frozen=True)
class ShardJob:
    """Shard `number` of the submission in `folder`; see `run_shard`."""

    folder: str
    number: int

    def __call__(self) -> dict[str, int]:
        return run_shard(load_submission(Path(self.folder)), self.number)

    def checkpoint(self) -> Any:
        """Called by submitit at a time limit or a preemption: the same shard, requeued."""
        from submitit.helpers import DelayedSubmission

        write_state(load_submission(Path(self.folder)), self.number, state="requeued")
        return DelayedSubmission(ShardJob(self.folder, self.number))


@dataclass(frozen=True)
class ReportJob:
    """The report of the submission in `folder`, however its shards ended."""

    folder: str

    def __call__(self) -> str:
        return str(load_submission(Path(self.folder)).payload.call("report"))


def run_shard(submission: Submission, number: int) -> dict[str, int]:
    """Compute the cells of a shard; returns how many were done, cached and failed.

    Raises:
        Refused: the code changed since the submission, or the request yields other cells.
    """
    from experiments.engine.run.signals import Interrupted

    try:
        return _run_shard(submission, number)
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


def _run_shard(submission: Submission, number: int) -> dict[str, int]:
    from experiments.engine.run.progress import Progress
    from experiments.engine.run.runner import Runner
    from experiments.engine.run.signals import Stopper
    from experiments.engine.store.store import Store

    write_state(submission, number, state="starting")
    with Stopper() as stopper:
        tasks, computer = _prepared(submission, submission.shards[number])
        store = Store(submission.run)
        store.prepare()
        write_state(submission, number, state="running")
        workers = max(1, submission.profile["gpus"] * submission.profile["workers_per_gpu"])
        runner = Runner(computer, store, workers=workers, progress=Progress(sys.stderr))
        summary = runner.run(tasks, stopper)
    counts = {"done": summary.done, "cached": summary.cached, "failed": len(summary.failed)}
    write_state(submission, number, state="ended", **counts)
    return counts


def _prepared(submission: Submission, keys: tuple[str, ...]) -> tuple[list[Any], Any]:
    """(tasks of these keys, computer), or a refusal."""
    now = code_fingerprint(submission.code)
    if now != submission.fingerprint:
        raise Refused(
            f"the code in {submission.code} changed since the submission ({now[:12]}, not "
            f"{submission.fingerprint[:12]}); submit again, or use --snapshot"
        )
    tasks, computer, _ = submission.payload.call("entry")
    known = {task.key: task for task in tasks}
    missing = [key for key in keys if key not in known]
    if missing:
        raise Refused(
            f"{len(missing)} of {len(keys)} cells have other keys now: weights, data or settings "
            "changed since the submission; submit again"
        )
    return [known[key] for key in keys], computer


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
        write_json(submission.folder / "state" / f"{number}.json", content)
    except OSError as error:
        print(f"warning: the shard's state cannot be written ({error})", file=sys.stderr)
