"""The runner in this process: what it counts, what it says, and in which order it works."""

import io
import multiprocessing
import os
import signal

import pytest

from experiments.engine.cells import Task
from experiments.engine.run.dispatch import Queue
from experiments.engine.run.execute import Reply
from experiments.engine.run.progress import EVERY, Progress, clock
from experiments.engine.run.runner import Runner, split_done
from experiments.engine.run.signals import Interrupted, Stopper
from experiments.engine.run.workers import Setup, _work
from experiments.engine.store.lease import Leases
from experiments.engine.store.store import Store
from maskgit.common.errors import RunError
from tests.experiments.engine.engine_doubles import Trivial, task, tasks


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    store.prepare()
    return store


def run(store, items, workers=0, stream=None, computer=None, **options):
    computer = computer or Trivial(store.root / "starts.log")
    runner = Runner(computer, store, workers=workers, progress=Progress(stream), **options)
    with Stopper() as stopper:
        return runner.run(items, stopper)


def starts(store):
    path = store.root / "starts.log"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def test_inline_computes_what_is_missing_and_only_that(store):
    first = run(store, tasks(4))
    assert (first.total, first.done, first.cached, first.failed) == (4, 4, 0, {})
    second = run(store, tasks(6))
    assert (second.done, second.cached) == (2, 4)
    assert sorted(starts(store)) == list(range(6))


def test_a_cell_that_raises_fails_alone_and_is_tried_again_by_the_next_run(store):
    stream = io.StringIO()
    for _ in range(2):
        summary = run(store, tasks(5, **{"raise": 2}), 0, stream)
        assert list(summary.failed.values()) == ["ValueError: cell 2 does not want to be computed"]
        assert summary.done + summary.cached == 4
    assert starts(store).count(2) == 2
    lines = stream.getvalue().splitlines()
    assert sum(line.startswith("failed: index=2") for line in lines) == 2
    assert "1 failed" in lines[-1]


def test_an_old_failure_is_forgotten_where_there_is_a_result(store):
    item = task(0)
    run(store, [item])
    store.record_failure(item, "killed between the result and the sweep", "")
    run(store, [item])
    assert not (store.cell(item.key) / "failure.json").exists()


def test_a_damaged_result_is_one_line_and_computed_again(store):
    run(store, tasks(3))
    path = store.cell(task(1).key) / "result.json"
    path.write_text(path.read_text()[:50])
    stream = io.StringIO()
    assert run(store, tasks(3), 0, stream).done == 1
    warnings = [line for line in stream.getvalue().splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert split_done(tasks(3), store) == (tasks(3), [])


def test_a_cell_that_another_runner_works_on_is_waited_for(store, monkeypatch):
    monkeypatch.setattr("experiments.engine.run.runner.POLL", 0.01)
    items = tasks(3)
    held = Leases().acquire(store.lease_path(items[1].key))
    rival = {"looks": 0}
    sleep = __import__("time").sleep

    def while_waiting(seconds):
        rival["looks"] += 1
        if rival["looks"] == 3:  # the rival finishes
            computer = Trivial(store.root / "rival.log")
            store.publish(items[1], computer.compute(items[1]), {})
            held.release()
        sleep(seconds)

    monkeypatch.setattr("experiments.engine.run.runner.time.sleep", while_waiting)
    summary = run(store, items)
    assert (summary.done, summary.cached) == (2, 1)
    assert sorted(starts(store)) == [0, 2]


def test_a_cell_that_another_runner_gave_up_is_computed_here(store, monkeypatch):
    monkeypatch.setattr("experiments.engine.run.runner.POLL", 0.01)
    items = tasks(2)
    held = Leases().acquire(store.lease_path(items[1].key))
    monkeypatch.setattr("experiments.engine.run.runner.time.sleep", lambda seconds: held.release())
    assert run(store, items).done == 2


def test_a_dead_hosts_cell_is_taken_over(store, monkeypatch):
    monkeypatch.setattr("experiments.engine.run.runner.POLL", 0.01)
    items = tasks(2)
    path = store.lease_path(items[0].key)
    path.parent.mkdir(parents=True)
    path.write_text('{"host": "gone 1 1", "pid": 1, "start": "1", "token": "t", "heartbeat": 1}')
    os.utime(path, (0, 0))
    assert run(store, items, leases=Leases(beat_every=0.05, stale_after=0.2)).done == 2
    assert not path.exists()


def test_a_signal_ends_an_inline_run_and_releases_its_lease(store):
    class Stopped(Trivial):
        def compute(self, item):
            if len(starts(store)) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().compute(item)

    with pytest.raises(Interrupted) as ended:
        run(store, tasks(5), computer=Stopped(store.root / "starts.log"))
    assert ended.value.exit_code == 143
    assert not list(store.root.rglob("lease"))
    assert len(list(store.root.rglob("result.json"))) == 2
    assert run(store, tasks(5)).done == 3


def test_a_held_signal_waits_for_the_check_and_a_second_one_changes_nothing():
    with Stopper() as stopper:
        stopper.held = True
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert os.read(stopper.pipe, 1) == b"!"
        with pytest.raises(Interrupted) as ended:
            stopper.check()
    assert ended.value.exit_code == 130


def test_a_signal_behind_the_result_waits_for_the_journal(store, monkeypatch):
    forget = Store.forget_failure

    def interrupted(self, item):  # between result.json and its line
        os.kill(os.getpid(), signal.SIGTERM)
        forget(self, item)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Store, "forget_failure", interrupted)
    with pytest.raises(Interrupted) as ended:
        run(store, tasks(3))
    assert ended.value.exit_code == 143
    assert len(list(store.root.rglob("result.json"))) == 1
    assert len((store.root / "journal.jsonl").read_text().splitlines()) == 1
    assert not list(store.root.rglob("lease"))
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stopper():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


# ---- with worker processes -----------------------------------------------------------------------


def test_workers_compute_what_is_missing_and_report_what_fails(store):
    stream = io.StringIO()
    summary = run(store, tasks(7, **{"raise": 3, "die": 5}), 2, stream)
    assert (summary.done, len(summary.failed)) == (5, 2)
    said = stream.getvalue()
    assert "failed: index=3 schedule=s0 behave=raise: ValueError" in said
    assert "SIGKILL" in said
    assert starts(store).count(5) == 2  # once more, then given up
    again = run(store, tasks(7), 2)
    assert (again.done, again.cached) == (2, 5)  # the two as well-behaved cells of other keys


def test_workers_end_and_release_their_leases_when_a_signal_comes(store):
    items = tasks(4)
    asked = []

    def ask_to_stop(force=False):
        leases = list(store.root.rglob("lease"))
        if len(leases) == 2 and not asked:
            asked.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    progress = Progress(None)
    progress.refresh = ask_to_stop
    runner = Runner(Trivial(store.root / "log", 30.0), store, workers=2, progress=progress)
    with Stopper() as stopper, pytest.raises(Interrupted) as ended:
        runner.run(items, stopper)
    assert ended.value.exit_code == 130
    assert not list(store.root.rglob("lease"))


@pytest.mark.parametrize("broken", ["raise", "die"])
def test_workers_that_cannot_start_are_one_error(store, monkeypatch, broken):
    monkeypatch.setenv("ENGINE_BROKEN", broken)
    with pytest.raises(RunError, match="cannot start"):
        run(store, tasks(2), 1)


def test_the_main_function_of_a_worker_answers_task_after_task(store):
    # In this process, to see every line of it; the other tests run it where it belongs.
    ours, theirs = multiprocessing.Pipe()
    setup = Setup(Trivial(store.root / "starts.log"), store.root, 1, 10.0, 120.0)
    for item in tasks(2, **{"raise": 1}):
        ours.send((item, None, False))
    ours.send(None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        _work(setup, 0, theirs)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [ours.recv().kind for _ in range(3)] == ["ready", "done", "failed"]


def test_a_worker_says_that_it_cannot_start(store, monkeypatch):
    monkeypatch.setenv("ENGINE_BROKEN", "raise")
    ours, theirs = multiprocessing.Pipe()
    before = signal.getsignal(signal.SIGTERM)
    try:
        _work(Setup(Trivial(store.root / "log"), store.root, 1, 10.0, 120.0), 0, theirs)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ours.recv() == Reply("broken", "RuntimeError: no such device")


def test_an_interrupted_worker_releases_its_lease_and_returns(store):
    class Stopped(Trivial):
        def compute(self, item):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().compute(item)

    ours, theirs = multiprocessing.Pipe()
    ours.send((task(0), None, False))
    before = signal.getsignal(signal.SIGTERM)
    try:
        _work(Setup(Stopped(store.root / "log"), store.root, 1, 10.0, 120.0), 0, theirs)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ours.recv().kind == "ready"
    assert not ours.poll()
    assert not list(store.root.rglob("lease"))


# ---- order -------------------------------------------------------------------------------------


def some(group, *costs):
    return [Task(f"{group}{cost}", {}, group, cost) for cost in costs]


def test_a_worker_stays_with_its_group_and_takes_the_dearest_first():
    queue = Queue(some("a", 1, 9, 5) + some("b", 20))
    assert [queue.take("a", ()).cost for _ in range(3)] == [9, 5, 1]
    assert queue.take("a", ()).group == "b"
    assert len(queue) == 0


def test_a_new_worker_takes_the_group_nobody_has_with_most_left():
    queue = Queue(some("a", 9, 9) + some("b", 5, 6) + some("c", 10))
    assert queue.take(None, {"a"}).group == "b"
    assert queue.take(None, {"a", "b", "c"}).group == "a"


def test_a_task_put_back_comes_last_in_its_group():
    queue = Queue(some("a", 1, 2))
    first = queue.take("a", ())
    queue.put(first)
    assert [queue.take("a", ()).cost for _ in range(2)] == [1, 2]


# ---- progress ------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_at_most_every_ten_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("experiments.engine.run.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(stream)
    progress.begin(total=101, cached=1, cost=100.0)
    for second in range(1, 51):
        now[0] = float(second)
        progress.task(Task("k", {}, cost=1.0, size=8), Reply("done"))
        progress.refresh()
    progress.end()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + 50 // EVERY
    assert lines[-1] == (
        "51/101 cells: 50 done, 1 cached, 0 failed | 8.0 images/s | 0:50 left | 0:50 passed"
    )


def test_a_terminal_gets_a_live_line_and_keeps_the_messages():
    stream = Terminal()
    progress = Progress(stream)
    progress.begin(2, 0, 2.0)
    progress.say("[red]not markup[/red]")
    progress.task(Task("k", {}), Reply("failed"))
    progress.task(Task("l", {}), Reply("cached"))
    progress.refresh()
    progress.end()
    text = stream.getvalue()
    assert "[red]not markup[/red]" in text
    assert "2/2 cells: 0 done, 1 cached, 1 failed" in text.splitlines()[-1]


def test_time_is_written_for_people():
    assert [clock(s) for s in (0, 59.6, 61, 3723)] == ["0:00", "1:00", "1:01", "1:02:03"]
