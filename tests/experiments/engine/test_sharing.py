"""One cell made by several processes, block by block: none twice, and the bytes of one process."""

import os
import signal
from collections import Counter

import pytest

from experiments.engine.run.execute import Reply, help_with
from experiments.engine.run.runner import Runner
from experiments.engine.run.signals import Stopper
from experiments.engine.store.store import Store
from tests.experiments.engine.engine_doubles import Trivial, tasks
from tests.experiments.engine.test_faults import finish, results, start, wait_for, workers_of

BLOCKS = 12
CELL = ("--cells", 1, "--blocks", BLOCKS)


def made(store):
    """(block, pid) of each block that was begun, in order."""
    log = store / "starts.log"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(int(word[6:]), int(pid)) for word, pid in lines if word.startswith("block-")]


def everything(store):
    """What a report reads, and the blocks."""
    blocks = store.glob("stages/tokens/*/*")
    return results(store) | {str(p.relative_to(store)): p.read_bytes() for p in blocks}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of one runner that computes inline."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, _, err = finish(start(folder, *CELL, "--workers", 0, "--seconds", 0))
    assert code == 0, err
    found = everything(folder)
    assert len(found) == 2 + BLOCKS
    return found


def test_workers_without_a_cell_make_blocks_of_the_one_in_work(tmp_path, undisturbed):
    code, out, err = finish(start(tmp_path, *CELL, "--workers", 3, "--seconds", 0.3))
    assert (code, out) == (0, "1 0 0\n"), err
    found = made(tmp_path)
    assert sorted(block for block, _ in found) == list(range(BLOCKS))
    assert min(Counter(pid for _, pid in found).values()) >= 2
    assert len({pid for _, pid in found}) == 3
    assert everything(tmp_path) == undisturbed


@pytest.mark.parametrize("workers", [(0, 0), (2, 0), (1, 2)])
def test_two_runners_share_one_cell(tmp_path, undisturbed, workers):
    both = [start(tmp_path, *CELL, "--workers", n, "--seconds", 0.3) for n in workers]
    ends = [finish(process) for process in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert sorted(out for _, out, _ in ends) == ["0 1 0\n", "1 0 0\n"]
    found = made(tmp_path)
    assert sorted(block for block, _ in found) == list(range(BLOCKS))
    assert len({pid for _, pid in found}) >= 2
    assert everything(tmp_path) == undisturbed


def test_a_killed_worker_loses_one_block_at_most(tmp_path, undisturbed):
    process = start(tmp_path, *CELL, "--workers", 2, "--seconds", 0.8)
    wait_for(lambda: len({pid for _, pid in made(tmp_path)}) == 2)
    killed = list(dict.fromkeys(pid for _, pid in made(tmp_path)))
    os.kill(killed[0], signal.SIGKILL)  # the owner of the cell, and then the one that helped
    wait_for(lambda: len({pid for _, pid in made(tmp_path)}) == 3)
    os.kill(killed[1], signal.SIGKILL)
    code, out, err = finish(process)
    assert (code, out) == (0, "1 0 0\n"), err
    counts = Counter(block for block, _ in made(tmp_path))
    assert sorted(counts) == list(range(BLOCKS))
    assert sum(counts.values()) <= BLOCKS + len(killed)
    assert everything(tmp_path) == undisturbed


def test_a_killed_runner_loses_one_block_a_worker_at_most(tmp_path, undisturbed):
    process = start(tmp_path, *CELL, "--workers", 2, "--seconds", 0.3)
    wait_for(lambda: len(made(tmp_path)) >= 5)
    for pid in [process.pid, *workers_of(process)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    code, _, err = finish(start(tmp_path, *CELL, "--workers", 2, "--seconds", 0))
    assert code == 0, err
    counts = Counter(block for block, _ in made(tmp_path))
    assert sorted(counts) == list(range(BLOCKS))
    assert sum(counts.values()) <= BLOCKS + 2
    assert everything(tmp_path) == undisturbed


def test_a_signal_ends_helpers_too_and_the_same_command_goes_on(tmp_path, undisturbed):
    process = start(tmp_path, *CELL, "--workers", 3, "--seconds", 1)
    wait_for(lambda: len({pid for _, pid in made(tmp_path)}) == 3)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert (code, "Traceback" in err) == (143, False), err
    assert not list(tmp_path.rglob("*lease"))
    code, _, err = finish(start(tmp_path, *CELL, "--workers", 2, "--seconds", 0))
    assert code == 0, err
    assert everything(tmp_path) == undisturbed


def test_a_cell_that_has_no_free_block_rests_and_one_that_fails_to_help_too(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    (item,) = tasks(1)

    class Broken(Trivial):
        def help(self, task):
            raise RuntimeError("no memory")

    assert help_with(item, Broken(tmp_path / "log")) == Reply("needless", "RuntimeError: no memory")
    runner = Runner(Trivial(tmp_path / "log"), store, workers=0)
    with Stopper() as stopper:
        runner.run([item], stopper)
    many = type(item)(item.key, item.cell, blocks=2)
    assert runner._to_help([item]) is None
    assert runner._to_help([many]) is many
    runner._helped(many, Reply("helped"))
    assert runner._to_help([many]) is many
    runner._helped(many, Reply("needless"))
    assert runner._to_help([many]) is None
