"""Pools in blocks: what is there is never made again, by nobody, and the rows are those of one."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.engine.store import blocks as module
from experiments.engine.store.blocks import Blocks
from experiments.engine.store.lease import Leases
from experiments.engine.store.stages import Stages


def rows(ids):
    return np.stack([ids, 10 * ids]).T.astype(np.uint16)


class Pool:
    """Counts what is made, by number of the row."""

    def __init__(self, root, size=10):
        self.stages, self.size, self.made = Stages(root), size, []

    def blocks(self, count, kind="tokens"):
        def make(ids):
            self.made += ids.tolist()
            return rows(ids) if kind == "tokens" else {"a": rows(ids), "b": ids / 7}

        return Blocks(self.stages, kind, "k", count, self.size, make)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 47), min_size=1, max_size=5), st.integers(1, 12))
def test_every_number_of_rows_is_the_start_of_one_pool_and_no_row_is_made_twice(
    tmp_path_factory, counts, size
):
    pool = Pool(tmp_path_factory.mktemp("run"), size)
    for count in counts:
        assert np.array_equal(pool.blocks(count).read(), rows(np.arange(count)))
        assert pool.blocks(count).missing() == 0
        found = pool.blocks(count, "features").read()
        assert np.array_equal(found["a"], rows(np.arange(count)))
        assert np.array_equal(found["b"], np.arange(count) / 7)
    assert sorted(pool.made) == sorted(2 * list(range(max(counts))))


@pytest.mark.parametrize("kind", ["tokens", "features"])
def test_a_pool_that_grew_has_the_files_of_one_that_was_made_at_once(tmp_path, kind):
    def files(folder):
        return {p.name: p.read_bytes() for p in (folder / "stages" / kind / "k").iterdir()}

    for count in (25, 3, 41):
        Pool(tmp_path / "grown").blocks(count, kind).read()
    Pool(tmp_path / "whole").blocks(41, kind).read()
    assert files(tmp_path / "grown") == files(tmp_path / "whole")
    assert len(files(tmp_path / "whole")) == 5


def test_only_a_damaged_block_is_made_again(tmp_path, capsys):
    pool = Pool(tmp_path)
    pool.blocks(40).read()
    path = tmp_path / "stages/tokens/k/00002.npy"
    held = bytearray(path.read_bytes())
    held[-70] ^= 1
    path.write_bytes(held)
    pool.made.clear()
    assert np.array_equal(pool.blocks(40).read(), rows(np.arange(40)))
    assert pool.made == list(range(20, 30))
    assert capsys.readouterr().err == f"warning: {path} is damaged; it is made again\n"


def test_rows_of_one_block_can_be_asked_for(tmp_path):
    pool = Pool(tmp_path)
    ids = np.arange(13, 17)
    assert np.array_equal(pool.blocks(40).of(ids), rows(ids))
    assert pool.made == list(range(10, 17))
    assert np.array_equal(pool.blocks(40, "features").of(ids)["b"], ids / 7)
    assert pool.blocks(40).missing() == 30


def test_a_block_that_raises_is_made_by_the_next_and_those_before_it_stay(tmp_path):
    def dies(ids):
        if ids[0] == 20:
            raise RuntimeError("killed")
        return rows(ids)

    with pytest.raises(RuntimeError):
        Blocks(Stages(tmp_path), "tokens", "k", 40, 10, dies).read()
    pool = Pool(tmp_path)
    assert np.array_equal(pool.blocks(40).read(), rows(np.arange(40)))
    assert pool.made == list(range(20, 40))
    assert {path.suffix for path in (tmp_path / "stages/tokens/k").iterdir()} == {".npy"}


def test_blocks_that_another_is_at_are_left_to_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    pool, folder = Pool(tmp_path), tmp_path / "stages/tokens/k"
    held = [Leases().acquire(folder / f"{index:05d}.lease") for index in (0, 2)]
    assert pool.blocks(30).help()
    assert not pool.blocks(30).help()
    assert pool.made == list(range(10, 20))
    calls = []

    def release(seconds):  # the other makes one of its blocks and gives up the second
        calls.append(seconds)
        if len(calls) == 3:
            pool.stages.write(folder / "00000.npy", rows(np.arange(10)))
            for lease in held:
                lease.release()

    monkeypatch.setattr(module.time, "sleep", release)
    assert np.array_equal(pool.blocks(30).read(), rows(np.arange(30)))
    assert pool.made == list(range(10, 30))
    said = f"waiting for another process, which holds {folder / '00000.lease'}\n"
    assert capsys.readouterr().err == said


def test_an_owner_that_lost_its_lease_writes_nothing(tmp_path):
    folder = tmp_path / "stages/tokens/k"

    def make(ids):
        (folder / "00000.lease").unlink()
        return rows(ids)

    assert len(Blocks(Stages(tmp_path), "tokens", "k", 5, 10, make).read()) == 5
    assert not list(folder.glob("*.npy"))


def test_old_temporary_files_of_killed_writers_are_swept(tmp_path):
    import os

    pool, folder = Pool(tmp_path), tmp_path / "stages/tokens/k"
    folder.mkdir(parents=True)
    for name, seconds in ((".tmp-00000.npy-1-aa", 0), (".tmp-00001.npy-2-bb", time.time())):
        (folder / name).write_text("x")
        os.utime(folder / name, (seconds, seconds))
    pool.blocks(10).read()
    assert sorted(p.name for p in folder.iterdir()) == [".tmp-00001.npy-2-bb", "00000.npy"]


def test_what_is_too_large_for_memory_is_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 100)
    found = Pool(tmp_path).blocks(40, "features").read()
    assert isinstance(found["a"], np.memmap)
    assert np.array_equal(found["a"], rows(np.arange(40)))
    assert [p.name for p in (tmp_path / "stages").iterdir()] == ["features"]
