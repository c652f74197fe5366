"""One task from lease to result. The same function runs inline, in workers and in SLURM shards."""

import time
import traceback
from dataclasses import dataclass

from experiments.engine.cells import Computer, Task
from experiments.engine.run.signals import undisturbed
from experiments.engine.store.lease import Leases
from experiments.engine.store.owner import host_id
from experiments.engine.store.store import Store


@dataclass(frozen=True)
class Reply:
    """How a task ended: `done`, `cached` (somebody else did it), `busy` (leased) or `failed`; of
    help with one, `helped` or `needless`."""

    kind: str
    error: str = ""
    seconds: float = 0.0


def one_line(error: BaseException) -> str:
    """An exception as one line: its type, unless it is ours, and its text."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"


def help_with(task: Task, computer: Computer) -> Reply:
    """Make a block of a task that another process computes. What fails, fails there too, and is
    told there."""
    try:
        return Reply("helped" if computer.help(task) else "needless")
    except Exception as error:
        return Reply("needless", one_line(error))


def execute(
    task: Task, computer: Computer, store: Store, leases: Leases, condemned: str | None = None
) -> Reply:
    """Compute a task unless it is done or somebody works on it; store its result or its failure.

    `condemned` is the text of a dead owner's lease that may be taken over. A signal (`Interrupted`)
    passes through; the lease is released then too.
    """
    began = time.monotonic()
    try:
        lease = leases.acquire(store.lease_path(task.key), condemned)
        if lease is None:
            return Reply("busy")
        with lease:
            # Only now is it certain that nobody publishes this cell between the look and the work.
            if store.find(task).result is not None:
                return Reply("cached")
            store.clean(task)
            try:
                outcome = computer.compute(task)
                timing = {
                    **outcome.timing,
                    "seconds": time.monotonic() - began,
                    "host": host_id(),
                    "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                }
                with undisturbed():  # the result and its line in the journal, or neither
                    store.publish(task, outcome, timing, lease.is_mine)
            except Exception as error:
                if not lease.is_mine():  # we slept too long and another host took over
                    return Reply("busy")
                store.record_failure(task, one_line(error), traceback.format_exc())
                return Reply("failed", one_line(error), time.monotonic() - began)
        return Reply("done", "", time.monotonic() - began)
    except OSError as error:  # the lease itself could not be written
        return Reply("failed", one_line(error), time.monotonic() - began)
