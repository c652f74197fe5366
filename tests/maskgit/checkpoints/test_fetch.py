"""Fetching official files from a server that misbehaves, and what is then trusted."""

import hashlib
import http.server
import re
import shutil
import sys
import threading
from dataclasses import replace

import pytest

from maskgit.checkpoints import __main__ as checkpoints_cli
from maskgit.checkpoints import downloads, load_transformer
from maskgit.checkpoints import fetch as checkpoints_fetch
from maskgit.checkpoints.downloads import download
from maskgit.checkpoints.fetch import fetch
from maskgit.checkpoints.records import read_record, record_path
from maskgit.common.errors import UsageError
from maskgit.model.tokenizer import TokenizerConfig
from maskgit.presets import TransformerShape, get_preset
from tests.paths import GOLDEN

TRANSFORMER = GOLDEN / "maskgit_other_checkpoint"
TOKENIZER = GOLDEN / "tokenizer_other_checkpoint"
CONTENT = TRANSFORMER.read_bytes()
TINY = replace(
    get_preset("imagenet256"),
    num_classes=7,
    image_size=6,
    tokenizer=TokenizerConfig(filters=32, multipliers=(2, 1), blocks=2, num_codes=20, code_dim=12),
    transformer=TransformerShape(width=48, layers=3, heads=3, mlp=80),
    official={"transformer": "file", "tokenizer": "other"},
)


class Server(http.server.ThreadingHTTPServer):
    """Serves one content under every name and keeps what was asked for.

    drops: after how many bytes each of the next replies breaks off.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"1"'
        self.ranges, self.length, self.wrong_range = True, True, False
        self.drops, self.status, self.asked = [], 200, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        total = len(server.content)
        if start >= total and wanted and server.ranges:
            self.send_error(416)
            return
        start = 0 if server.wrong_range else start
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.length:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        end = start + server.drops.pop(0) if server.drops else total
        self.wfile.write(server.content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE", 0.0)
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    server.shutdown()
    server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def get(server, target, check=lambda path: None):
    seen = []
    download(f"{server.url}/file", target, check, lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == server.content
    return seen


def test_a_download_appears_whole_and_reports_its_progress(server, tmp_path):
    assert get(server, tmp_path / "new" / "file")[-1] == (len(CONTENT), len(CONTENT))
    assert names(tmp_path / "new") == ["file"]


def test_a_broken_connection_goes_on_where_it_broke(server, tmp_path):
    server.drops = [1000, 2000, 0, 0, 5000]
    get(server, tmp_path / "file")
    assert server.asked == [None, "bytes=1000-", *["bytes=3000-"] * 3, "bytes=8000-"]
    assert names(tmp_path) == ["file"]


def test_a_later_call_goes_on_too(server, tmp_path):
    server.drops = [1000, 0, 0, 0, 0]
    with pytest.raises(UsageError, match=r"lost 4 times \(after 1000 of 228394 bytes\)") as caught:
        get(server, tmp_path / "file")
    assert "\n" not in str(caught.value)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [1000]
    assert not (tmp_path / "file").exists()
    server.asked.clear()
    get(server, tmp_path / "file")
    assert server.asked == ["bytes=1000-"]
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("change", ["ranges", "wrong_range"])
def test_a_server_without_ranges_sends_everything_again(server, tmp_path, change):
    server.drops = [1000]
    setattr(server, change, change == "wrong_range")
    get(server, tmp_path / "file")
    assert server.asked[:2] == [None, "bytes=1000-"]
    assert names(tmp_path) == ["file"]


def test_a_file_that_changed_meanwhile_is_not_pieced_together(server, tmp_path):
    server.drops = [1000, 0, 0, 0, 0]
    with pytest.raises(UsageError):
        get(server, tmp_path / "file")
    server.content, server.etag = CONTENT[::-1], '"2"'
    get(server, tmp_path / "file")
    assert names(tmp_path) == ["file"]


def test_a_partial_file_as_long_as_the_whole_is_fetched_anew(server, tmp_path):
    tag = hashlib.sha256(f'{server.url}/file "1"'.encode()).hexdigest()[:8]
    (tmp_path / f"file.{tag}.part").write_bytes(b"x" * len(CONTENT))
    get(server, tmp_path / "file")
    assert names(tmp_path) == ["file"]


def test_a_server_that_names_no_length(server, tmp_path):
    server.length = False
    get(server, tmp_path / "file")


def test_a_refused_file_leaves_nothing(server, tmp_path):
    def refuse(path):
        raise UsageError(f"{path.stat().st_size} bytes refused")

    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(UsageError, match="228394 bytes refused"):
        get(server, tmp_path / "file", refuse)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusing_server_is_one_line(server, tmp_path, status):
    server.status = status
    with pytest.raises(UsageError, match=rf"/file: cannot be fetched \(HTTP {status}"):
        get(server, tmp_path / "file")
    assert names(tmp_path) == []


def test_without_a_network_the_line_says_what_to_do_by_hand(tmp_path):
    url = "http://127.0.0.1:9/file"
    with pytest.raises(UsageError, match="cannot be fetched") as caught:
        download(url, tmp_path / "file", lambda path: None)
    message = str(caught.value)
    assert url in message
    assert f"save it as {tmp_path / 'file'} and give the same command again" in message
    assert names(tmp_path) == []
    with pytest.raises(UsageError, match="ftp://x: expected an address that starts with https://"):
        download("ftp://x", tmp_path / "file", lambda path: None)


def test_a_full_disk_is_known_before(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match="it needs 228394 bytes, the disk has 1000"):
        get(server, tmp_path / "file")
    assert names(tmp_path) == []


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path):
    def second(path):
        with pytest.raises(UsageError, match="another process is fetching it"):
            get(server, tmp_path / "file")

    get(server, tmp_path / "file", second)
    assert names(tmp_path) == ["file"]


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
        fetch(get_preset("places2"), "transformer", tmp_path, server.url)


def command(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["checkpoints", *map(str, arguments)])
    checkpoints_cli.main()


def failing(*arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        command(*arguments, monkeypatch=monkeypatch)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


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
