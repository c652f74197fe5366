"""Fetching official files from a server that misbehaves, and what is then trusted."""

import hashlib
from dataclasses import replace

import pytest

from maskgit.checkpoints import fetch as checkpoints_fetch
from maskgit.checkpoints import load_transformer
from maskgit.checkpoints.fetch import fetch
from maskgit.common.errors import UsageError
from maskgit.common.records import read_record, record_path
from maskgit.model.config import TokenizerConfig, TransformerShape
from maskgit.presets import load_preset
from tests.maskgit.checkpoints.command_line import command, failing
from tests.paths import GOLDEN, names

TRANSFORMER = GOLDEN / "maskgit_other_checkpoint"
TOKENIZER = GOLDEN / "tokenizer_other_checkpoint"
CONTENT = TRANSFORMER.read_bytes()
TINY = replace(
    load_preset("imagenet256"),
    num_classes=7,
    image_size=6,
    tokenizer=TokenizerConfig(filters=32, multipliers=(2, 1), blocks=2, num_codes=20, code_dim=12),
    transformer=TransformerShape(width=48, layers=3, heads=3, mlp=80),
    official={"transformer": "file", "tokenizer": "other"},
)


def test_the_first_file_is_trusted_and_every_later_one_held_against_it(server, tmp_path):
    file, record, done = fetch(TINY, "transformer", tmp_path, server.url)
    assert (record.size, record.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert (file, done, record.url) == (tmp_path / "file", "fetched", f"{server.url}/file")
    assert read_record(file) == record
    assert fetch(TINY, "transformer", tmp_path, server.url) == (file, record, "there already")
    assert len(server.asked) == 1

    tampered = CONTENT[:-4] + b"\0\0\0\1"
    file.write_bytes(tampered)
    for use in (lambda: fetch(TINY, "transformer", tmp_path, server.url), load_file(file)):
        with pytest.raises(UsageError, match=f"its record says {record.sha256}"):
            use()

    file.unlink()
    server.content = tampered
    with pytest.raises(UsageError, match=f"recorded were 228394 with {record.sha256}; remove "):
        fetch(TINY, "transformer", tmp_path, server.url)
    assert names(tmp_path) == ["file.record.json"]
    record_path(file).unlink()
    assert fetch(TINY, "transformer", tmp_path, server.url)[2] == "fetched"


def load_file(file):
    return lambda: load_transformer(file, num_codes=20)


def test_a_file_put_there_by_hand_is_recorded(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    file, record, done = fetch(TINY, "transformer", tmp_path, "http://127.0.0.1:9")
    assert (done, record.url, record.size) == ("recorded", "", len(CONTENT))
    load_file(file)()


@pytest.mark.parametrize(
    ("role", "content", "message"),
    [
        ("transformer", b"<html>log in first</html>", "not a whole flax checkpoint"),
        ("transformer", TOKENIZER.read_bytes(), "a tokenizer, expected a transformer"),
        ("transformer", CONTENT[:-1], "it ends too early"),
        (
            "tokenizer",
            TOKENIZER.read_bytes(),
            "num_codes=24.*256 has .*num_codes=20",
        ),
    ],
)
def test_what_is_not_the_preset_s_model_is_never_trusted(server, tmp_path, role, content, message):
    server.content = content
    with pytest.raises(UsageError, match=message) as caught:
        fetch(TINY, role, tmp_path, server.url)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_transformer_of_another_size_is_named(server, tmp_path):
    preset = replace(TINY, num_classes=8, num_samples=1)
    with pytest.raises(UsageError, match=r"num_classes=7.*imagenet256 has .*num_classes=8"):
        fetch(preset, "transformer", tmp_path, server.url)
    with pytest.raises(UsageError, match="no official transformer was released"):
        fetch(load_preset("places2"), "transformer", tmp_path, server.url)


def test_the_command_fetches_all_four_files(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints_fetch, "_check_model", lambda *_: None)
    command("fetch", "--folder", tmp_path, "--url", server.url + "/", monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    files = [f"{role}_imagenet{size}_checkpoint" for size in (256, 512) for role in ROLES]
    assert [line.split()[0] for line in lines] == [str(tmp_path / file) for file in files]
    assert all(hashlib.sha256(CONTENT).hexdigest() in line for line in lines)
    assert names(tmp_path) == sorted([*files, *[f"{file}.record.json" for file in files]])


ROLES = ("tokenizer", "maskgit")


def test_the_command_says_when_there_is_nothing_to_fetch(monkeypatch, capsys):
    error = failing("fetch", "--preset", "places2", monkeypatch=monkeypatch, capsys=capsys)
    assert "no official weights of it were released" in error
    error = failing("fetch", "--preset", "image", monkeypatch=monkeypatch, capsys=capsys)
    assert "--preset image: expected one of" in error
