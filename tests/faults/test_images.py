"""What eval, training and a mask of inpaint make of odd and damaged image files: one meaning each.

Pillow's warnings about such files are not looked at.
"""

import io
import os
import struct

import numpy as np
import PIL.features
import pytest
from PIL import Image

from eval.images.source import ImageSource
from maskgit.common.errors import UsageError
from maskgit.data.image_folder import Augmentation, ImageFolder
from maskgit.data.photos import load_photo
from maskgit.presets import load_preset
from tests.faults.abuse import damaged, fault, report

SIDE = 16
pytestmark = pytest.mark.filterwarnings("ignore")


def gradient(low, high, dtype):
    return np.linspace(low, high, SIDE * SIDE).reshape(SIDE, SIDE).astype(dtype)


def trained(folder, channels=1):
    """The only image of a folder as training reads it, uint8 (16, 16, C)."""
    return ImageFolder(folder, "train", Augmentation(SIDE), channels=channels).image(0)


def measured(folder):
    """The only image of a folder as eval reads it, uint8 (16, 16, C)."""
    return ImageSource(folder / "train").first()


@pytest.fixture
def put(tmp_path):
    """put(image, name, ...) saves a PIL image as the only one of a folder, which it returns."""

    def save(image, name="x.png", **more):
        place = tmp_path / "train" / "class"
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            (place / name).write_bytes(image)
        else:
            image.save(place / name, **more)
        return tmp_path

    return save


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_training_scales_sixteen_bits_as_eval_does(put, name):
    image = Image.fromarray(gradient(0, 65535, np.uint16))
    folder = put(image, name)
    assert np.array_equal(trained(folder), measured(folder))


def test_training_refuses_floating_point_as_eval_does(put):
    folder = put(Image.fromarray(gradient(0, 1, np.float32)), "x.tif")
    with pytest.raises(UsageError):
        measured(folder)
    with pytest.raises(UsageError):
        trained(folder)


def orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def palette():
    image = Image.fromarray(gradient(0, 255, np.uint8)).convert("P")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    return image


def transparent():
    image = Image.new("RGBA", (SIDE, SIDE), (200, 10, 10, 0))
    return image


@pytest.mark.parametrize("kind", ["transparent", "palette with transparency"])
def test_training_and_eval_agree_on_what_they_refuse(put, kind):
    image = transparent() if kind == "transparent" else palette()
    more = {} if kind == "transparent" else {"transparency": 3}
    folder = put(image, "x.png", **more)
    outcomes = []
    for read in (lambda: trained(folder, 3), lambda: measured(folder)):
        try:
            outcomes.append(read().tolist())
        except UsageError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


def test_training_and_eval_agree_on_palettes_orientation_and_cmyk(put):
    ink = Image.fromarray(np.full((SIDE, SIDE, 4), 60, np.uint8), "CMYK")
    rotated = Image.fromarray(gradient(0, 255, np.uint8)).convert("RGB")
    cases = [(palette(), "x.png", {}), (ink, "x.jpg", {})]
    cases += [(rotated, "x.jpg", {"exif": orientation(6)})]
    for image, name, more in cases:
        folder = put(image, name, **more)
        assert np.array_equal(trained(folder, 3), measured(folder))
        (folder / "train" / "class" / name).unlink()


# The mask of `maskgit inpaint` in the pixels that the user sees.


@pytest.fixture
def photo(tmp_path):
    """A 16x32 photo of the embedded preset, 16 rows high, and a mask's path."""
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "photo.png")
    return load_photo(tmp_path / "photo.png", load_preset("embedded")), tmp_path


def upper_half(height=32, width=32):
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    return mask


def test_a_mask_is_turned_as_its_exif_says(photo):
    taken, folder = photo
    # Stored on its side: orientation 6 turns it by 90 degrees, so that the left half is on top.
    Image.fromarray(upper_half().T.copy()).save(folder / "m.jpg", exif=orientation(6), quality=100)
    assert taken.mask(folder / "m.jpg")[:14].all()
    assert not taken.mask(folder / "m.jpg")[18:].any()


def test_a_mask_of_sixteen_bits_is_scaled(photo):
    taken, folder = photo
    values = np.where(upper_half() > 0, 65535, 1000).astype(np.uint16)
    Image.fromarray(values).save(folder / "m.png")
    assert np.array_equal(taken.mask(folder / "m.png"), upper_half() > 0)


def test_a_mask_that_is_drawn_in_the_alpha_channel_is_no_empty_mask(photo):
    taken, folder = photo
    pixels = np.full((32, 32, 4), 255, np.uint8)
    pixels[..., 3] = upper_half()
    Image.fromarray(pixels).save(folder / "m.png")
    try:
        mask = taken.mask(folder / "m.png")
    except UsageError:
        return
    assert np.array_equal(mask, upper_half() > 0)


# Damaged files of every kind: refused in one line, with --skip-broken left out.

FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}
if PIL.features.check("webp"):
    FORMATS["webp"] = "WEBP"


def encoded(kind, **more):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **more)
    return buffer.getvalue()


def without_width():
    """A TIFF of two pages, whose second has no ImageWidth: that tag has another number."""
    buffer = io.BytesIO()
    page = Image.fromarray(gradient(0, 255, np.uint8))
    page.save(buffer, "TIFF", save_all=True, append_images=[page])
    raw = buffer.getvalue()
    found = max(raw.rfind(struct.pack("<HH", 256, kind)) for kind in (3, 4))
    assert found > 0
    return raw[:found] + struct.pack("<H", 251) + raw[found + 2 :]


def bad_exif():
    """A JPEG whose EXIF block is garbage after its header."""
    raw = encoded("JPEG", exif=orientation(6))
    found = raw.find(b"Exif\0\0")
    assert found > 0
    return raw[: found + 10] + b"\xff" * 12 + raw[found + 22 :]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def test_a_tiff_without_dimensions(put):
    folder = put(without_width(), "x.tif")
    assert fault(lambda: measured(folder)) == ""


def test_a_tiff_without_dimensions_in_training(put):
    folder = put(without_width(), "x.tif")
    assert fault(lambda: trained(folder, 3)) == ""


def test_garbage_in_exif_is_read_or_refused(put):
    folder = put(bad_exif(), "x.jpg")
    assert fault(lambda: measured(folder)) == ""
    assert fault(lambda: trained(folder, 3)) == ""


def test_garbage_in_a_photos_exif(tmp_path):
    wrong = {}
    raw = encoded("JPEG", exif=orientation(6))
    start = raw.find(b"Exif\0\0")
    for name, content in damaged(raw[start : start + 40], 200, seed=2):
        path = tmp_path / "x.jpg"
        path.write_bytes(raw[:start] + content[:40].ljust(40, b"\xff") + raw[start + 40 :])
        what = fault(lambda path=path: load_photo(path, load_preset("embedded")))
        if what:
            wrong[name] = what
    assert not wrong


@pytest.fixture
def ghost(tmp_path, monkeypatch):
    """A program called gs that notes that it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {folder}/called\nexit 1\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None, raising=False)
    return folder / "called"


@pytest.mark.parametrize("reader", ["eval", "training", "photo"])
def test_an_eps_runs_no_program(put, ghost, reader):
    folder = put(EPS, "x.png")
    path = folder / "train" / "class" / "x.png"
    call = {
        "eval": lambda: measured(folder),
        "training": lambda: trained(folder),
        "photo": lambda: load_photo(path, load_preset("embedded")),
    }[reader]
    assert fault(call) == ""
    assert not ghost.exists()


# Training takes the kinds of files that torchvision's ImageFolder takes.
CASES = [(reader, end) for reader in ("eval", "training", "photo") for end in FORMATS]
CASES.remove(("training", "gif"))


@pytest.mark.slow
@pytest.mark.parametrize(("reader", "end"), CASES)
def test_damaged_images_are_read_or_refused_in_one_line(put, reader, end):
    raw = encoded(FORMATS[end])
    folder = put(raw, f"x.{end}")
    path = folder / "train" / "class" / f"x.{end}"
    call = {
        "eval": lambda: measured(folder),
        "training": lambda: trained(folder, 3),
        "photo": lambda: load_photo(path, load_preset("embedded")),
    }[reader]
    call()
    wrong = {}
    cases = [(name, head + raw[200:]) for name, head in damaged(raw[:200], 150, seed=1)]
    cases += damaged(raw, 150)
    for name, content in cases:
        path.write_bytes(content)
        if what := fault(call):
            wrong[name] = what
    report(wrong, len(cases))
