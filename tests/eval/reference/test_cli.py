"""`python -m eval.reference`: build, list, verify, import, and mistakes in one line."""

import json
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from eval.__main__ import main as measure
from eval.reference.__main__ import main


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


@pytest.fixture
def folder(tmp_path):
    """40 grey 32x32 images, and a file that is none."""
    rng = np.random.default_rng(0)
    (tmp_path / "real").mkdir()
    for i in range(40):
        image = rng.integers(0, 99, (32, 32), dtype=np.uint8)
        image[4 + i % 9 : 28, 6 : 12 + i % 13] += 150
        PIL.Image.fromarray(image).save(tmp_path / "real" / f"{i:02}.png")
    (tmp_path / "real" / "notes.txt").write_text("x")
    return tmp_path / "real"


def run(capsys, *arguments, code=0):
    assert main([*map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def build(capsys, folder, *more):
    flags = ["--images", folder, "--features", "fashion-resnet", "--device", "cpu"]
    return run(capsys, "build", "mine", *flags, *more)


def test_a_reference_is_built_once_listed_verified_and_measured_against(folder, capsys, cache):
    out, err = build(capsys, folder)
    assert out.startswith(
        "built: mine on fashion-resnet: 40 images, 32x32, 40 features kept, sha256 "
    )
    assert out.splitlines()[1] == str(cache / "mine" / "fashion-resnet.npz")
    assert "left out 1 of real: not image files by their names (notes.txt)" in err
    assert build(capsys, folder)[0].startswith("up to date: ")
    rows = json.loads(run(capsys, "list", "--json")[0])
    assert [row["name"] for row in rows] == ["fashion-mnist-train", "mine"]
    assert rows[1]["kept_features"] == 40
    assert "40 images of real, built here" in run(capsys, "list")[0]
    assert "images at" in run(capsys, "verify", "mine")[0]
    arguments = [str(folder), "--reference", "mine", "--metrics", "fid,kid", "--device", "cpu"]
    assert measure([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert result["protocol"]["reference_sha256"] == rows[1]["sha256"]
    assert result["protocol"]["features_chosen"] == "the reference mine holds them"


def test_changed_images_are_noticed_by_verify_and_built_again(folder, capsys):
    build(capsys, folder)
    PIL.Image.new("L", (32, 32)).save(folder / "00.png")
    _, err = run(capsys, "verify", "mine", code=2)
    assert err.startswith("error: reference mine on fashion-resnet: the images at ")
    assert err.count("\n") == 1
    assert build(capsys, folder)[0].startswith("built: ")
    run(capsys, "verify", "mine")


def test_options_of_a_build(folder, capsys, tmp_path):
    (folder / "07.png").write_bytes(b"broken")
    out, err = build(capsys, folder, "--skip-broken", "--keep-features", "5", "--num-images", "30")
    assert "5 features kept" in out or "4 features kept" in out
    assert "notes.txt" in err
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "digits.npy", images)
    out, _ = build(capsys, tmp_path / "digits.npy", "--pad", "32", "--description", "my digits")
    assert "20 images" in out
    assert "my digits" in run(capsys, "list")[0]


def test_published_statistics_are_imported(tmp_path, capsys, monkeypatch):
    from types import SimpleNamespace

    from eval.reference import build as reference_build

    monkeypatch.setattr(reference_build, "extractor_class", lambda name: SimpleNamespace(dim=8))
    np.savez(tmp_path / "x.npz", mu=np.zeros(8), sigma=np.eye(8))
    out, _ = run(capsys, "import", "clean-fid", tmp_path / "x.npz", "--name", "ffhq")
    assert out.startswith("imported: ffhq on inception-v3-clean: number of images unknown, of unk")
    assert "clean-fid's x.npz" in run(capsys, "list")[0]
    assert "its weights are not known" in run(capsys, "verify", "ffhq")[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build", "a/b", "--images", "x", "--features", "fashion-resnet"], "name 'a/b'"),
        (["build", "a", "--images", "nowhere", "--features", "fashion-resnet"], "does not exist"),
        (["build", "a", "--images", "real", "--features", "vgg"], "'vgg': expected one of"),
        (["verify", "nothing"], "'nothing': there is none of this name here"),
        (["import", "adm", "x.npz", "--name", "a"], "x.npz: not a readable npz"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(folder.parent)
    out, err = run(capsys, *arguments, code=2)
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


def test_interrupt_ends_with_a_line(monkeypatch, capsys, folder):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("eval.reference.__main__.build_reference", interrupt)
    arguments = ["build", "a", "--images", str(folder), "--features", "fashion-resnet"]
    assert main([*arguments, "--device", "cpu"]) == 130
    assert "goes on from there" in capsys.readouterr().err


def test_a_broken_reference_is_listed_as_such(folder, capsys, cache):
    build(capsys, folder)
    (cache / "mine" / "fashion-resnet.npz").write_bytes(b"x")
    assert "not a readable reference file" in run(capsys, "list")[0]


def test_help_answers_at_once_without_torch():
    start = time.monotonic()
    code = (
        "import sys, runpy\nsys.argv = ['x', '--help']\n"
        "try: runpy.run_module('eval.reference', run_name='__main__')\n"
        "finally: assert not {'torch', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "build" in done.stdout
    assert time.monotonic() - start < 5  # under a second on an idle machine
