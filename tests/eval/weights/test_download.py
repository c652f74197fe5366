"""`python -m eval.weights fetch` from a server of our own that breaks off or says no."""

import hashlib

from eval.weights import __main__ as weights_cli
from eval.weights import files as weights
from eval.weights.files import SOURCES, Source, checked_weights
from maskgit.common.files import CACHE_VARIABLE
from tests.paths import names

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_fetch_puts_the_file_in_the_cache_and_verify_agrees(server, tmp_path, monkeypatch, capsys):
    server.drops = [1000]
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)
    source = Source("tiny.bin", "tiny", "MIT", f"{server.url}/tiny", SHA256[:8], len(CONTENT))
    monkeypatch.setitem(SOURCES, "tiny", source)
    target = tmp_path / "weights" / "tiny.bin"
    assert weights_cli.main(["fetch", "tiny"]) == 0
    assert capsys.readouterr().out == f"tiny: {target}\n"
    assert names(target.parent) == ["tiny.bin", "tiny.bin.record.json"]
    assert checked_weights("tiny").sha256 == SHA256
    requests = len(server.asked)
    assert weights_cli.main(["fetch", "tiny"]) == 0
    assert len(server.asked) == requests  # it is here
    assert weights_cli.main(["verify", "tiny"]) == 0
    target.write_bytes(CONTENT[:-1] + b"x")
    assert weights_cli.main(["verify", "tiny"]) == 1
    capsys.readouterr()
    assert weights_cli.main(["fetch", "tiny"]) == 1
    assert "damaged" in capsys.readouterr().err


def test_fetch_goes_on_after_a_failure_and_says_so(server, tmp_path, monkeypatch, capsys):
    server.refusals = [404]
    for name in ("gone", "ranges"):
        source = Source(f"{name}.bin", name, "MIT", f"{server.url}/{name}")
        monkeypatch.setitem(SOURCES, name, source)
    folder = tmp_path / "mine"
    assert weights_cli.main(["fetch", "gone", "ranges", "--feature-weights", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"ranges: {folder / 'ranges.bin'}\n"
    assert captured.err.startswith("error: gone: ")
    assert captured.err.count("\n") == 1
    assert names(folder) == ["ranges.bin", "ranges.bin.record.json"]
