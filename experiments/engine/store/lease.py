"""Leases: a file says who works on a cell, so that no two runners do; a dead owner's is taken over.

A lease appears complete and only if there is none (a hard link to a finished temporary file, or
an O_EXCL file where links are not known). Its owner proves to be alive by its process on the same
host, and by a heartbeat (a thread rewrites the file) to other hosts. Clocks of two machines may
differ and may jump: an old heartbeat condemns nobody unless it also stands still while we watch.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.engine.store.owner import host_id, is_alive, process_start
from maskgit.common.files import make_way, open_regular

try:
    import fcntl
except ImportError:  # not on Windows: takeovers are then unguarded
    fcntl = None  # type: ignore[assignment]

POLL = 0.1  # seconds between two looks at a lease that is waited for


@dataclass(frozen=True)
class Seen:
    """A lease as somebody else reads it. `text` names one lease at one beat: no two are equal."""

    text: str
    mtime: float
    host: str = ""
    pid: int = 0
    start: str = ""


def read_lease(path: Path) -> Seen | None:
    """The lease at `path`, None if there is none. What is not a lease has an empty host.

    Raises:
        OSError: there is a file, but it cannot be read.
    """
    try:
        with open_regular(path) as file:
            text = file.read(4096).decode("utf-8", errors="replace")
            mtime = os.fstat(file.fileno()).st_mtime
    except OSError:
        return _not_a_file(path)
    try:
        value = json.loads(text)
        return Seen(text, mtime, str(value["host"]), int(value["pid"]), str(value["start"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Seen(f"{text}@{mtime}", mtime)


def _not_a_file(path: Path) -> Seen | None:
    """A folder, a pipe or a broken link where a lease should be; raises the error of a file."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        raise
    return Seen(f"no file@{found.st_mtime}", found.st_mtime)


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Only one process at a time removes leases in a folder; the lock dies with its process."""
    handle = None
    if fcntl is not None:
        handle = os.open(folder, os.O_RDONLY)
        # Some network file systems know no locks. Then the check of the text has to do.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


class Lease:
    """A lease we hold; use it in a `with` block. Leaving the block releases it."""

    def __init__(self, path: Path, identity: str, handle: int, beat_every: float):
        self.path, self._identity = path, identity
        self._handle, self._beat_every = handle, beat_every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {path}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        # Through the open file, not through its name: after a takeover the name is somebody else's.
        while not self._ended.wait(self._beat_every):
            with contextlib.suppress(OSError):
                os.pwrite(self._handle, _lease_text(self._identity).encode("utf-8"), 0)
                os.fsync(self._handle)  # or other hosts would not see it for long

    def is_mine(self) -> bool:
        """Whether the file still is our lease (a host that slept may have lost it)."""
        return _is_of(self.path, self._identity)

    def release(self) -> None:
        """Remove the lease if it still is ours. Safe to call twice."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        os.close(self._handle)
        with contextlib.suppress(OSError), _guard(self.path.parent):
            if self.is_mine():
                self.path.unlink()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def say_waiting(path: Path) -> None:
    """A line on stderr for whoever wonders why nothing happens."""
    print(f"waiting for another process, which holds {path}", file=sys.stderr, flush=True)


def _is_of(path: Path, identity: str) -> bool:
    """Whether the lease at `path` is that of an owner. One that cannot be read is nobody's."""
    with contextlib.suppress(OSError):
        seen = read_lease(path)
        return seen is not None and seen.text.startswith(identity)
    return False


def _lease_text(identity: str) -> str:
    # Ten digits and three: every beat is as long as the last, so no reader finds an older end.
    return f'{identity}"heartbeat": {time.time():014.3f}}}\n'


class Leases:
    """Takes leases and judges those of others. Keep one per process: it remembers what it saw.

    Args:
        beat_every: seconds between two heartbeats of a lease that we hold.
        stale_after: age in seconds from which a heartbeat of another host counts as too old.
        monotonic, wall: clocks, to be replaced in tests.
    """

    def __init__(
        self,
        beat_every: float = 10.0,
        stale_after: float = 120.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ):
        self.beat_every, self.stale_after = beat_every, stale_after
        self._monotonic, self._wall = monotonic, wall
        self._watched: dict[Path, tuple[str, float]] = {}

    def is_dead(self, path: Path, seen: Seen) -> bool:
        """Whether the owner of a lease will never come back.

        Same host: its process is gone, or the number now belongs to another process. Other host:
        the heartbeat is older than `stale_after` and stood still for three beats while we watched,
        or it stood still for all of `stale_after` whatever the clocks say. So the first look at
        another host's lease never condemns it.
        """
        if seen.host == host_id():
            return not is_alive(seen.pid, seen.start)
        now = self._monotonic()
        text, since = self._watched.get(path, ("", now))
        if text != seen.text:
            self._watched[path] = (seen.text, now)
            return False
        still = now - since
        is_old = self._wall() - seen.mtime > self.stale_after
        return still > self.stale_after or (is_old and still > 3 * self.beat_every)

    def acquire(self, path: Path, condemned: str | None = None) -> Lease | None:
        """Take the lease at `path`; None if somebody alive holds it.

        Args:
            path: the lease file; its folder is made if there is none.
            condemned: text of a lease that this host already judged dead (a runner judges, one of
                its workers takes over).

        Raises:
            OSError: the folder cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            lease = self._create(path)
            if lease is not None:
                return lease
            seen = read_lease(path)
            if seen is None:
                continue  # released this moment
            if seen.text != condemned and not self.is_dead(path, seen):
                return None
            self.remove(path, seen.text)

    def wait(self, path: Path, patience: float) -> Lease:
        """Take the lease at `path`, however long somebody else holds it.

        patience: seconds after which a line on stderr says what is waited for.

        Raises:
            OSError: the folder cannot be written.
        """
        began, said = time.monotonic(), False
        while (lease := self.acquire(path)) is None:
            if not said and time.monotonic() - began >= patience:
                say_waiting(path)
                said = True
            time.sleep(POLL)
        return lease

    def remove(self, path: Path, text: str) -> None:
        """Remove the dead lease that reads `text`; one that was taken over meanwhile stays."""
        with _guard(path.parent):
            seen = read_lease(path)
            if seen is not None and seen.text == text:
                make_way(path)
                path.unlink(missing_ok=True)
        self._watched.pop(path, None)

    def _create(self, path: Path) -> Lease | None:
        pid = os.getpid()
        owner = {
            "host": host_id(),
            "pid": pid,
            "start": process_start(pid),
            "token": secrets.token_hex(8),
        }
        identity = json.dumps(owner)[:-1] + ", "
        text = _lease_text(identity)
        temporary = path.parent / f".lease-{pid}-{owner['token']}"
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            unwritten = text.encode("utf-8")
            while unwritten:  # a write may take less than it is given
                unwritten = unwritten[os.write(handle, unwritten) :]
            _link(temporary, path)
        except FileExistsError:
            # Of a repeated request a network file system tells the second reply: it may be ours.
            if not _is_of(path, identity):
                os.close(handle)
                return None
        except BaseException:
            os.close(handle)
            raise
        finally:
            temporary.unlink(missing_ok=True)
        return Lease(path, identity, handle, self.beat_every)


def _link(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless the name is taken (FileExistsError)."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # No hard links here: claim the name first, then put the finished file in its place.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            os.replace(temporary, path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
