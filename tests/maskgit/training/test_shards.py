"""Shards of tokens: what is read is what was written, kills, damage, several writers."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit.common.errors import UsageError
from maskgit.training.shards import INDEX, ShardTokens, ShardWriter, shard_name
from maskgit.training.tokenize import TokenizeOptions, share_of_work, tokenize, verify_tokens
from tests.maskgit.training.training_doubles import make_folder, tiny_preset

SETTINGS = {"tokenizer_sha256": "abc", "num_codes": 16, "preset": "tiny"}


def some_tokens(count, crops=3, num_tokens=4):
    rng = np.random.default_rng(count)
    return rng.integers(0, 16, (count, crops, num_tokens)), rng.integers(0, 5, count)


def writer(folder, tokens, labels, shard_images=4, settings=SETTINGS, **more):
    _, crops, num_tokens = tokens.shape
    return ShardWriter(
        folder,
        labels,
        settings,
        crops=crops,
        num_tokens=num_tokens,
        shard_images=shard_images,
        **more,
    )


def write_all(folder, tokens, labels, **more):
    made = writer(folder, tokens, labels, **more)
    for number in made.todo():
        rows = made.rows(number)
        made.write(number, tokens[rows.start : rows.stop])
    return made.finish()


@pytest.fixture
def folder(tmp_path):
    tokens, labels = some_tokens(10)
    assert write_all(tmp_path, tokens, labels)
    return tmp_path


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 23), st.integers(1, 9), st.integers(1, 3), st.integers(0, 7))
def test_batches_are_the_written_rows(tmp_path_factory, count, shard_images, crops, epoch):
    tokens, labels = some_tokens(count, crops)
    folder = tmp_path_factory.mktemp("shards")
    write_all(folder, tokens, labels, shard_images=shard_images)
    source = ShardTokens(folder, "abc")
    picked = np.random.default_rng(epoch).integers(0, count, 8)
    found, classes = source.batch(picked, epoch)
    assert np.array_equal(found.numpy(), tokens[picked, epoch % crops])
    assert np.array_equal(classes.numpy(), labels[picked])
    assert found.dtype == classes.dtype == torch.int64
    assert len(source) == count
    epochs = np.arange(8)
    assert np.array_equal(source.batch(picked, epochs)[0].numpy(), tokens[picked, epochs % crops])


def test_shards_are_mapped_not_read(folder):
    source = ShardTokens(folder)
    assert all(isinstance(shard, np.memmap) for shard in source.shards)
    assert all(shard.dtype == np.uint16 for shard in source.shards)
    assert [len(shard) for shard in source.shards] == [4, 4, 2]


def test_index_says_how_the_tokens_were_made(folder):
    index = json.loads((folder / INDEX).read_text())
    assert index["settings"] | SETTINGS == index["settings"]
    assert {index["settings"][k] for k in ("images", "crops", "shard_images")} == {10, 3, 4}
    assert sorted(index["files"]) == ["labels.npy", *(shard_name(i) for i in range(3))]


def test_writers_share_the_shards(tmp_path):
    tokens, labels = some_tokens(10)
    parts = [writer(tmp_path, tokens, labels, process=k, processes=2) for k in range(2)]
    assert [part.todo() for part in parts] == [[0, 2], [1]]
    for part in parts:
        assert not part.finish()
        with pytest.raises(UsageError, match=r"no index\.json"):
            ShardTokens(tmp_path)
        for number in part.todo():
            rows = part.rows(number)
            part.write(number, tokens[rows.start : rows.stop])
    assert parts[0].finish()
    assert parts[1].finish()
    assert ShardTokens(tmp_path).verify() > 0


def _write_and_die(folder, tokens, labels, kill_in_shard):
    made = writer(folder, tokens, labels)
    for number in made.todo():
        if number == kill_in_shard:
            # In the middle of the file, before it has its name.
            os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        rows = made.rows(number)
        made.write(number, tokens[rows.start : rows.stop])


def test_killed_writer_keeps_finished_shards_and_leaves_no_half_one(tmp_path):
    tokens, labels = some_tokens(10)
    process = multiprocessing.get_context("fork").Process(
        target=_write_and_die, args=(tmp_path, tokens, labels, 1)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / shard_name(0)).is_file()
    assert not (tmp_path / shard_name(1)).exists()
    before = (tmp_path / shard_name(0)).stat().st_mtime_ns
    again = writer(tmp_path, tokens, labels)
    assert again.todo() == [1, 2]
    assert write_all(tmp_path, tokens, labels)
    assert (tmp_path / shard_name(0)).stat().st_mtime_ns == before
    assert ShardTokens(tmp_path).verify() > 0
    assert not list(tmp_path.glob(".*")), "what the kill left is still there"


def test_truncated_and_missing_files_are_found_when_the_folder_is_opened(folder):
    path = folder / shard_name(1)
    raw = path.read_bytes()
    path.write_bytes(raw[:-3])
    with pytest.raises(UsageError, match=rf"{shard_name(1)}: {len(raw) - 3} bytes, expected"):
        ShardTokens(folder)
    path.unlink()
    with pytest.raises(UsageError, match=rf"{shard_name(1)}: missing"):
        ShardTokens(folder)
    # The same command makes that one again.
    tokens, labels = some_tokens(10)
    assert writer(folder, tokens, labels).todo() == [1]
    assert write_all(folder, tokens, labels)
    assert path.read_bytes() == raw


@pytest.mark.parametrize("name", ["tokens-00001.npy", "labels.npy"])
def test_tampered_file_of_the_right_size_is_found_by_its_checksum(folder, name):
    path = folder / name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    source = ShardTokens(folder)
    with pytest.raises(UsageError, match=rf"{name}: sha256 .*, expected .*run tokenize again"):
        source.verify()
    with pytest.raises(UsageError, match=name):
        verify_tokens(folder)
    # Two processes that share the work read every file once.
    found = 0
    for process in range(2):
        try:
            source.verify(process, 2)
        except UsageError:
            found += 1
    assert found == 1


def test_token_that_is_no_code_is_found_when_it_is_used(folder):
    array = np.load(folder / shard_name(2), mmap_mode="r+")
    array[1, 0, 2] = 16
    array.flush()
    source = ShardTokens(folder)
    source.batch(np.arange(9), 0)
    with pytest.raises(UsageError, match=rf"{shard_name(2)}: token 16, expected 0 to 15"):
        source.batch(np.arange(10), 0)


def test_other_settings_are_refused_not_mixed_in(folder):
    tokens, labels = some_tokens(10)
    for settings_, rows in (({**SETTINGS, "seed": 1}, labels), (SETTINGS, labels[::-1])):
        with pytest.raises(UsageError, match="other settings"):
            writer(folder, tokens, rows, settings=settings_)
    with pytest.raises(UsageError, match="made with tokenizer abc, --tokenizer has def"):
        ShardTokens(folder, "def")


def test_damaged_index_is_one_line(folder):
    path = folder / INDEX
    for text, message in (("{", "not readable"), ('{"format": 9}', "format 9"), ("[]", "object")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            ShardTokens(folder)
    path.write_text('{"format": 1, "settings": {}, "files": {}}')
    with pytest.raises(UsageError, match="tokenizer_sha256' is missing"):
        ShardTokens(folder)


def tiny_tokenizer(path):
    from maskgit.checkpoints import save_model
    from maskgit.model.tokenizer import Tokenizer

    preset = replace(
        tiny_preset(),
        data="imagefolder",
        crop="random-resized",
        crop_scale=(0.5, 1.0),
        flip=True,
    )
    preset = replace(preset, tokenizer=replace(preset.tokenizer, channels=3))
    torch.manual_seed(0)
    tokenizer = Tokenizer(preset.tokenizer).eval()
    save_model(path, tokenizer)
    return preset, tokenizer


def test_images_become_shards_with_the_crops_of_their_epochs(tmp_path):
    """From JPEGs: two processes, against encoding every crop by itself."""
    from maskgit.data.registry import open_split
    from maskgit.training.images import to_tensor

    preset, tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    make_folder(tmp_path, 3)
    for process in range(2):
        options = TokenizeOptions(
            crops=4, shard_images=4, batch_size=5, workers=process, process=process, processes=2
        )
        tokenize(preset, tmp_path, tmp_path / "tokenizer", tmp_path / "out", options)
    source = ShardTokens(tmp_path / "out")
    images = open_split(preset, tmp_path, "train", size=8, augment=True)
    for image, crop in ((0, 0), (5, 2), (8, 3)):
        expected = tokenizer.encode(to_tensor(images.image(image, crop)[None])).flatten()
        assert torch.equal(source.batch(np.array([image]), crop)[0][0], expected)
    assert source.labels.tolist() == images.labels.tolist()
    assert source.settings["augmentation"]["crop"] == "random-resized"
    crops = source.batch(np.zeros(4, int), np.arange(4))[0]
    assert len(crops.unique(dim=0)) > 1, "all crops are the same"
    # Once more is no work, and another seed is refused.
    before = (tmp_path / "out" / shard_name(0)).stat().st_mtime_ns
    tokenize(preset, tmp_path, tmp_path / "tokenizer", tmp_path / "out", replace(options))
    assert (tmp_path / "out" / shard_name(0)).stat().st_mtime_ns == before
    other = replace(options, seed=1)
    with pytest.raises(UsageError, match="other settings"):
        tokenize(preset, tmp_path, tmp_path / "tokenizer", tmp_path / "out", other)


def test_tokenize_refuses_what_does_not_fit(tmp_path):
    preset, _ = tiny_tokenizer(tmp_path / "tokenizer")
    make_folder(tmp_path, 1)
    calls = [
        (preset, TokenizeOptions(split="test"), "--split test: expected train or val"),
        (preset, TokenizeOptions(crops=0), "--crops 0"),
        (preset, TokenizeOptions(crops=2), "one file holds one crop"),
        (replace(preset, crop="center", flip=False), TokenizeOptions(crops=2), "--crops 2"),
        (replace(preset, num_classes=7), TokenizeOptions(), "3 class folders"),
        (tiny_preset(), TokenizeOptions(split="val"), "channels 3, the preset embedded has 1"),
    ]
    for preset_, options, message in calls:
        data = None if preset_.data != "imagefolder" else tmp_path
        with pytest.raises(UsageError, match=message):
            tokenize(preset_, data, tmp_path / "tokenizer", tmp_path / "x.npz", options)
    assert not (tmp_path / "x.npz").exists()


def test_share_of_work(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert share_of_work(None) == (0, 1)
    assert share_of_work("3/8") == (3, 8)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert share_of_work(None) == (2, 4)
    for bad in ("4/4", "x", "1", "-1/3", "0/0"):
        with pytest.raises(UsageError, match=f"--part {bad}"):
            share_of_work(bad)
