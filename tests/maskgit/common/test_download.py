"""Downloads from a server that breaks off, knows no ranges, lies or says no."""

import hashlib
import shutil

import pytest

from maskgit.common.download import download
from maskgit.common.errors import Unavailable, UsageError
from tests.paths import names

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def get(server, target, check=lambda path: None):
    seen = []
    download(
        f"{server.url}/file", target, check, progress=lambda done, total: seen.append((done, total))
    )
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
    with pytest.raises(UsageError, match=r"lost 4 times \(after 1000 of 256000 bytes\)") as caught:
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
    with pytest.raises(UsageError, match="256000 bytes refused"):
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
    with pytest.raises(UsageError, match="it needs 256000 bytes, the disk has 1000"):
        get(server, tmp_path / "file")
    assert names(tmp_path) == []


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path):
    def second(path):
        with pytest.raises(UsageError, match="another process is fetching it"):
            get(server, tmp_path / "file")

    get(server, tmp_path / "file", second)
    assert names(tmp_path) == ["file"]


def part_of(server, target):
    tag = hashlib.sha256(f'{server.url}/file "1"'.encode()).hexdigest()[:8]
    return target.with_name(f"{target.name}.{tag}.part")


@pytest.mark.parametrize("part", [b"of another file", CONTENT + b"more", CONTENT[::-1]])
def test_a_part_that_does_not_fit_is_thrown_away(server, tmp_path, part):
    target = tmp_path / "file"
    part_of(server, target).write_bytes(part)
    download(f"{server.url}/file", target, sha256=SHA256, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]


def test_a_part_that_is_whole_is_used_without_asking(server, tmp_path):
    target = tmp_path / "file"
    part_of(server, target).write_bytes(CONTENT)
    download(f"{server.url}/file", target, sha256=SHA256, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("expected", [{"sha256": SHA256[:8]}, {"size": 7}])
def test_the_wrong_bytes_are_never_put_in_place(server, tmp_path, expected):
    server.content = CONTENT[::-1]
    with pytest.raises(UsageError, match=r"not the expected file .* nothing was kept"):
        download(f"{server.url}/file", tmp_path / "file", **expected)
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server, tmp_path, status):
    server.refusals = [status, status]
    get(server, tmp_path / "file")
    assert server.asked == [None] * 3


def test_a_refusal_is_final(server, tmp_path):
    server.status = 404
    with pytest.raises(Unavailable, match="HTTP 404"):
        download(f"{server.url}/file", tmp_path / "file")
    assert server.asked == [None]


@pytest.mark.parametrize("sent", ["", "bytes 0-9/256000", "bytes 5-255999/256000", "bytes x-y/z"])
def test_a_server_that_always_sends_a_part_is_given_up(server, tmp_path, sent):
    server.always_part = sent
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(Unavailable, match="sends another part of the file than it is asked for"):
        download(f"{server.url}/file", tmp_path / "file")
    assert len(server.asked) == 4
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_a_file_that_changes_with_every_request_is_given_up(server, tmp_path):
    server.drops = [1000] * 100
    server.etags = [f'"{number}"' for number in range(100)]
    with pytest.raises(Unavailable):
        download(f"{server.url}/file", tmp_path / "file")
    assert len(server.asked) < 12


@pytest.mark.parametrize("length", ["9" * 30, "-5", "1_000", "²", "x"])
def test_an_odd_length_is_refused(server, tmp_path, length):
    # Python takes 1_000 for a number and stops reading there.
    server.length = length
    with pytest.raises(Unavailable, match="its Content-Length is"):
        download(f"{server.url}/file", tmp_path / "file")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        download(f"{server.url}/file", tmp_path / "file" / "x")
