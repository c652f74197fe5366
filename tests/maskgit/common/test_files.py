"""Files are written whole or not at all, and what cannot be read is one line."""

import os

import pytest

from maskgit.common.errors import UsageError
from maskgit.common.files import (
    atomic_file,
    atomic_write,
    cache_folder,
    output_file,
    read_json,
    sha256_of,
    write_json,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.writelines([b"half of the new one", 3])
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_written_is_one_line_with_its_flag(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"^--out .*/file/x: cannot be written"):
        write_json(tmp_path / "file" / "x", {}, "--out")
    with output_file(tmp_path / "new" / "x") as file:
        file.write(b"1")
    assert (tmp_path / "new" / "x").read_bytes() == b"1"


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1.5, "a": "é"})
    assert read_json(tmp_path / "x.json") == {"b": 1.5, "a": "é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json")["a"] == "é"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, None])
def test_what_is_no_json_object_is_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.json: ") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_a_changed_file_has_another_sha256(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    first = sha256_of(path)
    assert sha256_of(path) == first
    path.write_bytes(b"12")
    assert sha256_of(path) != first


def test_the_cache_folder_can_be_chosen(monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", "~/x")
    assert cache_folder() == cache_folder().home() / "x"
    monkeypatch.delenv("MASKGIT_BENCH_CACHE")
    assert cache_folder().name == "maskgit-bench"
