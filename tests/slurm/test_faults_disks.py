"""Disks that fill up or cannot be written while jobs run; as root, on a small tmpfs."""

import contextlib
import os
import subprocess

import pytest

from maskgit.common.errors import UsageError
from slurm import status
from slurm.submission import keys_left
from slurm.watch import collect
from tests.slurm.slurm_doubles import (
    assert_sound,
    ended,
    request,
    resubmit,
    states,
    submit,
    wait_for,
)
from tests.slurm.test_faults_jobs import done_cells, wait_until_done

pytestmark = pytest.mark.slurm


@pytest.fixture
def disk(tmp_path):
    """A disk of four megabytes, and a function that mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        words = ["mount", "-t", "tmpfs", "-o", ",".join(("size=4m", *options)), "none", str(folder)]
        return subprocess.run(words, capture_output=True, text=True)

    done = mount()
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder, mount
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Take the last byte."""
    with open(folder / "filler", "wb", 0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk(on_cluster, code, profile, tmp_path, disk, capsys):
    run = disk[0] / "run"
    payload, work = request(run, 8, 0.7)
    submission = submit(payload, work, run, profile("max_array=2"), root=code)
    wait_for(lambda: done_cells(run, 2))
    fill(disk[0])
    wait_for(lambda: ended(submission))
    left = keys_left(submission.keys, run)
    assert left
    assert set(states(submission)) <= {"failed", "lost", "broken", "done"}
    assert sum(s.done for s in collect(submission)) == 8 - len(left)
    # Nothing can be submitted while it is full; that takes a line, and leaves no job behind.
    capsys.readouterr()
    assert status.main([str(run), "resubmit", "--failed"]) == 2
    said = f"error: --out {run}: cannot be written (No space left on device)\n"
    assert capsys.readouterr().err == said
    assert not on_cluster.run("squeue", "-h").stdout
    assert status.main([str(run)]) == 0
    os.unlink(disk[0] / "filler")
    again = resubmit(run, failed_too=True)
    assert sorted(again.keys) == sorted(left)
    wait_until_done(on_cluster, again)
    assert_sound(run, 8, tmp_path)


def test_a_store_that_cannot_be_written(on_cluster, code, profile, tmp_path, disk):
    folder, mount = disk
    run = folder / "run"
    payload, work = request(run, 4, 0.1)
    on_cluster.run("scontrol", "update", "PartitionName=local", "State=DOWN")
    submission = submit(payload, work, run, profile("max_array=2"), root=code)
    assert mount("remount", "ro").returncode == 0
    with pytest.raises(UsageError, match=r"--out .*: cannot be written"):
        submit(payload, work, run, profile("max_array=2"), root=code)
    on_cluster.run("scontrol", "update", "PartitionName=local", "State=UP")
    wait_for(lambda: ended(submission), 60, on_cluster)
    assert set(states(submission)) == {"lost"}
    assert len(keys_left(submission.keys, run)) == 4
    assert mount("remount", "rw").returncode == 0
    wait_until_done(on_cluster, resubmit(run))
    assert_sound(run, 4, tmp_path)
