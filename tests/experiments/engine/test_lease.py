"""Leases: one owner at a time, a dead one is replaced, a living one never is."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from experiments.engine.store import lease as lease_module
from experiments.engine.store import owner
from experiments.engine.store.lease import Leases, read_lease
from experiments.engine.store.owner import host_id, is_alive, process_start


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cell" / "lease"


def foreign(path, host="elsewhere 1 1", pid=1, start="1", beat=0.0, age=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"host": host, "pid": pid, "start": start, "token": "t", "heartbeat": beat}
    path.write_text(json.dumps(value))
    then = time.time() - age
    os.utime(path, (then, then))


def dead_process():
    """A number that was a process a moment ago, and its start."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(child.pid)
    child.communicate(b"\n")
    return child.pid, start


def test_a_lease_says_who_holds_it_and_goes_away(path):
    with Leases().acquire(path) as lease:
        value = json.loads(path.read_text())
        assert value["host"] == host_id()
        assert value["pid"] == os.getpid()
        assert is_alive(value["pid"], value["start"])
        assert value["heartbeat"] == pytest.approx(time.time(), abs=5)
        assert lease.is_mine()
    assert list(path.parent.iterdir()) == []
    lease.release()  # a second time does no harm


def test_a_second_owner_is_refused_and_served_after_the_first(path):
    first, second = Leases(), Leases()
    held = first.acquire(path)
    assert second.acquire(path) is None
    assert first.acquire(path) is None
    held.release()
    second.acquire(path).release()


def test_of_many_that_try_at_once_one_gets_it(path):
    got = []
    barrier = threading.Barrier(8)

    def attempt():
        barrier.wait()
        lease = Leases().acquire(path)
        if lease is not None:
            got.append(lease)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].release()


def test_of_many_that_take_over_a_dead_owner_one_gets_it(path):
    pid, start = dead_process()
    foreign(path, host_id(), pid, start)
    got = []
    barrier = threading.Barrier(8)

    def attempt():
        barrier.wait()
        lease = Leases().acquire(path)
        if lease is not None:
            got.append(lease)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert got[0].is_mine()
    got[0].release()


def test_a_process_that_is_gone_is_replaced_at_once(path):
    pid, start = dead_process()
    foreign(path, host_id(), pid, start)
    with Leases().acquire(path) as lease:
        assert lease.is_mine()


def test_a_number_that_now_is_another_process_is_replaced(path):
    foreign(path, host_id(), os.getpid(), "1")  # we did not start at the first tick
    Leases().acquire(path).release()


def test_a_living_process_of_this_host_is_never_replaced_however_old_its_heartbeat(path):
    foreign(path, host_id(), os.getpid(), process_start(os.getpid()), age=1e6)
    clock = Clock()
    leases = Leases(monotonic=clock)
    assert leases.acquire(path) is None
    clock.now += 1e6
    assert leases.acquire(path) is None


def test_another_host_is_replaced_when_old_and_still_while_we_watch(path):
    foreign(path, age=500)
    clock = Clock()
    leases = Leases(beat_every=10, stale_after=120, monotonic=clock)
    assert leases.acquire(path) is None  # never at first sight
    clock.now += 29
    assert leases.acquire(path) is None
    clock.now += 2
    leases.acquire(path).release()


def test_another_host_with_a_fresh_heartbeat_is_waited_for(path):
    clock = Clock()
    leases = Leases(beat_every=10, stale_after=120, monotonic=clock)
    for beat in range(40):
        foreign(path, beat=beat)
        assert leases.acquire(path) is None
        clock.now += 10


def test_a_clock_that_jumped_ahead_condemns_no_host_whose_heart_beats(path):
    clock = Clock()
    leases = Leases(10, 120, monotonic=clock, wall=lambda: time.time() + 1e6)
    for beat in range(40):
        foreign(path, beat=beat)
        assert leases.acquire(path) is None
        clock.now += 10


def test_a_clock_that_went_back_does_not_keep_a_dead_host_for_ever(path):
    foreign(path, age=-1e6)  # its heartbeat lies in the future
    clock = Clock()
    leases = Leases(10, 120, monotonic=clock)
    assert leases.acquire(path) is None
    clock.now += 119
    assert leases.acquire(path) is None
    clock.now += 2
    leases.acquire(path).release()


def test_a_file_that_is_no_lease_is_treated_like_another_host(path):
    path.parent.mkdir()
    path.write_text("{")
    os.utime(path, (0, 0))
    clock = Clock()
    leases = Leases(10, 120, monotonic=clock)
    assert leases.acquire(path) is None
    clock.now += 31
    leases.acquire(path).release()


def test_a_judgement_of_the_runner_serves_its_worker(path):
    foreign(path)
    seen = read_lease(path)
    Leases().acquire(path, condemned=seen.text).release()
    foreign(path, beat=2)
    assert Leases().acquire(path, condemned=seen.text) is None  # it has beaten since


def test_only_the_lease_that_was_judged_is_removed(path):
    foreign(path, beat=1)
    judged = read_lease(path)
    foreign(path, beat=2)  # taken over by a third meanwhile
    Leases().remove(path, judged.text)
    assert path.exists()


def test_the_heart_beats(path):
    with Leases(beat_every=0.02).acquire(path) as lease:
        first = read_lease(path)
        deadline = time.monotonic() + 5
        while read_lease(path).text == first.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_lease(path).text != first.text
        assert len(read_lease(path).text) == len(first.text)
        assert lease.is_mine()


def test_a_lost_lease_is_noticed_and_the_new_owner_left_alone(path):
    lease = Leases(beat_every=0.02).acquire(path)
    path.unlink()
    foreign(path, beat=7)
    text = path.read_text()
    assert not lease.is_mine()
    time.sleep(0.1)  # some beats of the old owner
    lease.release()
    assert path.read_text() == text


def test_without_hard_links_a_name_still_has_one_owner(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    first = Leases().acquire(path)
    assert first.is_mine()
    assert Leases().acquire(path) is None
    first.release()
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="full"):
        Leases().acquire(path)
    assert list(path.parent.iterdir()) == []


def test_without_locks_a_dead_owner_is_still_replaced(path, monkeypatch):
    monkeypatch.setattr(lease_module, "fcntl", None)
    pid, start = dead_process()
    foreign(path, host_id(), pid, start)
    Leases().acquire(path).release()


def test_a_zombie_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(child.pid)
    assert is_alive(child.pid, start)
    child.stdin.close()
    deadline = time.monotonic() + 10
    while is_alive(child.pid, start) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child.pid, start)
    child.wait()


def test_without_proc_the_system_is_asked_through_ps(monkeypatch):
    monkeypatch.setattr(owner, "_read", lambda path: "")
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    asked = []

    def ps(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(
            command, 0, "Sat Jan  3 10:00:00 2026\n" * (command[-1] == "7")
        )

    monkeypatch.setattr(subprocess, "run", ps)
    assert process_start(7) == "Sat Jan  3 10:00:00 2026"
    assert process_start(8) is None
    assert asked[0][0] == "ps"


def test_without_proc_and_without_ps_no_process_is_known(monkeypatch):
    monkeypatch.setattr(owner, "_read", lambda path: "")
    monkeypatch.setattr(os.path, "isdir", lambda path: False)

    def missing(*_, **__):
        raise FileNotFoundError("ps")

    monkeypatch.setattr(subprocess, "run", missing)
    assert process_start(os.getpid()) is None
