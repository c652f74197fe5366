"""Size and sha256 of a file, written next to it when it is first used.

Where nobody publishes checksums, as for the official checkpoints, the first download is trusted and
every later use is held against it. A file without a record is not checked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from maskgit.common.errors import UsageError
from maskgit.common.files import read_json, sha256_of, write_json


@dataclass(frozen=True)
class Record:
    """What is known about a file."""

    size: int  # bytes
    sha256: str  # hexadecimal
    url: str  # where it came from; empty for a file that was put there by hand


def record_path(file: Path) -> Path:
    """Where the record of a file is kept."""
    return file.with_name(f"{file.name}.record.json")


def read_record(file: Path) -> Record | None:
    """The record of a file, or None if there is none.

    Raises:
        UsageError: the record is there but not readable; without it nothing could be checked.
    """
    path = record_path(file)
    if not path.exists():
        return None
    try:
        content = read_json(path)
        return Record(int(content["size"]), str(content["sha256"]), str(content["url"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UsageError(
            f"{path}: not a readable record ({error}); remove it to trust {file.name} anew"
        ) from None


def write_record(file: Path, record: Record) -> None:
    """Write the record of a file, whole or not at all; raises UsageError if it cannot be."""
    write_json(record_path(file), asdict(record))


def check_size(file: Path) -> None:
    """Compare a file's size with its record, if it has one; reads nothing of the file.

    Raises:
        UsageError: they differ.
    """
    record = read_record(file)
    size = file.stat().st_size
    if record is not None and size != record.size:
        raise _mismatch(file, f"{size} bytes", str(record.size))


def check_file(file: Path) -> None:
    """Compare a file's size and sha256 with its record, if it has one.

    Raises:
        UsageError: they differ.
    """
    record = read_record(file)
    if record is None:
        return
    check_size(file)
    if sha256_of(file) != record.sha256:
        raise _mismatch(file, f"sha256 {sha256_of(file)}", record.sha256)


def _mismatch(file: Path, got: str, expected: str) -> UsageError:
    return UsageError(
        f"{file}: {got}, its record says {expected}; remove {file.name} and "
        f"{record_path(file).name} to fetch it again"
    )
