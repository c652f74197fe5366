"""The cells of a run that have no result, and that no job in the queue will make, once more."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from maskgit.common.errors import UsageError
from slurm.job import ENTRY, entry_module
from slurm.profile import Profile
from slurm.shards import Work
from slurm.submission import Submission, keys_left, submissions
from slurm.submit import submit
from slurm.watch import ask_slurm, collect


def missing_cells(run: Path, failed_too: bool) -> tuple[Submission | None, list[Work]]:
    """(the newest submission, the cells to submit again).

    A cell that failed is left out unless asked for: it would most likely fail again.

    Raises:
        UsageError: SLURM does not answer, so nobody knows what is in the queue.
    """
    known = submissions(run)
    waiting: set[str] = set()
    costs: dict[str, float] = {}
    for submission in known:
        queue = ask_slurm(submission)
        if queue.problem:
            raise UsageError(f"resubmit: {queue.problem}")
        costs.update(submission.costs)
        for status in collect(submission, queue):
            if status.queued:
                waiting.update(submission.shards[status.number])
    left = [
        key
        for key in keys_left(list(costs), run)
        if key not in waiting
        and (failed_too or not (run / "cells" / key / "failure.json").is_file())
    ]
    return (known[-1] if known else None), [Work(key, costs[key]) for key in left]


def resubmit(run: Path, failed_too: bool = False, entry: str = ENTRY) -> Submission | None:
    """Submit the missing cells with the newest submission's request and profile; None if none are.

    entry: see `slurm.job.ShardJob`.

    Raises:
        UsageError: nothing was submitted before, or by somebody else, or the code, weights or data
            changed since, so that these cells are no longer what the request asks for; another
            resubmit is at work.
    """
    with _alone(run):
        return _resubmit(run, failed_too, entry)


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Hold a lock on RUN/slurm, so that two calls do not submit the same cells.

    Raises:
        UsageError: another call holds it.
    """
    try:
        handle = os.open(run / "slurm", os.O_RDONLY)
    except OSError:
        yield  # nothing was submitted from this folder
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"{run}: another resubmit of this run is at work") from None
    except OSError:
        pass  # a file system that knows no locks
    try:
        yield
    finally:
        os.close(handle)


def _resubmit(run: Path, failed_too: bool, entry: str) -> Submission | None:
    newest, work = missing_cells(run, failed_too)
    if newest is None:
        raise UsageError(f"{run}: nothing was submitted to SLURM from this folder")
    if not work:
        return None
    if not newest.written_here():
        raise UsageError(
            f"{newest.folder}: not submitted by you with the profile that it names, whose shell "
            "lines would run; give the sweep's own command again"
        )
    known = {item.key: item for item in entry_module(entry).work(newest.request)}
    changed = [item.key for item in work if item.key not in known]
    if changed:
        raise UsageError(
            f"resubmit: {len(changed)} of {len(work)} cells have other keys now: the code, weights "
            "or data changed since the submission; give the sweep's own command again"
        )
    profile = dict(newest.profile)
    profile["setup"] = tuple(profile["setup"])
    return submit(
        newest.request,
        [known[item.key] for item in work],
        newest.run,
        Profile(**profile),
        label=newest.name.removesuffix(f"-{newest.folder.name}"),
        snapshot=newest.snapshot,
        chain_report=bool(newest.report_job),
        root=Path(newest.root),
        entry=entry,
    )
