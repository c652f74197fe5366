"""Fetch a file over HTTP: goes on where it was interrupted, and appears whole or not at all.

What has arrived is kept beside the target as NAME.TAG.part, where TAG stands for the address and
the version that the server names (its ETag); after an interruption the same call goes on from
there. A file that is complete and refused is removed.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import sha256_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Progress = Callable[[int, int | None], None]  # bytes on disk, bytes in all if the server says so
PAUSE = 1.0  # seconds before the second attempt, one more before each further one
_ATTEMPTS = 4
_BLOCK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_TRY_AGAIN = (408, 429)  # and 500 to 599


@dataclass(frozen=True)
class _Reply:
    """One response: where its bytes belong, how many there will be in all, of which version."""

    stream: http.client.HTTPResponse
    offset: int
    total: int | None
    tag: str


def download(
    url: str,
    target: Path,
    check: Callable[[Path], None] | None = None,
    *,
    sha256: str = "",
    size: int = 0,
    progress: Progress | None = None,
) -> None:
    """Fetch `url` to `target`, whose folder is made.

    Args:
        url: http(s) address.
        target: where the file goes.
        check: called with the whole file before it gets its name; raises UsageError to refuse it.
        sha256: what its digest must be, or how it must begin; "" checks nothing.
        size: its number of bytes; 0 if unknown.
        progress: called as (bytes on disk, bytes in all if the server says so).

    Raises:
        Unavailable: the server cannot be reached, refuses, or loses the connection for good; what
            has arrived stays for the next call.
        UsageError: the file is not the expected one (it is removed), another process is fetching
            it, or the disk is full. `target` is then as it was.
    """
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url}: expected an address that starts with https:// or http://")
    say = progress or (lambda done, total: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            resumed = bool(_partial_files(target))
            partial = _complete(url, target, size, say)
            try:
                try:
                    _check(url, partial, sha256, size, check)
                except UsageError:
                    if not resumed:
                        raise
                    # Perhaps the part was of another file: fetch all of it, once.
                    partial.unlink()
                    partial = _complete(url, target, size, say)
                    _check(url, partial, sha256, size, check)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error})") from None


def _check(
    url: str, file: Path, sha256: str, size: int, check: Callable[[Path], None] | None
) -> None:
    length = file.stat().st_size
    if sha256 and not (got := sha256_of(file)).startswith(sha256):
        raise UsageError(
            f"{url}: not the expected file ({length} bytes, sha256 {got[:12]}, not {sha256[:12]}); "
            "nothing was kept"
        )
    if size and length != size:
        raise UsageError(
            f"{url}: not the expected file ({length} bytes, not {size}); nothing was kept"
        )
    if check is not None:
        check(file)


def _partial_files(target: Path) -> list[Path]:
    return sorted(target.parent.glob(f"{glob.escape(target.name)}.*.part"))


class _Again(Exception):
    """A request that may succeed when it is repeated; `restart`: without what has arrived."""

    def __init__(self, reason: str, restart: bool = False):
        super().__init__(reason)
        self.restart = restart


def _complete(url: str, target: Path, size: int, progress: Progress) -> Path:
    """The partial file with all bytes in it, on the disk."""
    reason = ""
    failures = 0  # in a row, without a byte more than ever before: so the loop comes to an end
    most = max((file.stat().st_size for file in _partial_files(target)), default=0)
    while failures < _ATTEMPTS:
        time.sleep(PAUSE * failures)
        partial = next(iter(_partial_files(target)), None)
        before = partial.stat().st_size if partial else 0
        if partial is not None and before == size:
            return partial
        try:
            reply = _request(url, target, before)
            expected = target.with_name(f"{target.name}.{reply.tag}.part")
            if partial is not None and (partial != expected or reply.offset != before):
                # It is of another version, or the server sends everything again.
                partial.unlink()
                if reply.offset:
                    reply.stream.close()
                    raise _Again("the server's file has changed")
            _check_space(target, reply)
            done = _append(reply, expected, progress)
            if reply.total is None or done == reply.total:
                return expected
            reason = f"after {done} of {reply.total} bytes"
        except _Again as again:
            reason = str(again)
            if again.restart and partial is not None:
                partial.unlink()
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
        here = max((file.stat().st_size for file in _partial_files(target)), default=0)
        failures = 0 if here > most else failures + 1
        most = max(most, here)
    if not _partial_files(target):
        raise _unreachable(url, target, reason)
    raise Unavailable(
        f"{url}: the connection was lost {_ATTEMPTS} times ({reason}); the same command goes on "
        f"from what has arrived"
    )


def _request(url: str, target: Path, offset: int) -> _Reply:
    """Ask for the bytes from `offset` on; the server may send all of them instead.

    Raises:
        Unavailable: it will not get better.
        _Again: it may.
    """
    headers = {"User-Agent": "maskgit-bench", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        stream = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code} {error.reason}"
        if error.code == 416 and offset:  # nothing from there on: start again to be sure
            raise _Again(reason, restart=True) from None
        if error.code >= 500 or error.code in _TRY_AGAIN:
            raise _Again(reason) from None
        raise _unreachable(url, target, reason) from None
    except (http.client.HTTPException, OSError) as error:  # URLError is an OSError
        cause = getattr(error, "reason", error)
        reason = str(cause) or type(cause).__name__
        if isinstance(cause, TimeoutError | ConnectionResetError | http.client.HTTPException):
            raise _Again(reason) from None
        raise _unreachable(url, target, reason) from None
    total: int | None
    if stream.status == 206:
        sent = re.fullmatch(
            r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})",
            stream.headers.get("Content-Range", ""),
        )
        if sent is None or int(sent[1]) != offset or int(sent[2]) + 1 != int(sent[3]):
            stream.close()
            raise _Again("it sends another part of the file than it is asked for", restart=True)
        total = int(sent[3])
    else:
        offset = 0
        length = stream.headers.get("Content-Length", "")
        if length and not re.fullmatch(r"[0-9]{1,18}", length):
            stream.close()
            raise _unreachable(url, target, f"its Content-Length is {length[:40]!r}")
        total = int(length) if length else None
    version = stream.headers.get("ETag") or stream.headers.get("Last-Modified") or ""
    tag = hashlib.sha256(f"{url} {version}".encode()).hexdigest()[:8]
    return _Reply(stream, offset, total, tag)


def _append(reply: _Reply, partial: Path, progress: Progress) -> int:
    """Write what comes to the disk; returns the size of the file."""
    done = reply.offset
    with reply.stream, partial.open("r+b" if done else "wb") as file:
        file.seek(done)
        try:
            while block := reply.stream.read(_BLOCK):
                file.write(block)
                done += len(block)
                progress(done, reply.total)
        finally:
            file.flush()
            os.fsync(file.fileno())
    return done


def _check_space(target: Path, reply: _Reply) -> None:
    missing = (reply.total or 0) - reply.offset
    free = shutil.disk_usage(target.parent).free
    if missing > free:
        reply.stream.close()
        raise OSError(errno.ENOSPC, f"it needs {missing} bytes, the disk has {free}")


def _unreachable(url: str, target: Path, reason: str) -> Unavailable:
    return Unavailable(
        f"{url}: cannot be fetched ({reason}); without a network, download it elsewhere, save it "
        f"as {target} and give the same command again"
    )


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep a second download of the same file out; the system frees the lock of a dead process."""
    if fcntl is None:
        yield
        return
    lock = target.with_name(f".{target.name}.lock")
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = lock.exists() and os.path.samestat(os.fstat(handle.fileno()), lock.stat())
        except BlockingIOError:
            mine = False
        if not mine:  # or a lock that was removed between opening and locking it
            raise UsageError(f"{target}: another process is fetching it")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
