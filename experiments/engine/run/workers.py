"""Worker processes: each loads the networks once, computes task after task, may die any time."""

import contextlib
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.engine.cells import Computer, Task
from experiments.engine.run.execute import Reply, execute, help_with, one_line
from experiments.engine.store.lease import Leases, read_lease
from experiments.engine.store.store import Store
from maskgit.common.errors import Interrupted

GRACE = 5.0  # seconds for a worker to end by itself before it is killed


@dataclass(frozen=True)
class Setup:
    """What every worker is started with."""

    computer: Computer
    root: Path
    workers: int
    beat_every: float
    stale_after: float


def _work(setup: Setup, index: int, pipe: Connection) -> None:
    """Main function of a worker process."""
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    store, leases = Store(setup.root), Leases(setup.beat_every, setup.stale_after)
    with contextlib.suppress(Interrupted, EOFError, BrokenPipeError):
        try:
            setup.computer.start(index, setup.workers)
        except Exception as error:
            pipe.send(Reply("broken", one_line(error)))
            return
        pipe.send(Reply("ready"))
        while True:
            message = pipe.recv()
            if message is None:
                return
            task, condemned, helping = message
            if helping:
                pipe.send(help_with(task, setup.computer))
            else:
                pipe.send(execute(task, setup.computer, store, leases, condemned))


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted(number)


def _die_with_parent() -> None:
    # A runner killed by SIGKILL cannot tell its workers. They would work on for nobody.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class Worker:
    """The runner's handle on one worker process."""

    def __init__(self, setup: Setup, index: int):
        self.setup, self.index = setup, index
        self.group: str | None = None  # of the last task, whose weights it has loaded
        self.task: Task | None = None  # in work now
        self.helping: Task | None = None  # it makes a block of this one, which another computes
        self.retry: Task | None = None  # to be done first: it killed the process before this one
        self.ready = False
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(setup, index, theirs), name=f"worker {index}", daemon=True
        )
        # The child inherits the mask: Ctrl-C never reaches it, not even while it still imports.
        resource_tracker.ensure_running()  # it would unblock the signal if it began in between
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def send(self, task: Task, condemned: str | None) -> None:
        """Give it a task. A worker that died meanwhile is noticed through its sentinel."""
        self.task, self.group = task, task.group
        with contextlib.suppress(OSError):
            self.pipe.send((task, condemned, False))

    def help(self, task: Task) -> None:
        """Let it make a block of a task that another process computes."""
        self.helping, self.group = task, task.group
        with contextlib.suppress(OSError):
            self.pipe.send((task, None, True))

    def receive(self) -> Reply | None:
        """The reply that waits in the pipe, or None if the worker died while writing it."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def how_it_died(self) -> str:
        """For a process that has ended: by which signal or exit code, in one line."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"the worker process ended with exit code {code}"
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{hint}"

    def clear_lease(self, leases: Leases) -> None:
        """Remove the lease that this dead worker left on its task."""
        if self.task is None:
            return
        path = Store(self.setup.root).lease_path(self.task.key)
        with contextlib.suppress(OSError):
            seen = read_lease(path)
            if seen is not None and seen.pid == self.process.pid and leases.is_dead(path, seen):
                leases.remove(path, seen.text)


def end_all(workers: list[Worker], leases: Leases, politely: bool) -> None:
    """End all workers: ask those without work, interrupt the others, then kill what is left."""
    for worker in workers:
        if politely and worker.task is None and worker.helping is None:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        elif worker.process.is_alive():
            worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.clear_lease(leases)
        worker.pipe.close()
