"""Fetch a file over HTTP: goes on where it was interrupted, and appears whole or not at all.

What has arrived is kept beside the target as NAME.TAG.part, where TAG stands for the version that
the server names (its ETag); after an interruption the same call goes on from there. A file that is
complete and refused is removed.
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

from maskgit.common.errors import UsageError

Progress = Callable[[int, int | None], None]  # bytes on disk, bytes in all if the server says so
_BLOCK = 1 << 20
_ATTEMPTS = 4
_PAUSE = 1.0  # seconds, once more after each failure
_TIMEOUT = 30.0  # seconds without a byte


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
    check: Callable[[Path], None],
    progress: Progress = lambda done, total: None,
) -> None:
    """Fetch `url` to `target`.

    check: called with the whole file before it gets its name; raises UsageError to refuse it.

    Raises:
        UsageError: the server cannot be reached or refuses, the connection was lost for good, the
            disk is full, or `check` refused the file. `target` is then as it was.
    """
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url}: expected an address that starts with https:// or http://")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            partial = _complete(url, target, progress)
            try:
                check(partial)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error})") from None


def _complete(url: str, target: Path, progress: Progress) -> Path:
    """The partial file with all bytes in it, on the disk."""
    failures, reason = 0, ""
    while failures < _ATTEMPTS:  # in a row, without a byte more
        time.sleep(_PAUSE * failures)
        partial = next(iter(sorted(target.parent.glob(f"{glob.escape(target.name)}.*.part"))), None)
        before = partial.stat().st_size if partial else 0
        reply = _request(url, target, before)
        expected = target.with_name(f"{target.name}.{reply.tag}.part")
        if partial is not None and (partial != expected or reply.offset != before):
            # It is of another version, or the server sends everything again.
            partial.unlink()
            if reply.offset:
                reply.stream.close()
                continue
        _check_space(target, reply)
        try:
            done = _append(reply, expected, progress)
            if reply.total is None or done == reply.total:
                return expected
            reason = f"after {done} of {reply.total} bytes"
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
        failures = 0 if expected.stat().st_size > before else failures + 1
    raise UsageError(
        f"{url}: the connection was lost {_ATTEMPTS} times ({reason}); the same command goes on "
        f"from what has arrived"
    )


def _request(url: str, target: Path, offset: int) -> _Reply:
    """Ask for the bytes from `offset` on; the server may send all of them instead."""
    headers = {"User-Agent": "maskgit-bench", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        stream = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:  # nothing from there on: start again to be sure
            return _request(url, target, 0)
        raise _unreachable(url, target, f"HTTP {error.code} {error.reason}") from None
    except (http.client.HTTPException, OSError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        raise _unreachable(url, target, str(reason) or type(error).__name__) from None
    total: int | None
    if stream.status == 206:
        sent = re.match(r"bytes (\d+)-\d+/(\d+)$", stream.headers.get("Content-Range", ""))
        if sent is None or int(sent[1]) != offset:
            stream.close()
            return _request(url, target, 0)
        total = int(sent[2])
    else:
        offset = 0
        length = stream.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
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


def _unreachable(url: str, target: Path, reason: str) -> UsageError:
    return UsageError(
        f"{url}: cannot be fetched ({reason}); without a network, download it elsewhere, save it "
        f"as {target} and give the same command again"
    )


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep a second download of the same file out; the system frees the lock of a dead process."""
    try:
        import fcntl
    except ImportError:  # Windows
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
