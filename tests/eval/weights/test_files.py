"""The weights registry: where files are looked for, what is checked, what is said when missing."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.features.registry import get_extractor
from eval.weights import __main__ as weights_cli
from eval.weights import files as weights
from eval.weights.files import SOURCES, Source, checked_weights, places, weights_path
from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import CACHE_VARIABLE

CONTENT = b"the published weights" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = f"tiny-{SHA256[:8]}.bin"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A machine without any weights, but with a registry entry `tiny`."""
    for variable in (weights.FOLDER_VARIABLE, "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    source = Source(FILE, "everything tiny", "MIT", "http://localhost:9/x", SHA256[:8], torch=True)
    monkeypatch.setitem(SOURCES, "tiny", source)
    return tmp_path


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def run_json(capsys, *arguments):
    code = weights_cli.main([*map(str, arguments), "--json"])
    return code, {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}


def test_addresses_are_those_the_libraries_download_from():
    import torchvision.models as models
    from cleanfid.downloads_helper import inception_url
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert SOURCES["inception-v3-compat"].url == URL_INCEPTION_V3
    assert SOURCES["inception-v3-clean"].url == inception_url
    for name, enum in (
        ("vgg16", models.VGG16_Weights),
        ("alexnet", models.AlexNet_Weights),
        ("squeezenet1_1", models.SqueezeNet1_1_Weights),
        ("resnet50", models.ResNet50_Weights),
    ):
        published = enum.IMAGENET1K_V1
        assert SOURCES[name].url == published.url
        megabytes = SOURCES[name].size / 2**20
        assert megabytes == pytest.approx(published.meta["_file_size"], abs=1e-3)
    for name, source in SOURCES.items():
        stem = Path(source.file).name.partition(".")[0]
        last = stem.rpartition("-")[2]
        if len(last) == 8 and set(last) <= set("0123456789abcdef"):
            assert source.sha256.startswith(last), name
        assert not source.url or source.url.startswith("https://"), name


def test_a_missing_file_says_what_where_how_and_what_falls_away(home):
    with pytest.raises(Unavailable) as caught:
        get_extractor("inception-v3-compat")
    message = str(caught.value)
    assert "\n" not in message
    assert "weights-inception-2015-12-05-6726825d.pth" in message
    assert str(home / "cache" / "weights") in message
    assert "python -m eval.weights fetch inception-v3-compat" in message
    assert "missing until then: all metrics with --features inception-v3-compat" in message


def test_places_are_looked_at_in_order(home, monkeypatch):
    torch_hub = put(home / ".cache" / "torch" / "hub" / "checkpoints" / FILE)
    assert weights_path("tiny") == torch_hub
    cache = put(home / "cache" / "weights" / FILE)
    assert weights_path("tiny") == cache
    folder = put(home / "mine" / FILE)
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(home / "mine"))
    assert weights_path("tiny") == folder
    nested = put(home / "mine" / "tiny" / FILE)
    assert weights_path("tiny") == nested
    given = put(home / "given" / FILE)
    assert weights_path("tiny", home / "given") == given
    with pytest.raises(Unavailable, match="weights of tiny not found: expected"):
        weights_path("tiny", home / "empty")


def test_torch_and_clean_fid_places_are_their_own(home, monkeypatch):
    import inspect

    import cleanfid.features
    import torch

    assert weights.torch_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert weights.torch_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    assert weights.torch_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    assert '"/tmp"' in inspect.getsource(cleanfid.features.feature_extractor)
    assert places("inception-v3-clean")[-1] == Path("/tmp/inception-2015-12-05.pt")


def test_the_first_use_completes_the_sha256_and_keeps_it(home):
    path = put(home / "cache" / "weights" / FILE)
    assert checked_weights("tiny") == weights.Weights(path, SHA256, FILE)
    record = json.loads(Path(f"{path}.record.json").read_text())
    assert (record["sha256"], record["size"]) == (SHA256, len(CONTENT))
    assert checked_weights("tiny").sha256 == SHA256
    Path(f"{path}.record.json").write_text(json.dumps({**record, "sha256": SHA256[:-1] + "x"}))
    with pytest.raises(UsageError, match="at its first use"):
        checked_weights("tiny")
    Path(f"{path}.record.json").write_text("{}")
    with pytest.raises(UsageError, match="not a readable record"):
        checked_weights("tiny")


def test_a_folder_that_cannot_be_written_serves_all_the_same(home, monkeypatch):
    put(home / "cache" / "weights" / FILE)

    def refuse(*_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("os.replace", refuse)
    assert checked_weights("tiny").sha256 == SHA256
    assert sorted(p.name for p in (home / "cache" / "weights").iterdir()) == [FILE]


def test_a_damaged_file_is_never_used(home):
    path = put(home / "cache" / "weights" / FILE, CONTENT[:-1])
    with pytest.raises(UsageError, match=r"damaged \(sha256 .* fetch tiny") as caught:
        checked_weights("tiny")
    assert str(path) in str(caught.value)
    assert not isinstance(caught.value, Unavailable)


def test_own_weights_are_taken_from_a_named_folder_and_say_so(home):
    path = put(home / "mine" / FILE, b"my own")
    found = checked_weights("tiny", home / "mine")
    assert found == weights.Weights(
        path, hashlib.sha256(b"my own").hexdigest(), f"{FILE} (not the published file)"
    )
    assert not Path(f"{path}.record.json").exists()


def test_verify_finds_a_file_that_was_changed_later(home, capsys):
    path = put(home / "cache" / "weights" / FILE)
    assert checked_weights("tiny").sha256 == SHA256
    code, found = run_json(capsys, "verify", "tiny")
    assert (code, found["tiny"]["state"], found["tiny"]["sha256"]) == (0, "present", SHA256)
    path.write_bytes(CONTENT.replace(b"p", b"q", 1))
    code, found = run_json(capsys, "verify")
    assert (code, found["tiny"]["state"]) == (1, "damaged")
    with pytest.raises(UsageError, match="damaged"):
        checked_weights("tiny")


def test_verify_without_names_takes_what_is_here(home, capsys):
    code, found = run_json(capsys, "verify")
    assert code == 0
    assert set(found) <= {"fashion-resnet", "efficientnet-lite0"}
    code, found = run_json(capsys, "verify", "tiny", "fashion-resnet")
    assert code == 1
    assert found["tiny"]["state"] == "missing"
    assert found["fashion-resnet"]["state"] == "present"


def test_list_shows_every_network_and_other_files_in_a_named_folder(home, capsys):
    put(home / "mine" / FILE, b"my own")
    assert weights_cli.main(["list", "--feature-weights", str(home / "mine")]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert set(lines) == {"name", *SOURCES}
    assert "other file" in lines["tiny"]
    assert "missing" in lines["vgg16"]
    assert "LPIPS with vgg" in lines["vgg16"]
    code, found = run_json(capsys, "verify", "tiny", "--feature-weights", home / "mine")
    assert (code, found["tiny"]["state"]) == (1, "other file")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify", "vgg"], "weights of 'vgg': expected one of fashion-resnet"),
        (["fetch"], "fetch: name what to get"),
        (["list", "--feature-weights", "nowhere"], "--feature-weights nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(home, capsys, arguments, says):
    assert weights_cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {says}")
    assert captured.err.count("\n") == 1


def test_help_answers_at_once_without_torch():
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "eval.weights", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fetch" in done.stdout
    assert "| torch" not in done.stderr
    assert time.monotonic() - start < 5  # under a second on an idle machine
