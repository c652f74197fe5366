"""The store: whole files or none, and no result is believed that does not fit its checksum."""

import errno
import json
import os
import time

import numpy as np
import pytest

from experiments.engine.cells import Outcome
from experiments.engine.run.execute import execute
from experiments.engine.store.lease import Leases
from experiments.engine.store.stages import Stages
from experiments.engine.store.store import Store, checksum
from maskgit.common.errors import UsageError
from maskgit.common.files import atomic_write
from tests.experiments.engine.engine_doubles import Trivial, task

OUTCOME = Outcome(
    metrics={"fid": {"id": "fid.x.v1", "value": 1.25}},
    missing={"is": "too few"},
    protocol={"features": "x"},
    arrays={"images": np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)},
)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    store.prepare()
    return store


def published(store, item):
    store.cell(item.key).mkdir(parents=True, exist_ok=True)
    store.publish(item, OUTCOME, {"seconds": 1.0})
    return store.cell(item.key) / "result.json"


def test_a_published_result_is_found_again_whole(store):
    item = task(3)
    path = published(store, item)
    result = json.loads(path.read_text())
    assert store.find(item).result == result
    assert result["metrics"] == OUTCOME.metrics
    assert result["missing"] == OUTCOME.missing
    assert result["protocol"] == OUTCOME.protocol
    assert (result["schema"], result["key"], result["cell"]) == (2, item.key, item.cell)
    assert set(result) == {
        "schema", "key", "cell", "metrics", "missing", "protocol", "files", "checksum"
    }  # fmt: skip
    with np.load(path.with_name("samples.npz")) as samples:
        assert np.array_equal(samples["images"], OUTCOME.arrays["images"])
    assert json.loads(path.with_name("timing.json").read_text()) == {"seconds": 1.0}


def test_the_checksum_is_the_one_of_the_contract(store):
    import hashlib

    result = json.loads(published(store, task(3)).read_text())
    body = {name: value for name, value in result.items() if name != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert result["checksum"] == hashlib.sha256(text.encode()).hexdigest()


def test_publishing_twice_gives_the_same_bytes(store):
    first = published(store, task(3)).read_bytes()
    assert published(store, task(3)).read_bytes() == first


def edit(path, change):
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(result))


def better(result):
    result["metrics"]["fid"]["value"] = 0.1


def resealed_for_another_cell(result):
    result["cell"]["index"] = 99
    result["checksum"] = checksum(result)


def resealed_with_another_key(result):
    result["key"] = "0" * 64
    result["checksum"] = checksum(result)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "truncated"),
        (lambda path: path.write_text("[]"), "schema"),
        (lambda path: edit(path, better), "checksum"),
        (lambda path: edit(path, lambda result: result.pop("checksum")), "checksum"),
        (lambda path: edit(path, lambda r: r.update(schema=1)), "schema"),
        (lambda path: edit(path, lambda r: r.update(extra=float("nan"))), "checksum"),
        (lambda path: edit(path, resealed_for_another_cell), "another cell"),
        (lambda path: edit(path, resealed_with_another_key), "another cell"),
    ],
)
def test_a_damaged_result_is_not_believed_and_computed_again(store, tmp_path, damage, says):
    item = task(3)
    path = published(store, item)
    good = path.read_bytes()
    damage(path)
    bad = path.read_bytes()
    assert store.find(item).result is None
    assert says in store.find(item).problem
    reply = execute(item, Trivial(tmp_path / "log"), store, Leases())
    assert reply.kind == "done"
    assert store.find(item).result is not None
    assert path.with_name("rejected.json").read_bytes() == bad != good


def test_a_result_that_is_a_folder_is_a_problem_and_not_a_crash(store):
    (store.cell(task(3).key) / "result.json").mkdir(parents=True)
    assert "cannot be read" in store.find(task(3)).problem


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_cell_that_cannot_be_written_fails_alone_and_is_computed_later(
    store, tmp_path, monkeypatch
):
    item, computer = task(3), Trivial(tmp_path / "log")
    replace = os.replace

    def full(source, target):
        if str(target).endswith("result.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    reply = execute(item, computer, store, Leases())
    assert (reply.kind, "No space" in reply.error) == ("failed", True)
    failure = store.cell(item.key) / "failure.json"
    assert "No space" in json.loads(failure.read_text())["error"]
    left = {path.name for path in store.cell(item.key).iterdir()}
    assert left == {"failure.json", "samples.npz", "timing.json"}
    monkeypatch.undo()
    assert execute(item, computer, store, Leases()).kind == "done"
    assert not failure.exists()


def test_a_store_that_takes_no_lease_fails_the_cell_and_not_the_run(store, tmp_path):
    (store.root / "cells").rmdir()
    (store.root / "cells").write_text("in the way")
    reply = execute(task(3), Trivial(tmp_path / "log"), store, Leases())
    assert reply.kind == "failed"
    assert not (tmp_path / "log").exists()


def test_failures_count_their_attempts_over_runs(store, tmp_path):
    item, computer = task(3, "raise"), Trivial(tmp_path / "log")
    for attempt in (1, 2):
        reply = execute(item, computer, store, Leases())
        assert reply.error == "ValueError: cell 3 does not want to be computed"
        failure = json.loads((store.cell(item.key) / "failure.json").read_text())
        assert failure["attempts"] == attempt
        assert failure["error"] == reply.error
        assert "Traceback" in failure["traceback"]
    (store.cell(item.key) / "failure.json").write_text("{")
    execute(item, computer, store, Leases())
    assert json.loads((store.cell(item.key) / "failure.json").read_text())["attempts"] == 1


def test_an_outcome_that_is_not_finite_is_a_failure(store):
    class Broken(Trivial):
        def compute(self, item):
            return Outcome(metrics={"fid": {"id": "x", "value": float("nan")}})

    reply = execute(task(3), Broken(store.root / "log"), store, Leases())
    assert reply.kind == "failed"
    assert store.find(task(3)).result is None


def test_what_a_killed_owner_left_is_swept_and_what_a_rival_writes_is_not(store, tmp_path):
    item = task(3)
    folder = store.cell(item.key)
    folder.mkdir(parents=True)
    for name in (".tmp-result.json-1-aa", ".lease-1-old", ".lease-2-new"):
        (folder / name).write_text("x")
    os.utime(folder / ".lease-1-old", (0, 0))
    execute(item, Trivial(tmp_path / "log"), store, Leases())
    left = {path.name for path in folder.iterdir()}
    assert left == {"result.json", "samples.npz", "timing.json", ".lease-2-new"}


def test_a_clock_that_jumped_sweeps_no_file_that_is_being_written(store, monkeypatch):
    old, young = store.root / ".tmp-grid.json-1-aa", store.root / ".tmp-grid.json-2-bb"
    for path in (old, young):
        path.write_text("x")
    os.utime(old, (0, 0))
    monkeypatch.setattr(time, "time", lambda: 1e10)
    store.prepare()
    assert [path.name for path in store.root.glob(".tmp-*")] == [young.name]


def test_a_host_that_lost_its_lease_while_computing_publishes_nothing(store, tmp_path):
    item = task(3)

    class Slept(Trivial):
        def compute(self, item):
            store.lease_path(item.key).unlink()  # another host took over, meanwhile
            return super().compute(item)

    assert execute(item, Slept(tmp_path / "log"), store, Leases()).kind == "busy"
    assert store.find(item).result is None


def test_a_cell_finished_between_the_look_and_the_lease_is_not_computed_again(store, tmp_path):
    published(store, task(3))
    assert execute(task(3), Trivial(tmp_path / "log"), store, Leases()).kind == "cached"
    assert not (tmp_path / "log").exists()


def test_out_must_be_a_folder_that_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"--out .*give a folder"):
            Store(path).prepare()

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("experiments.engine.store.store.atomic_write", refuse)
    with pytest.raises(UsageError, match=r"--out .*Permission denied"):
        Store(tmp_path / "run").prepare()


def test_old_temporary_files_of_killed_writers_are_swept_at_the_start(store):
    old = [store.root / ".tmp-grid.json-1-aa", store.root / "stages" / "tokens" / ".tmp-k.npy-1-aa"]
    new = [store.root / ".tmp-grid.json-2-bb"]
    old[1].parent.mkdir()
    for path in old + new:
        path.write_text("x")
    for path in old:
        os.utime(path, (0, 0))
    store.prepare()
    assert not any(path.exists() for path in old)
    assert new[0].exists()


# ---- stages --------------------------------------------------------------------------------------


def test_a_stage_is_made_once_and_read_back(tmp_path):
    stages, made = Stages(tmp_path), []

    def tokens():
        made.append(1)
        return np.arange(6, dtype=np.uint16).reshape(2, 3)

    def arrays():
        made.append(2)
        return {"features": np.ones((2, 4), np.float32)}

    def value():
        made.append(3)
        return {"value": 1.5}

    for _ in range(2):
        assert np.array_equal(stages.kept("tokens", "k", tokens, 2), tokens())
        assert np.array_equal(stages.kept("features", "k", arrays, 2)["features"], np.ones((2, 4)))
        assert stages.kept("likelihood", "k", value) == {"value": 1.5}
    assert [made.count(stage) for stage in (1, 2, 3)] == [3, 1, 1]  # tokens: two by the test
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert files == [
        "stages/features/k.npz",
        "stages/likelihood/k.json",
        "stages/tokens/k.npy",
    ]


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "flip"])
def test_a_damaged_stage_is_made_again_with_a_line_of_warning(tmp_path, capsys, damage):
    stages = Stages(tmp_path)
    tokens = np.arange(6, dtype=np.uint16).reshape(2, 3)
    arrays = {"features": np.ones((2, 4), np.float32)}
    stages.kept("tokens", "k", lambda: tokens, 2)
    stages.kept("features", "k", lambda: arrays, 2)
    stages.kept("likelihood", "k", lambda: {"value": 1.5})
    for path in (tmp_path / "stages").rglob("k.*"):
        content = path.read_bytes()
        if damage == "flip":
            middle = len(content) // 2
            flipped = bytes([content[middle] ^ 1])
            path.write_bytes(content[:middle] + flipped + content[middle + 1 :])
        else:
            path.write_bytes({"cut": content[:-9], "empty": b"", "other": b"{}"}[damage])
    assert np.array_equal(
        stages.kept("features", "k", lambda: arrays, 2)["features"], arrays["features"]
    )
    assert stages.kept("likelihood", "k", lambda: {"value": 1.5}) == {"value": 1.5}
    assert np.array_equal(stages.kept("tokens", "k", lambda: tokens, 2), tokens)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("warning: ") and "made again" in line for line in lines)


def test_a_stage_of_another_size_is_made_again(tmp_path, capsys):
    stages = Stages(tmp_path)
    stages.kept("tokens", "k", lambda: np.zeros((2, 3), np.uint16), 2)
    assert len(stages.kept("tokens", "k", lambda: np.zeros((4, 3), np.uint16), 4)) == 4
    stages.kept("features", "k", lambda: {"features": np.zeros((2, 3))}, 2)
    again = stages.kept("features", "k", lambda: {"features": np.zeros((4, 3))}, 4)
    assert len(again["features"]) == 4
    assert capsys.readouterr().err.count("warning") == 2


def test_two_that_want_one_value_make_it_once(tmp_path):
    import threading
    import time

    made, got = [], []

    def make():
        made.append(1)
        time.sleep(0.3)
        return {"value": 2.0}

    threads = [
        threading.Thread(target=lambda: got.append(Stages(tmp_path).kept("likelihood", "k", make)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert got == [{"value": 2.0}] * 3
