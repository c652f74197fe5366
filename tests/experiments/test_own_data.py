"""Own images from a folder to reports, by the commands a user types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.own import with_measures
from maskgit.presets import load_preset
from tests.paths import ROOT

SMALL = """base = "whole.toml"
[tokenizer]
filters = 8
norm_groups = 4
code_dim = 8
num_codes = 32
[transformer]
width = 16
layers = 1
heads = 2
mlp = 16
[tokenizer_training]
batch_size = 4
[transformer_training]
batch_size = 4
[evaluation]
schedules = ["cosine", "linear"]
"""
rng = np.random.default_rng(0)


def picture(height, width, channels=3):
    coarse = rng.integers(0, 256, (4, 4, channels), np.uint8).squeeze()
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def folders(root, classes, per_class, *sizes):
    for number in range(classes):
        folder = root / f"class {number}" if classes > 1 else root
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            picture(*sizes[i % len(sizes)]).save(folder / f"{i}.png")
    return root


def arrays(root):
    images = np.stack([np.asarray(picture(28, 28, 1)) for _ in range(60)])
    np.savez(root.with_suffix(".npz"), images=images, labels=np.arange(60) % 4)
    return root.with_suffix(".npz")


@pytest.fixture
def shell(tmp_path):
    """shell(words...) -> (code, stdout, stderr) in an empty folder with a cache of its own."""

    def call(*words):
        more = {"PYTHONPATH": str(ROOT), "MASKGIT_BENCH_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, *map(str, words)]
        ended = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | more,
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return call


def script(name):
    return ROOT / "experiments" / f"{name}.py"


def propose(shell, tmp_path, data, *flags):
    words = ("-m", "maskgit.presets", "new", "whole.toml", "--data", data, "--budget", "1m")
    code, out, err = shell(*words, *flags)
    assert code == 0, err
    (tmp_path / "small.toml").write_text(SMALL)
    return out


def train(shell, *flags):
    words = ("--preset", "small.toml", "--max-steps", "2", *flags)
    return shell(script("train"), *words)


def test_the_name_of_a_preset_stands_in_no_key(tmp_path):
    text = 'base = "embedded"\n[data]\nkind = "images"\nnum_classes = 2\nimage_size = 32\n'
    first, second = (tmp_path / name for name in ("a.toml", "b.toml"))
    for file in (first, second):
        file.write_text(text)
    contents = [with_measures(load_preset(file)).content() for file in (first, second)]
    assert contents[0] == contents[1]
    second.write_text(text + '[evaluation]\nreference_split = "val"\n')
    assert with_measures(load_preset(second)).reference != contents[0]["evaluation"]["reference"]


def test_new_looks_at_the_images(shell, tmp_path):
    out = propose(shell, tmp_path, folders(tmp_path / "p", 3, 8, (70, 90), (80, 64)))
    preset = load_preset(tmp_path / "whole.toml")
    assert preset.class_names == ("class 0", "class 1", "class 2")
    assert (preset.size, preset.channels, preset.num_tokens) == ((64, 64), 3, 64)
    assert preset.path == tmp_path / "p"
    assert "24 images" in out
    assert "train.py --preset whole.toml" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("x.txt", "--data", "p"), "expected the name of a .toml file"),
        (("no/x.toml", "--data", "p"), "no such folder no"),
        (("x.toml", "--data", "none"), "does not exist"),
        (("x.toml", "--data", "p", "--budget", "soon"), "expected a time such as 20m"),
        (("x.toml", "--data", "p", "--size", "63"), "expected multiples of"),
        (("x.toml",), "--data"),
    ],
)
def test_new_refuses_in_one_line(shell, tmp_path, words, says):
    folders(tmp_path / "p", 1, 2, (64, 64))
    code, out, err = shell("-m", "maskgit.presets", "new", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert says in err
    assert not list(tmp_path.glob("x*"))


@pytest.mark.slow
def test_training_leaves_out_what_is_there(shell, tmp_path):
    propose(shell, tmp_path, folders(tmp_path / "p", 2, 6, (32, 32)))
    assert "tokenizer: to do" in train(shell, "--dry-run")[1]
    code, _, err = train(shell, "--only", "tokenizer,tokens,transformers", "--schedules", "cosine")
    assert code == 0, err
    weights = tmp_path / "runs/small/weights"
    network = weights / "transformer-cosine/model.safetensors"
    before = network.stat().st_mtime_ns, json.loads((weights / "tokenizer/card.json").read_text())
    assert before[1]["budget"]["steps"] == 2
    code, _, err = train(shell, "--only", "tokenizer,tokens,transformers")
    assert code == 0, err
    assert err.count("done before") == 3
    assert (weights / "transformer-linear").is_dir()
    assert network.stat().st_mtime_ns == before[0]
    file = tmp_path / "whole.toml"  # its base
    text = file.read_text()
    file.write_text(text.replace("flip = false", "flip = true"))  # other crops are other inputs
    assert "tokenizer: to do" in train(shell, "--dry-run")[1]
    file.write_text(text)
    assert "tokenizer: done" in train(shell, "--dry-run")[1]
    picture(32, 32).save(tmp_path / "p" / "class 0" / "more.png")  # other images
    assert "tokenizer: to do" in train(shell, "--dry-run")[1]
    (tmp_path / "p" / "class 0" / "broken.png").write_bytes(b"")
    code, out, err = train(shell)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "broken.png" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "flags"),
    [
        (lambda root: folders(root, 10, 6, (32, 32)), ()),
        (lambda root: folders(root, 1, 30, (64, 64)), ()),
        (lambda root: folders(root, 20, 3, (130, 200), (300, 150), (99, 180)), ("--size", "128")),
        (arrays, ("--size", "28")),
        (lambda root: folders(root, 3, 8, (40, 40)), ()),
        (lambda root: folders(root, 1, 12, (64, 96)), ("--size", "64", "--width", "96")),
    ],
    ids=["ten classes", "unlabelled", "odd sizes", "grey npz", "three classes", "64x96"],
)
def test_from_a_folder_to_reports(shell, tmp_path, make, flags):
    propose(shell, tmp_path, make(tmp_path / "p"), *flags)
    code, _, err = train(shell)
    assert code == 0, err
    count = load_preset(tmp_path / "small.toml").num_classes
    for name, more in (
        ("ablate_schedule", ("--T", "2", "--num-samples", 2 * count)),
        ("class_conditional", ("--T", "2", "--num-samples", 2 * count)),
        ("reconstruction", ("--ratios", "0,0.5", "--num-samples", "4")),
        ("editing", ("--tasks", "outpaint-right", "--num-samples", "4", "--T", "4")),
        ("panorama", ("--factors", "2", "--num-samples", "2", "--T", "4")),
    ):
        words = ("--preset", "small.toml", "--workers", "2", "--out", f"out/{name}", *more)
        code, out, err = shell(script(name), *words)
        assert code == 0, (name, err)
        assert Path(out.strip()).is_file()
        cells = [
            json.loads(p.read_text()) for p in tmp_path.glob(f"out/{name}/cells/*/result.json")
        ]
        assert cells
        assert {cell["cell"]["preset"] for cell in cells} == {cells[0]["cell"]["preset"]}
