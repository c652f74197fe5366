"""Where a preset's weights are looked for, and the record kept next to a downloaded file."""

import hashlib
import os
from dataclasses import replace

import pytest

from maskgit.checkpoints import load_transformer, zoo_path
from maskgit.checkpoints.paths import checkpoints_folder, model_path
from maskgit.common.errors import UsageError
from maskgit.common.files import cache_folder, sha256_of
from maskgit.common.records import (
    Record,
    check_file,
    check_size,
    read_record,
    record_path,
    write_record,
)
from maskgit.presets import load_preset

EMBEDDED, IMAGENET, PLACES = (load_preset(name) for name in ("embedded", "imagenet256", "places2"))
TRANSFORMER_FILE = "maskgit_imagenet256_checkpoint"
TOKENIZER_FILE = "tokenizer_imagenet256_checkpoint"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_own_folders_come_before_the_common_one_and_the_official_file(tmp_path, cache):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / TRANSFORMER_FILE).touch()
    assert model_path(IMAGENET, "transformer-sqrt", weights) == weights / TRANSFORMER_FILE
    (weights / "transformer").mkdir()
    assert model_path(IMAGENET, "transformer-sqrt", weights) == weights / "transformer"
    (weights / "transformer-sqrt").mkdir()
    assert model_path(IMAGENET, "transformer-sqrt", weights) == weights / "transformer-sqrt"
    assert model_path(IMAGENET, "transformer-cosine", weights) == weights / "transformer"
    (weights / TOKENIZER_FILE).touch()
    assert model_path(IMAGENET, "tokenizer", weights) == weights / TOKENIZER_FILE


def test_without_a_folder_it_is_the_zoo_or_what_fetch_got(cache):
    assert model_path(EMBEDDED, "tokenizer") == zoo_path("tokenizer")
    assert model_path(EMBEDDED, "transformer-cosine") == zoo_path("transformer-cosine")
    assert checkpoints_folder() == cache / "checkpoints"
    checkpoints_folder().mkdir(parents=True)
    (checkpoints_folder() / TRANSFORMER_FILE).touch()
    found = model_path(IMAGENET, "transformer-linear")
    assert found == cache / "checkpoints" / TRANSFORMER_FILE


def test_the_cache_is_below_home_without_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("MASKGIT_BENCH_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "maskgit-bench"


@pytest.mark.parametrize(
    ("preset", "name", "said"),
    [
        (IMAGENET, "tokenizer", ["no tokenizer and no tokenizer_imagenet256_checkpoint", "fetch"]),
        (
            IMAGENET,
            "transformer-cosine",
            ["no transformer-cosine and no transformer and no maskgit_imagenet256_checkpoint"],
        ),
        (
            IMAGENET,
            "autoregressive",
            ["has no autoregressive; train it", "autoregressive --p"],
        ),
        (PLACES, "tokenizer", ["has no tokenizer; train it with `python -m maskgit.training"]),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_missing_weights_say_where_they_were_looked_for(cache, preset, name, said, given):
    folder = cache / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        model_path(preset, name, folder if given else None)
    message = str(caught.value)
    start = f"--weights {folder}: " if given else f"--preset {preset.name}: "
    assert message.startswith(start)
    assert "\n" not in message
    # What was never released can only have been trained here.
    looked = folder if given or preset.official else preset.weights_folder
    for part in [str(looked), *said]:
        assert part in message


def test_networks_that_were_trained_here_are_found_where_training_puts_them(
    cache, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    own = replace(IMAGENET, name="shapes", official={})
    for preset in (own, IMAGENET):
        folder = preset.weights_folder / "transformer-cosine"
        folder.mkdir(parents=True)
        assert model_path(preset, "transformer-cosine") == folder
    with pytest.raises(UsageError, match=r"experiments/train\.py --preset FILE\.toml"):
        model_path(own, "tokenizer")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=f"--weights {tmp_path}/none: no such folder"):
        model_path(IMAGENET, "tokenizer", tmp_path / "none")


def test_an_official_file_of_another_size_than_recorded_is_refused(tmp_path):
    file = tmp_path / TOKENIZER_FILE
    file.write_bytes(b"whole")
    write_record(file, Record(5, hashlib.sha256(b"whole").hexdigest(), "u"))
    assert model_path(IMAGENET, "tokenizer", tmp_path) == file
    file.write_bytes(b"cut")
    with pytest.raises(UsageError, match="3 bytes, its record says 5; remove tokenizer_"):
        model_path(IMAGENET, "tokenizer", tmp_path)


def test_records_see_every_change_of_the_content(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"whole")
    check_file(file)  # nothing is known of it yet
    assert read_record(file) is None
    record = Record(5, hashlib.sha256(b"whole").hexdigest(), "https://example.org/file")
    write_record(file, record)
    assert read_record(file) == record
    assert sha256_of(file) == record.sha256
    check_file(file)
    before = file.stat().st_mtime_ns
    file.write_bytes(b"Whole")
    os.utime(file, ns=(before + 1, before + 1))
    check_size(file)  # cheap, and blind to this
    with pytest.raises(UsageError, match=rf"its record says {record.sha256}; remove file and fi"):
        check_file(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.record.json"]


def test_a_tampered_official_file_does_not_load(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    write_record(file, Record(10, "0" * 64, ""))
    with pytest.raises(UsageError, match="its record says 000"):
        load_transformer(file)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"size": 1}', '{"size": "a"}', "null"])
def test_an_unreadable_record_is_not_passed_over(tmp_path, content):
    file = tmp_path / "file"
    file.touch()
    record_path(file).write_text(content)
    with pytest.raises(UsageError, match=r"file.record.json: not a readable record") as caught:
        check_file(file)
    assert "\n" not in str(caught.value)
