"""The runner: skip what is done, give the rest to workers, survive their deaths, tell failures."""

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from experiments.engine.cells import Computer, Task
from experiments.engine.run.dispatch import Queue
from experiments.engine.run.execute import Reply, execute, help_with
from experiments.engine.run.progress import Progress
from experiments.engine.run.signals import Stopper
from experiments.engine.run.workers import Setup, Worker, end_all
from experiments.engine.store.lease import Leases, read_lease
from experiments.engine.store.store import Store
from maskgit.common.errors import RunError

POLL = 0.5  # seconds between two looks at cells that other runners work on
REST = 2.0  # seconds until a cell that had no free block is offered help again


@dataclass
class Summary:
    """How the tasks of a run ended."""

    total: int
    cached: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # key -> error, in one line


def split_done(
    tasks: Sequence[Task], store: Store, say: Callable[[str], None] = lambda line: None
) -> tuple[list[Task], list[Task]]:
    """(done, to do). A damaged result gets a line through `say` and belongs to the second."""
    done: list[Task] = []
    left: list[Task] = []
    for task in tasks:
        found = store.find(task)
        (left if found.result is None else done).append(task)
        if found.problem:
            path = store.cell(task.key) / found.file
            say(f"warning: {path} {found.problem}; it will be computed again")
    return done, left


class Runner:
    """Runs tasks in one store.

    Args:
        computer: computes one task (see `cells.Computer`).
        store: where results are.
        workers: number of processes; 0 computes inline, in this process.
        progress: told of every event; None for silence.
        leases: timing of the leases, for tests.
    """

    def __init__(
        self,
        computer: Computer,
        store: Store,
        *,
        workers: int | Callable[[], int] = 1,
        progress: Progress | None = None,
        leases: Leases | None = None,
    ):
        self.computer, self.store, self.workers = computer, store, workers
        self.progress = progress or Progress(stream=None)
        self.leases = leases or Leases()

    def run(self, tasks: Sequence[Task], stopper: Stopper) -> Summary:
        """Compute every task that is not done; returns when all are done or failed.

        Cells that another runner works on are waited for, and taken over if it dies. Who has no
        cell left to begin makes blocks of those that are in work, here or elsewhere.

        Raises:
            Interrupted: a signal came; workers have ended and leases are released.
            RunError: the worker processes cannot be started.
        """
        done, left = split_done(tasks, self.store, self.progress.say)
        for task in done:  # a kill just behind the result leaves these two
            self.store.forget_failure(task)
            self._sweep_lease(task)
        self.summary = Summary(len(tasks), cached=len(done))
        self._queue, self._elsewhere = Queue(left), deque[Task]()
        self._condemned: dict[str, str] = {}
        self._looked = 0.0
        self._rests: dict[str, float] = {}  # key -> when help may be offered again
        self.progress.begin(len(tasks), len(done), sum(task.cost for task in left))
        try:
            if left:
                count = self.workers() if callable(self.workers) else self.workers
                if count == 0:
                    self._run_inline()
                else:
                    self._run_workers(min(count, sum(task.blocks for task in left)), stopper)
        finally:
            self.progress.end()
        return self.summary

    def _run_inline(self) -> None:
        self.computer.start(0, 1)
        group = None
        while len(self._queue) or self._elsewhere:
            self._look_elsewhere()
            if len(self._queue):
                task = self._queue.take(group, ())
                group = task.group
                condemned = self._condemned.pop(task.key, None)
                self._account(
                    task, execute(task, self.computer, self.store, self.leases, condemned)
                )
            elif (found := self._to_help([])) is None:
                time.sleep(POLL)
            else:
                self._helped(found, help_with(found, self.computer))
            self.progress.refresh()

    def _run_workers(self, count: int, stopper: Stopper) -> None:
        setup = Setup(
            self.computer,
            self.store.root,
            count,
            self.leases.beat_every,
            self.leases.stale_after,
        )
        workers: list[Worker] = []
        deaths: Counter[str] = Counter()
        stillborn = 0
        stopper.held = True
        clean = False
        try:
            workers.extend(Worker(setup, index) for index in range(count))
            while len(self._queue) or self._elsewhere or any(w.task or w.retry for w in workers):
                self._look_elsewhere()
                for worker in workers:
                    self._feed(worker, workers)
                sources: list[Any] = [stopper.pipe]
                for worker in workers:
                    sources += [worker.pipe, worker.process.sentinel]
                events = wait(sources, timeout=POLL)
                stopper.check()
                for index, worker in enumerate(workers):
                    reply = worker.receive() if worker.pipe in events else None
                    if reply is not None and reply.kind == "broken":
                        raise RunError(f"the workers cannot start: {reply.error}")
                    if reply is not None and reply.kind == "ready":
                        worker.ready, stillborn = True, 0
                    elif reply is not None and worker.helping is not None:
                        task, worker.helping = worker.helping, None
                        self._helped(task, reply)
                    elif reply is not None and worker.task is not None:
                        task, worker.task = worker.task, None
                        self._account(task, reply)
                    elif worker.pipe in events or worker.process.sentinel in events:
                        stillborn += not worker.ready
                        if stillborn > 2 * count:
                            raise RunError(f"the workers cannot start: {worker.how_it_died()}")
                        workers[index] = self._replace(worker, deaths)
                self.progress.refresh()
            clean = True
        finally:
            end_all(workers, self.leases, politely=clean)
            stopper.held = False
        stopper.check()

    def _feed(self, worker: Worker, workers: list[Worker]) -> None:
        if not worker.ready or worker.task is not None or worker.helping is not None:
            return
        if worker.retry is not None:
            task, worker.retry = worker.retry, None
        elif len(self._queue):
            task = self._queue.take(worker.group, {w.group for w in workers if w is not worker})
        else:
            found = self._to_help([w.task for w in workers if w.task is not None])
            if found is not None:
                worker.help(found)
            return
        worker.send(task, self._condemned.pop(task.key, None))

    def _to_help(self, here: Sequence[Task]) -> Task | None:
        """A task with blocks for others: of those in work here, or by another runner."""
        now = time.monotonic()
        for task in (*here, *self._elsewhere):
            if task.blocks > 1 and now >= self._rests.get(task.key, 0.0):
                return task
        return None

    def _helped(self, task: Task, reply: Reply) -> None:
        if reply.kind != "helped":
            self._rests[task.key] = time.monotonic() + REST

    def _replace(self, dead: Worker, deaths: Counter[str]) -> Worker:
        """A fresh worker for a dead one; its task is tried once more there, then given up."""
        reason = dead.how_it_died()
        dead.clear_lease(self.leases)
        dead.pipe.close()
        fresh = Worker(dead.setup, dead.index)
        fresh.retry = dead.retry
        if dead.helping is not None:  # perhaps its blocks kill; the task's own worker finds out
            self._rests[dead.helping.key] = math.inf
        task = dead.task
        if task is not None:
            deaths[task.key] += 1
            if self.store.find(task).result is not None:
                self._account(task, Reply("done"))  # it died between the result and its reply
            elif deaths[task.key] == 1:
                self.progress.say(f"{reason} at {task.label}; trying it once more")
                fresh.retry = task
            elif self._is_leased(task):  # another runner has taken it over meanwhile
                self._account(task, Reply("busy"))
            else:
                error = f"{reason}, twice"
                self.store.record_failure(task, error, "", attempts=2)
                self._account(task, Reply("failed", error))
        return fresh

    def _is_leased(self, task: Task) -> bool:
        with contextlib.suppress(OSError):
            return read_lease(self.store.lease_path(task.key)) is not None
        return False

    def _sweep_lease(self, task: Task) -> None:
        path = self.store.lease_path(task.key)
        with contextlib.suppress(OSError):
            seen = read_lease(path)
            if seen is not None and self.leases.is_dead(path, seen):
                self.leases.remove(path, seen.text)

    def _account(self, task: Task, reply: Reply) -> None:
        if reply.kind == "busy":
            self._elsewhere.append(task)
            return
        if reply.kind == "done":
            self.summary.done += 1
        elif reply.kind == "cached":
            self.summary.cached += 1
        else:
            self.summary.failed[task.key] = reply.error
            self.progress.say(f"failed: {task.label}: {reply.error}")
        self.progress.task(task, reply)

    def _look_elsewhere(self) -> None:
        """Look again at the cells that others work on: done, given up, or their owner dead?"""
        now = time.monotonic()
        if now - self._looked < POLL:
            return
        self._looked = now
        for _ in range(len(self._elsewhere)):
            task = self._elsewhere.popleft()
            path = self.store.lease_path(task.key)
            try:
                seen = read_lease(path)
            except OSError:
                seen = None  # whoever takes the lease is told why it cannot be read
            if self.store.find(task).result is not None:
                self._account(task, Reply("cached"))
            elif seen is None:
                self._queue.put(task)
            elif self.leases.is_dead(path, seen):
                self._condemned[task.key] = seen.text
                self._queue.put(task)
            else:
                self._elsewhere.append(task)
