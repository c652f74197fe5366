"""Fetch a preset's official files, and keep what was seen of them the first time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from maskgit.checkpoints.paths import OFFICIAL_URL
from maskgit.common.download import Progress, download
from maskgit.common.errors import UsageError
from maskgit.common.files import sha256_of
from maskgit.common.records import (
    Record,
    check_file,
    read_record,
    record_path,
    write_record,
)
from maskgit.presets import Preset


def fetch(
    preset: Preset,
    role: str,
    folder: Path,
    base_url: str = OFFICIAL_URL,
    progress: Progress = lambda done, total: None,
) -> tuple[Path, Record, str]:
    """Have one official file of a preset in `folder`, checked.

    No checksums are published. So the first file that arrives, or that was put there by hand, is
    read as the preset's model and its size and sha256 recorded next to it; ever after the file must
    be that one, a new download too.

    role: "tokenizer" or "transformer". progress: see maskgit.common.download.download.
    Returns the file, its record, and what was done: "fetched", "there already" or "recorded".

    Raises:
        UsageError: the preset has no such file, the download failed, or the file is not the model
            it should be or not the recorded one. A download that is refused is removed.
    """
    if role not in preset.official:
        raise UsageError(f"--preset {preset.name}: no official {role} was released")
    file = folder / preset.official[role]
    url = f"{base_url.rstrip('/')}/{file.name}"
    record = read_record(file)
    if file.exists():
        if record is not None:
            check_file(file)
            return file, record, "there already"
        _check_model(preset, role, file)
        record = Record(file.stat().st_size, sha256_of(file), "")
        write_record(file, record)
        return file, record, "recorded"

    def check(partial: Path) -> None:
        nonlocal record
        got = Record(partial.stat().st_size, sha256_of(partial), url)
        if record is None:
            _check_model(preset, role, partial)
            record = got
        elif (got.size, got.sha256) != (record.size, record.sha256):
            raise UsageError(
                f"{url}: {got.size} bytes with sha256 {got.sha256}, recorded were {record.size} "
                f"with {record.sha256}; remove {record_path(file)} to trust the server's file anew"
            )

    download(url, file, check, progress=progress)
    assert record is not None
    write_record(file, record)
    return file, record, "fetched"


def _check_model(preset: Preset, role: str, file: Path) -> None:
    """Read the file and compare its sizes with the preset's; heads are the file's own affair."""
    from maskgit.checkpoints.folder import load_tokenizer, load_transformer

    if role == "tokenizer":
        tokenizer = load_tokenizer(file).config
        if tokenizer != preset.tokenizer:
            raise UsageError(f"{file}: {tokenizer}, --preset {preset.name} has {preset.tokenizer}")
        return
    got = load_transformer(file, num_codes=preset.num_codes).config
    shape = preset.transformer
    expected = replace(
        got,
        num_codes=preset.num_codes,
        num_classes=preset.num_classes,
        num_tokens=preset.num_tokens,
        width=shape.width,
        layers=shape.layers,
        mlp=shape.mlp,
    )
    if got != expected:
        raise UsageError(f"{file}: {got}, --preset {preset.name} has {expected}")
