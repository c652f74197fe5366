"""Downloads against a server of our own that breaks off, knows no ranges, lies or says no."""

import hashlib
import http.server
import threading

import pytest

from eval.weights import __main__ as weights_cli
from eval.weights import files as weights
from eval.weights.download import download
from eval.weights.files import SOURCES, Source, checked_weights
from maskgit.common.errors import Unavailable, UsageError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /MODE: whole (no ranges), ranges, cut (breaks off twice, then goes on), broken (always
    breaks off), lie (other bytes), chunked (no length), gone, busy (503 once)."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]

    def do_GET(self):
        mode = self.path.strip("/")
        wanted = self.headers.get("Range", "")
        self.seen.append((mode, wanted))
        count = sum(1 for other, _ in self.seen if other == mode)
        if mode == "gone":
            return self.send_error(404)
        if mode == "busy" and count == 1:
            return self.send_error(503)
        content = CONTENT if mode != "lie" else CONTENT[::-1]
        start = int(wanted[6:-1]) if wanted and mode != "whole" else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if mode == "chunked":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if mode == "broken" or (mode == "cut" and count < 3):
            body = body[: len(CONTENT) // 3]
            self.close_connection = True
        self.wfile.write(body)
        if mode == "chunked":
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    seen: list[tuple[str, str]] = []
    handler = type("Recording", (Handler,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", seen
        httpd.shutdown()


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("mode", ["whole", "ranges", "chunked", "busy"])
def test_a_file_arrives_whole_and_alone(server, tmp_path, mode):
    steps = []
    target = tmp_path / "deep" / "file.bin"
    download(
        f"{server[0]}/{mode}",
        target,
        sha256=SHA256,
        progress=lambda done, total: steps.append((done, total)),
        pause=0,
    )
    assert target.read_bytes() == CONTENT
    assert files(target.parent) == ["file.bin"]
    assert steps[-1][0] == len(CONTENT)
    assert steps == sorted(steps)


def test_what_broke_off_goes_on_where_it_stopped(server, tmp_path):
    url, seen = server
    target = tmp_path / "file.bin"
    download(f"{url}/cut", target, sha256=SHA256[:8], size=len(CONTENT), pause=0)
    assert target.read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert [wanted for _, wanted in seen] == ["", f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server, tmp_path):
    url, seen = server
    target = tmp_path / "file.bin"
    with pytest.raises(Unavailable, match=r"broke off.*341333 bytes are kept") as caught:
        download(f"{url}/broken", target, sha256=SHA256, attempts=1)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["file.bin.part"]
    download(f"{url}/ranges", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert seen[-1] == ("ranges", "bytes=341333-")
    assert files(tmp_path) == ["file.bin"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    download(f"{server[0]}/whole", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"of another file", CONTENT + b"more", CONTENT])
def test_a_part_that_does_not_fit_is_thrown_away_and_a_whole_one_used(server, tmp_path, part):
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(part)
    download(f"{server[0]}/ranges", target, sha256=SHA256, size=len(CONTENT), pause=0)
    assert target.read_bytes() == CONTENT
    assert files(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("expected", [{"sha256": SHA256[:8]}, {"size": 7}])
def test_the_wrong_bytes_are_never_put_in_place(server, tmp_path, expected):
    with pytest.raises(UsageError, match=r"not the expected file .* nothing was kept"):
        download(f"{server[0]}/lie", tmp_path / "file.bin", **expected)
    assert files(tmp_path) == []


def test_a_refusal_is_one_line_without_retries(server, tmp_path):
    url, seen = server
    with pytest.raises(Unavailable, match=r"the server says 404 Not Found\); a copy") as caught:
        download(f"{url}/gone", tmp_path / "file.bin")
    assert "\n" not in str(caught.value)
    assert len(seen) == 1
    assert files(tmp_path) == []


def test_no_network_is_one_line(tmp_path):
    with pytest.raises(Unavailable, match="cannot be downloaded") as caught:
        download("http://127.0.0.1:9/file", tmp_path / "file.bin", attempts=2, pause=0)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path):
    import fcntl

    part = tmp_path / "file.bin.part"
    with part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is downloading"):
            download(f"{server[0]}/ranges", tmp_path / "file.bin", sha256=SHA256)
    download(f"{server[0]}/ranges", tmp_path / "file.bin", sha256=SHA256)
    assert files(tmp_path) == ["file.bin"]


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        download(f"{server[0]}/ranges", tmp_path / "file" / "x.bin")


def test_fetch_puts_the_file_in_the_cache_and_verify_agrees(server, tmp_path, monkeypatch, capsys):
    url, seen = server
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)
    source = Source("tiny.bin", "tiny", "MIT", f"{url}/cut", SHA256[:8], len(CONTENT))
    monkeypatch.setitem(SOURCES, "tiny", source)
    monkeypatch.setattr("time.sleep", lambda _: None)
    target = tmp_path / "weights" / "tiny.bin"
    assert weights_cli.main(["fetch", "tiny"]) == 0
    assert capsys.readouterr().out == f"tiny: {target}\n"
    assert files(target.parent) == ["tiny.bin", "tiny.bin.json"]
    assert checked_weights("tiny").sha256 == SHA256
    requests = len(seen)
    assert weights_cli.main(["fetch", "tiny"]) == 0
    assert len(seen) == requests  # it is here
    assert weights_cli.main(["verify", "tiny"]) == 0
    target.write_bytes(CONTENT[:-1] + b"x")
    assert weights_cli.main(["verify", "tiny"]) == 1
    capsys.readouterr()
    assert weights_cli.main(["fetch", "tiny"]) == 1
    assert "damaged" in capsys.readouterr().err


def test_fetch_goes_on_after_a_failure_and_says_so(server, tmp_path, monkeypatch, capsys):
    url, _ = server
    for name in ("gone", "ranges"):
        source = Source(f"{name}.bin", name, "MIT", f"{url}/{name}")
        monkeypatch.setitem(SOURCES, name, source)
    folder = tmp_path / "mine"
    assert weights_cli.main(["fetch", "gone", "ranges", "--weights-dir", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"ranges: {folder / 'ranges.bin'}\n"
    assert captured.err.startswith("error: gone: ")
    assert captured.err.count("\n") == 1
    assert files(folder) == ["ranges.bin", "ranges.bin.json"]
