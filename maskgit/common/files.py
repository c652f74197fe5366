"""Files that appear whole or not at all, checked JSON, sha256 of files, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from maskgit.common.errors import UsageError, one_line

CACHE_VARIABLE = "MASKGIT_BENCH_CACHE"


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write, which replaces `path` at once when the block ends without an error.

    A reader, or a crash, finds the old bytes or the new ones. The temporary file lies in the same
    folder and is named .tmp-NAME-*.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; the old file is then
            untouched.
    """
    temporary = path.parent / f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Replace a file at once; see `atomic_file`.

    Raises:
        OSError: as for `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def output_file(path: Path, flag: str = "") -> Iterator[IO[bytes]]:
    """`atomic_file` for a path that the user named: its folder is made, and errors are one line.

    flag: the flag that named the path, for the message.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            yield file
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UsageError(f"{flag} {path}: cannot be written ({reason})".lstrip()) from error


def _sync_folder(folder: Path) -> None:
    # Without this the new name may be lost with the power, although the bytes are on the disk.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_way(path: Path) -> None:
    """Rename a folder, a link or whatever else is no regular file away from a path of ours.

    Raises:
        OSError: the folder is not writable.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            path.rename(path.parent / f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def open_regular(path: Path) -> IO[bytes]:
    """A file to read, never one that keeps its reader waiting, as a named pipe does.

    Raises:
        OSError: it is missing, may not be read, or is no regular file.
    """
    # Windows has neither such pipes nor the flag.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path) -> bytes:
    """The content of a file; raises as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def describe(content: bytes) -> dict[str, Any]:
    """Size and sha256 of a file's content, for `read_described`."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read_described(path: Path, description: object) -> bytes:
    """The content of a file that must be as `describe` described it.

    Raises:
        UsageError: it is missing, cannot be read, or is another.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})") from None
    if describe(content) != description:
        raise UsageError("does not match its sha256 (edited, damaged or of another cell)")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UsageError: the file is missing, cannot be read, or holds no JSON object.
    """
    try:
        content = json.loads(read_regular(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 are a ValueError
        raise UsageError(f"{path}: not readable as JSON ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def json_bytes(content: Any) -> bytes:
    """JSON for people and programs: sorted keys, indented, ASCII; equal content, equal bytes.

    Raises:
        ValueError, TypeError: the content is not finite plain data.
    """
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False)
    return (text + "\n").encode("ascii")


def write_json(path: Path, content: Any, flag: str = "") -> None:
    """Write `json_bytes` of the content with `output_file`.

    Raises:
        UsageError: the file cannot be written.
        ValueError, TypeError: the content is not finite plain data.
    """
    data = json_bytes(content)
    with output_file(path, flag) as file:
        file.write(data)


def sha256_of(path: str | Path) -> str:
    """sha256 of a file in hexadecimal, remembered while its size and time of change stay.

    Raises:
        OSError: the file cannot be read.
    """
    stat = os.stat(path)
    return _sha256(os.path.realpath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=256)
def _sha256(path: str, size: int, changed: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where downloads and built files are kept: $MASKGIT_BENCH_CACHE or ~/.cache/maskgit-bench."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return without_tilde(chosen) if chosen else user_cache() / "maskgit-bench"


def user_cache() -> Path:
    """~/.cache, or a folder of the user among the temporary ones where nobody knows a home."""
    cache = without_tilde("~/.cache")
    return cache if cache.is_absolute() else Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"


def without_tilde(path: str | Path) -> Path:
    """The path with the home for `~`. A user without a home keeps the `~`, as in a shell."""
    return Path(os.path.expanduser(path))
