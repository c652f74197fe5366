"""Folders of images as users have them: numbered classes, hidden files, links, odd names."""

import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from eval.__main__ import main as eval_main
from eval.cas import training as cas_training
from eval.cas.data import labelled
from eval.cas.score import classification_accuracy
from eval.images.source import ImageSource
from maskgit.checkpoints import save_model
from maskgit.common.errors import UsageError
from maskgit.data.image_folder import Augmentation, ImageFolder
from maskgit.model.tokenizer import Tokenizer
from maskgit.training.shards import ShardTokens
from maskgit.training.tokenize import TokenizeOptions, tokenize
from tests.eval.cas.test_score import recipe, tiny_network
from tests.faults.abuse import fault, run_command
from tests.maskgit.training.training_doubles import tiny_preset


def write(path, value, size=8):
    """A grey picture of one value, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), value, np.uint8)).save(path)


@pytest.fixture
def numbered(tmp_path):
    """train/0 to train/11, each with a picture as bright as its number says."""
    for number in range(12):
        write(tmp_path / "train" / str(number) / "x.png", 10 * number)
    return tmp_path


def test_numbered_folders_are_numbered_classes_in_eval(numbered):
    source = ImageSource(numbered / "train")
    values = [int(batch[0, 0, 0, 0]) for batch in source.batches(1)]
    assert [value // 10 for value in values] == source.labels.tolist()


def test_numbered_folders_are_numbered_classes_in_training(numbered):
    source = ImageFolder(numbered, "train", Augmentation(8), channels=1)
    values = [int(source.image(index)[0, 0, 0]) // 10 for index in range(len(source))]
    assert values == source.labels.tolist()


def test_zero_padded_and_plain_numbers_mean_the_same(numbered, tmp_path):
    for number in range(12):
        write(tmp_path / "val" / f"{number:04d}" / "x.png", 10 * number)
    plain = ImageFolder(numbered, "train", Augmentation(8), channels=1)
    padded = ImageFolder(tmp_path, "val", Augmentation(8), channels=1)
    assert [plain.image(i)[0, 0, 0] for i in np.argsort(plain.labels)] == [
        padded.image(i)[0, 0, 0] for i in np.argsort(padded.labels)
    ]


def coloured(count, classes, seed):
    """Noise around a brightness that tells the class, and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    noise = rng.normal(0, 2, (count, 8, 8, 3))
    return np.clip(20 * labels[:, None, None, None] + noise, 0, 255).astype(np.uint8), labels


def write_classes(folder, images, labels, names):
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")


def test_names_are_not_matched_to_numbers_silently(tmp_path, monkeypatch):
    monkeypatch.setattr(cas_training, "build_network", tiny_network)
    images, labels = coloured(18, 3, 0)
    write_classes(tmp_path / "val", *coloured(6, 3, 1), ["zebra", "ape", "mole"])
    try:
        result = classification_accuracy(
            labelled(images, labels),
            labelled(tmp_path / "val"),
            recipe=recipe(epochs=1),
            workers=0,
        )
    except UsageError:
        return
    assert any("zebra" in note for note in result["notes"])


# Hidden files, and links.


@pytest.mark.parametrize("conditional", [True, False])
def test_training_leaves_out_a_macs_hidden_files(tmp_path, conditional):
    write(tmp_path / "train" / "cat" / "x.png", 1)
    (tmp_path / "train" / "cat" / "._x.png").write_bytes(b"\0\5\x16\7 no image")
    source = ImageFolder(tmp_path, "train", Augmentation(8), channels=1, conditional=conditional)
    assert len(source) == 1


def test_training_takes_no_hidden_folder_for_a_class(tmp_path):
    write(tmp_path / "train" / "cat" / "x.png", 1)
    write(tmp_path / "train" / ".ipynb_checkpoints" / "x.png", 2)
    assert ImageFolder(tmp_path, "train", Augmentation(8), channels=1).classes == ["cat"]


def test_an_empty_hidden_folder_stops_no_training(tmp_path):
    write(tmp_path / "train" / "cat" / "x.png", 1)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    call = lambda: ImageFolder(tmp_path, "train", Augmentation(8), channels=1)  # noqa: E731
    assert fault(call, ()) == ""


def test_eval_leaves_out_hidden_files(tmp_path):
    write(tmp_path / "cat" / "x.png", 1)
    write(tmp_path / ".ipynb_checkpoints" / "y.png", 1)
    (tmp_path / "cat" / "._x.png").write_bytes(b"\0\5\x16\7 no image")
    assert len(ImageSource(tmp_path)) == 1


def test_linked_class_folders_are_followed_in_every_layout(tmp_path):
    write(tmp_path / "elsewhere" / "cat" / "x.png", 1)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    counts = []
    for conditional in (True, False):
        kind = {"channels": 1, "conditional": conditional}
        try:
            counts.append(len(ImageFolder(tmp_path, "train", Augmentation(8), **kind)))
        except UsageError:
            counts.append(0)
    assert counts == [1, 1]


# Contents that change, names that are no text, arguments that are empty.


def test_tokens_of_a_replaced_image_are_made_again(tmp_path):
    torch.manual_seed(0)
    preset = replace(tiny_preset(), data="imagefolder", crop="center", flip=False)
    for name in ("a", "b", "c"):
        write(tmp_path / "data" / "train" / name / "x.png", 200)
    save_model(tmp_path / "tokenizer", Tokenizer(preset.tokenizer))

    def tokens():
        out = tmp_path / "tokens"
        options = TokenizeOptions(crops=1)
        tokenize(preset, tmp_path / "data", tmp_path / "tokenizer", out, options)
        return ShardTokens(out).batch(np.arange(3), 0)[0]

    first = tokens()
    rng = np.random.default_rng(0)
    changed = rng.integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(changed).save(tmp_path / "data" / "train" / "b" / "x.png")
    try:
        second = tokens()
    except UsageError:
        return
    assert not torch.equal(first[1], second[1])


def test_an_empty_reference_is_refused(tmp_path, monkeypatch, capsys):
    for number in range(20):
        write(tmp_path / f"{number}.png", number, 32)
    monkeypatch.chdir(tmp_path)
    words = ["--metrics", "fid", "--features", "fashion-resnet", "--device", "cpu"]
    assert eval_main([str(tmp_path), "--reference", "", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_empty_images_are_refused(tmp_path, monkeypatch, capsys):
    for number in range(20):
        write(tmp_path / f"{number}.png", number, 32)
    monkeypatch.chdir(tmp_path)
    words = ["--metrics", "is", "--features", "fashion-resnet", "--device", "cpu"]
    assert eval_main(["", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_names_that_are_not_utf8_are_measured_and_noted(tmp_path):
    for number in range(12):
        write(tmp_path / "x" / f"{number}.png", 20 * number, 32)
    (tmp_path / "x" / os.fsdecode(b"note\xff.txt")).write_bytes(b"")
    words = ["--metrics", "is", "--features", "fashion-resnet", "--device", "cpu"]
    strict = {"PYTHONIOENCODING": "utf-8:strict"}  # as where the locale is en_US.UTF-8
    ended = run_command("-m", "eval", tmp_path / "x", *words, seconds=120, **strict)
    assert ended.fault(codes=(0,)) == ""


# /dev/shm of 64 MB, as Docker gives it; here of 64 KB, in a namespace of its own.

SMALL = """
import sys, numpy as np
from maskgit.data.image_folder import Augmentation, ImageFolder
from maskgit.training.feed import decoded
source = ImageFolder(sys.argv[1], "train", Augmentation(256))
batches = decoded(source, [[(i % 4, 0) for i in range(8)]] * 6, workers=2)
print(sum(len(batch) for batch in batches))
"""


@pytest.mark.slow
def test_a_small_shared_memory_ends_no_training(tmp_path):
    namespace = ["unshare", "-m", "sh", "-c"]
    mount = "mount -t tmpfs -o size=64k none /dev/shm"
    try:
        subprocess.run([*namespace, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no namespace with a small /dev/shm can be made here")
    for number in range(4):
        write(tmp_path / "train" / "a" / f"{number}.png", number, 300)
    ended = run_command(
        "-c", SMALL, tmp_path, prefix=[*namespace, f'{mount} && exec "$@"', "-"], seconds=40
    )
    assert not ended.hung
    assert ended.out.split() == ["48"]
