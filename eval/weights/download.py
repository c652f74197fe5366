"""One file from the network: resumed where it broke off, checked, and only then in its place.

What has arrived lies in NAME.part beside the target; another attempt asks for the rest (HTTP
Range). A server that does not know ranges sends the whole file, which is taken from the start.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path

from maskgit.common.errors import Unavailable, UsageError, one_line

Progress = Callable[[int, int], None]
BLOCK = 1 << 20


def download(
    url: str,
    target: Path,
    *,
    sha256: str = "",
    size: int = 0,
    progress: Progress | None = None,
    attempts: int = 3,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> None:
    """Download a file to `target`.

    Args:
        url: http(s) address.
        target: where the file goes; its folder is made.
        sha256: what its digest must be, or how it must begin; "" checks nothing.
        size: expected bytes, 0 if unknown.
        progress: called as (bytes here, bytes in all or 0).
        attempts: connections to try; each goes on where the last one broke off.
        timeout: seconds without an answer after which an attempt ends.
        pause: seconds before the second attempt, twice as many before the third.

    Raises:
        Unavailable: the server cannot be reached, says no, or breaks off every time; what
            arrived stays for the next call.
        UsageError: another process downloads the same file, the folder cannot be written, or what
            arrived is not the expected file (it is deleted).
    """
    part = target.with_name(f"{target.name}.part")

    def fetch_all(file: BufferedRandom) -> None:
        _fetch_all(url, target, file, size, progress, attempts, timeout, pause)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part) as file:
            resumed = file.seek(0, os.SEEK_END) > 0
            fetch_all(file)
            reason = _wrong(file, sha256, size)
            if reason and resumed:  # perhaps the part was of another file: once more, all of it
                file.truncate(0)
                fetch_all(file)
                reason = _wrong(file, sha256, size)
            if reason:
                part.unlink()
                raise UsageError(f"{url}: {reason}; nothing was kept")
            os.fsync(file.fileno())
            os.replace(part, target)
    except (OSError, http.client.HTTPException) as error:
        raise UsageError(f"{target}: cannot be written ({one_line(error)})") from error


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BufferedRandom]:
    """The part file, opened for reading and appending, held by this process alone."""
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{part}: another process is downloading this file") from error
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            raise UsageError(f"{part}: another process has just downloaded this file")
        yield file


def _fetch_all(
    url: str,
    target: Path,
    file: BufferedRandom,
    size: int,
    progress: Progress | None,
    attempts: int,
    timeout: float,
    pause: float,
) -> None:
    """Bring the file to its full length, in as many connections as allowed."""
    reason = ""
    for attempt in range(attempts):
        time.sleep(pause * attempt)
        try:
            if _fetch_once(url, file, size, progress, timeout):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                break
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            reason = one_line(cause if isinstance(cause, BaseException) else error)
            if isinstance(cause, socket.gaierror):  # no such host, or no network at all
                break
    kept = file.seek(0, os.SEEK_END)
    if kept == 0:
        Path(file.name).unlink(missing_ok=True)
    rest = f"; {kept} bytes are kept for the next attempt" if kept else ""
    raise Unavailable(
        f"{url}: cannot be downloaded ({reason}){rest}; "
        f"a copy from elsewhere would belong to {target}"
    )


def _fetch_once(
    url: str, file: BufferedRandom, size: int, progress: Progress | None, timeout: float
) -> bool:
    """One connection; True if the file is complete after it."""
    here = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "maskgit-bench"})
    if here:
        request.add_header("Range", f"bytes={here}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not here:
            raise
        if here == size:
            return True  # nothing is left to ask for
        file.truncate(0)  # longer than the server's file: not a part of it
        return False
    with response:
        if response.status != 206 or not _starts_at(response, here):
            file.truncate(0)
            here = 0
        length = response.headers.get("Content-Length")
        total = here + int(length) if length else 0
        while block := response.read(BLOCK):
            file.write(block)
            here += len(block)
            if progress is not None:
                progress(here, total or size)
        file.flush()
    return here == total if total else True


def _starts_at(response: http.client.HTTPResponse, here: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {here}-")


def _wrong(file: BufferedRandom, sha256: str, size: int) -> str:
    """What is wrong with the bytes that arrived, or ''."""
    file.flush()
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256):
        return f"not the expected file ({length} bytes, sha256 {digest[:12]}, not {sha256[:12]})"
    if size and length != size:
        return f"not the expected file ({length} bytes, not {size})"
    return ""
