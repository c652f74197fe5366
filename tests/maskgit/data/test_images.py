"""Any images: layouts, classes, splits by content, what is odd in files, and what is broken."""

import io
import os
import pickle
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from maskgit.common.errors import UsageError
from maskgit.data import images
from maskgit.data.images import held_out_count
from maskgit.data.registry import open_split
from maskgit.presets import load_preset

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))


def forget():
    """As another process would start."""
    images._opened.cache_clear()
    images.contents.cache_clear()


def preset(classes=1, channels=3, size=16, **more):
    base = load_preset("embedded")
    return replace(
        base, data="images", num_classes=classes, image_size=size, crop="center",
        tokenizer=replace(base.tokenizer, channels=channels), **more,
    )  # fmt: skip


def png(pixels, kind="PNG", **more):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return file.getvalue()


def noise(height=16, width=16, channels=3):
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def write(root, per_class=8, classes=("cat", "dog"), split=""):
    for name in classes:
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            (folder / f"{i}.png").write_bytes(png(noise(20, 30)))
    return root


def both(own, data):
    return [open_split(own, data, split) for split in ("train", "val")]


def test_a_flat_folder_is_split_by_content_whatever_the_names(tmp_path):
    data = write(tmp_path / "a", 40, ("",))
    train, val = both(preset(conditional=False), data)
    assert (len(train), len(val)) == (32, 8)
    assert not {p.name for p in train.files} & {p.name for p in val.files}
    other = tmp_path / "b"
    other.mkdir()
    for number, path in enumerate(sorted(data.iterdir(), reverse=True)):
        (other / f"x{number:02d}.png").write_bytes(path.read_bytes())
    again = open_split(preset(conditional=False), other, "val")
    key = lambda source: sorted(path.read_bytes() for path in source.files)  # noqa: E731
    assert key(again) == key(val)


@pytest.mark.parametrize(
    ("count", "held_out"),
    [(2, 1), (10, 2), (400, 80), (1000, 200), (4000, 200), (4001, 200), (60_000, 3000)],
)
def test_five_percent_or_two_hundred_or_a_fifth(count, held_out):
    assert held_out_count(count) == held_out


def test_classes_are_folders_and_each_has_held_out_images(tmp_path):
    train, val = both(preset(2), write(tmp_path, 10))
    assert train.classes == val.classes == ["cat", "dog"]
    assert np.bincount(val.labels).tolist() == [2, 2]
    assert np.bincount(train.labels).tolist() == [8, 8]


def test_train_and_val_folders_are_kept(tmp_path):
    write(tmp_path, 3, split="train")
    write(tmp_path, 2, split="val")
    train, val = both(preset(2), tmp_path)
    assert (len(train), len(val)) == (6, 4)
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "cow")
    forget()
    with pytest.raises(UsageError, match="'cow' is a class in one of train and val only"):
        open_split(preset(2), tmp_path, "train")


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_archives_hold_what_their_folder_holds(tmp_path, kind):
    folder = write(tmp_path / "pictures", 5)
    path = tmp_path / f"pictures.{kind}"
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(tmp_path))
    else:
        with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(tmp_path))
    packed, plain = (open_split(preset(2), where, "train") for where in (path, folder))
    rows = [np.arange(len(source)) for source in (packed, plain)]
    one, two = (s.batch(r, 0) for s, r in zip((packed, plain), rows, strict=True))
    assert sorted(x.tobytes() for x in one) == sorted(x.tobytes() for x in two)
    assert packed.labels[:2].tolist() == [0, 1]  # whoever takes the first ones gets both
    assert np.array_equal(pickle.loads(pickle.dumps(packed)).batch(rows[0], 0), one)


@pytest.mark.parametrize("kind", ["npz", "npy", "idx"])
def test_arrays(tmp_path, kind):
    images, labels = noise(28, 28, 50).transpose(2, 0, 1), np.arange(50) % 5
    path = tmp_path / f"x.{kind}"
    if kind == "npz":
        np.savez(path, images=images, labels=labels)
    elif kind == "npy":
        np.save(path, images)
    else:
        path = tmp_path / "x-images-idx3-ubyte"
        path.write_bytes(bytes([0, 0, 8, 3]) + np.array([50, 28, 28], ">u4").tobytes())
        path.write_bytes(path.read_bytes() + images.tobytes())
        head = bytes([0, 0, 8, 1]) + np.array([50], ">u4").tobytes()
        (tmp_path / "x-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    own = preset(1 if kind == "npy" else 5, 1, 28, conditional=kind != "npy")
    train, val = both(own, path)
    assert (len(train), len(val)) == (40, 10)
    whole = {image.tobytes() for image in images}
    assert {x.tobytes() for x in train.batch(np.arange(40), 0)} < whole
    if kind != "npy":
        assert np.bincount(val.labels).tolist() == [2] * 5


def test_what_files_hold_becomes_grey_or_colour(tmp_path, capsys):
    """Alpha on white, palettes as colours, 16 bits scaled, rotated as EXIF says."""
    colour, alpha = noise(8, 16), np.zeros((8, 16, 1), np.uint8)
    files = {
        "alpha.png": png(np.concatenate([colour, alpha], 2)),
        "grey.png": png(colour[..., 0]),
        "sixteen.png": png(colour[..., 0].astype(np.uint16) * 257),
    }
    palette = io.BytesIO()
    Image.fromarray(colour).quantize(8).save(palette, "PNG")
    files["palette.png"] = palette.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    files["rotated.png"] = png(colour, exif=exif)
    (tmp_path / "d").mkdir()
    for name, raw in files.items():
        (tmp_path / "d" / name).write_bytes(raw)
    found = {}
    for source in both(preset(size=8, image_width=16, conditional=False), tmp_path / "d"):
        pixels = source.batch(np.arange(len(source)), 0)
        found |= {path.name: x for path, x in zip(source.files, pixels, strict=True)}
    assert (found["alpha.png"] == 255).all()
    assert np.array_equal(found["grey.png"], np.repeat(colour[..., :1], 3, 2))
    assert np.array_equal(found["sixteen.png"], found["grey.png"])
    assert np.array_equal(found["rotated.png"], colour[::-1, ::-1])
    assert found["palette.png"].shape == (8, 16, 3)
    said = capsys.readouterr().err
    assert "what is transparent is put on white" in said
    assert "16-bit images are scaled" in said


def test_images_that_are_not_square_cover_the_whole(tmp_path):
    (tmp_path / "d").mkdir()
    for number, shape in enumerate([(30, 90), (90, 30), (64, 96), (33, 50)]):
        (tmp_path / "d" / f"{number}.png").write_bytes(png(np.full((*shape, 3), 9, np.uint8)))
    for source in both(preset(size=64, image_width=96, conditional=False), tmp_path / "d"):
        for crop in ("center", "random-resized"):
            source.augmentation = replace(source.augmentation, crop=crop, scale=(0.5, 1.0))
            batch = source.batch(np.arange(len(source)), 3)
            assert batch.shape[1:] == (64, 96, 3)
            assert (batch == 9).all()


BROKEN = {
    "zero bytes": b"",
    "no image": b"no image" * 99,
    "cut short": png(noise())[:300],
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_file_is_named_or_left_out_and_counted(tmp_path, capsys, damage):
    data = write(tmp_path / "d", 10)
    (data / "cat" / "3.png").write_bytes(BROKEN[damage])
    with pytest.raises(UsageError, match=r"3\.png: not a readable image .*skip_broken = true"):
        open_split(preset(2), data, "train")
    train, val = both(preset(2, skip_broken=True), data)
    assert len(train) + len(val) == 19
    train.batch(np.arange(len(train)), 0)
    assert "1 of 20 images are broken and left out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a b.png", 'it\'s "q".png', "new\nline.png", "\U0001f600.png"])
def test_names_may_be_anything(tmp_path, name):
    data = write(tmp_path / "d", 6)
    (data / "cat" / name).write_bytes(png(noise()))
    assert sum(len(source) for source in both(preset(2), data)) == 13
    (data / "cat" / name).write_bytes(b"")
    os.utime(data / "cat" / name, (1, 1))
    forget()
    with pytest.raises(UsageError, match="not a readable image"):
        open_split(preset(2), data, "train")


def _one(root):
    (root / "one.png").write_bytes(png(noise()))


def _beside(root):
    write(root, 3)
    _one(root)


def _loop(root):
    (root / "a").mkdir()
    (root / "a" / "b").symlink_to(root, target_is_directory=True)


def _npz(**arrays):
    return lambda root: np.savez(root / "x.npz", **arrays)


@pytest.mark.parametrize(
    ("make", "path", "says"),
    [
        (lambda root: None, "", "no images there"),
        (lambda root: None, "none", "does not exist"),
        (lambda root: (root / "x.txt").write_text("x"), "x.txt", "another kind of file"),
        (lambda root: (root / "x.zip").write_bytes(b"x"), "x.zip", "not a readable zip"),
        (lambda root: (root / "x.tar").write_bytes(b"x"), "x.tar", "not a readable tar"),
        (lambda root: (root / "x.npz").write_bytes(b"x"), "x.npz", "not a readable array"),
        (_npz(images=np.zeros((4, 8, 8), np.float32)), "x.npz", "float32"),
        (_npz(pictures=np.zeros((4, 8, 8), np.uint8)), "x.npz", "expected arr_0"),
        (_npz(images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(3)), "x.npz", "3 labels"),
        (_npz(images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4)), "x.npz", "4 classes"),
        (_loop, "", "no images there"),
        (_beside, "", "beside the class folders"),
        (_one, "", "no classes there"),
        (lambda root: write(root, 2, "abc"), "", "3 classes, the preset has 2"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, make, path, says):
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    with pytest.raises(UsageError, match=says) as error:
        open_split(preset(2), root / path, "train")
    assert "\n" not in str(error.value)


def test_one_image_is_too_few(tmp_path):
    (tmp_path / "d").mkdir()
    _one(tmp_path / "d")
    with pytest.raises(UsageError, match="no images for val; expected at least 2"):
        open_split(preset(1, conditional=False), tmp_path / "d", "val")


def test_a_second_look_reads_no_file(tmp_path, monkeypatch):
    data = write(tmp_path / "d", 4)
    first = open_split(preset(2), data, "val")
    forget()
    monkeypatch.setattr(images, "_decoded", lambda *_: pytest.fail("read again"))
    assert open_split(preset(2), data, "val").files == first.files


def test_torchvision_by_name(tmp_path, monkeypatch):
    """CIFAR-10's file format, written here."""
    import hashlib

    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cache" / "torchvision" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    sums = []
    for name in ("data_batch_1", "test_batch"):
        rows = {"data": noise(30, 3072, 1)[..., 0], "labels": [i % 10 for i in range(30)]}
        (folder / name).write_bytes(pickle.dumps(rows))
        sums.append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])
    meta = {"label_names": list("abcdefghij")}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(CIFAR10, "train_list", sums[:1])
    monkeypatch.setattr(CIFAR10, "test_list", sums[1:])
    checksum = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    about = {"filename": "batches.meta", "key": "label_names", "md5": checksum}
    monkeypatch.setattr(CIFAR10, "meta", about)
    train, val = both(preset(10, size=32), "torchvision:CIFAR10")
    assert (len(train), len(val)) == (30, 30)
    assert train.classes == list("abcdefghij")
    assert train.batch(np.arange(3), 0).shape == (3, 32, 32, 3)
    with pytest.raises(UsageError, match=r"torchvision:CIFAR1: .*no such data set"):
        open_split(preset(10), "torchvision:CIFAR1", "train")


def test_a_square_is_told_by_one_number(tmp_path):
    """Tokens that were made before images could be otherwise say so in their settings."""
    data = write(tmp_path / "d", 4)
    assert open_split(preset(2), data, "train").settings()["size"] == 16
    wide = open_split(preset(2, image_width=24), data, "train")
    assert wide.settings()["size"] == [16, 24]
