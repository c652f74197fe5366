"""References have the geometry of the samples that are compared with them, or say another."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from torchvision.transforms import v2

from eval.evaluate import Options, evaluate
from eval.images.source import ImageSource, parse_crop
from eval.reference.build import build_reference, import_statistics
from experiments import build_reference as script
from experiments.sampler.feature_networks import find_feature_network
from maskgit.common.errors import Unavailable, UsageError
from maskgit.data.registry import open_split
from maskgit.presets import load_preset

SIZE = 32
CROP = "shorter side resized to 32 (bilinear, antialiased), centre crop 32x32"
LITE = "efficientnet-lite0"
pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    lite = "eval.features.efficientnet_lite0.EfficientNetLite0Extractor"
    monkeypatch.setattr(f"{lite}.chunk", 4)


@pytest.fixture
def photos(tmp_path):
    """FOLDER/train and FOLDER/val: photos of several sizes in two classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i, size in enumerate([(75, 50), (50, 75), (64, 64), (71, 40)]):
            path = tmp_path / "photos" / split / f"c{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (301, 200), (200, 201), (32, 32)])
def test_crops_are_torchvisions_and_a_circle_stays_one(tmp_path, size):
    image = Image.new("RGB", size)
    x, y, radius = size[0] / 2, size[1] / 2, min(size) / 3
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill="white")
    image.save(tmp_path / "a.png")
    (found,) = next(ImageSource(tmp_path, crop=SIZE).batches(1))
    pipeline = v2.Compose([v2.Resize(SIZE, antialias=True), v2.CenterCrop(SIZE)])
    assert np.array_equal(found, np.asarray(pipeline(image)))
    inside = found[..., 0] > 127
    assert abs(int(inside.any(0).sum()) - int(inside.any(1).sum())) <= 1


def test_a_preset_s_reference_is_of_its_own_split_and_crop(photos, tmp_path, monkeypatch):
    text = '[data]\nkind="imagefolder"\nnum_classes=2\nimage_size=32\ncrop="random-resized"\n'
    text += "flip=true\n[tokenizer]\nchannels=3\n"
    text += f'[evaluation]\nfeatures="{LITE}"\nreference="own-val"\nreference_split="val"\n'
    (tmp_path / "own.toml").write_text('base = "embedded"\n' + text)
    script.run(str(tmp_path / "own.toml"), photos)
    from eval.features.registry import get_extractor
    from eval.reference.files import load_reference

    reference = load_reference("own-val", LITE)
    assert reference.geometry == f"32x32 ({CROP})"
    assert reference.n == 4
    source = open_split(load_preset(tmp_path / "own.toml"), photos, "val")
    expected = get_extractor(LITE).extract(source.batch(np.arange(4), 0)).features
    assert np.allclose(reference.mean, expected.mean(axis=0), atol=1e-5)
    assert find_feature_network(LITE, "own-val", None, (SIZE, SIZE, 3)).why_no_reference == ""


def test_a_reference_of_a_preset_that_is_not_square_has_its_geometry(photos, tmp_path):
    text = '[data]\nkind="imagefolder"\nnum_classes=2\nimage_size=32\nimage_width=48\n'
    text += 'crop="center"\n[tokenizer]\nchannels=3\n'
    text += f'[evaluation]\nfeatures="{LITE}"\nreference="wide"\n'
    (tmp_path / "own.toml").write_text('base = "embedded"\n' + text)
    script.run(str(tmp_path / "own.toml"), photos)
    found = find_feature_network(LITE, "wide", None, (32, 48, 3))
    assert (found.why_no_reference, found.why_missing) == ("", "")


def test_an_experiment_refuses_a_reference_of_whole_photos(photos):
    from eval.features.registry import get_extractor

    whole = ImageSource(photos / "val", any_size=True)
    build_reference("whole", whole, get_extractor(LITE))
    found = find_feature_network(LITE, "whole", None, (SIZE, SIZE, 3))
    assert found.reference_sha256 == "missing"
    assert "its images are 71x40 to 64x64, the samples 32x32" in found.why_no_reference


def test_a_number_against_other_sizes_says_so_in_its_id(photos, tmp_path):
    samples = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    np.savez(tmp_path / "samples.npz", arr_0=samples)
    told = {
        "reference": str(photos / "val"),
        "metrics": "fid",
        "features": LITE,
        "device": "cpu",
    }
    images = (str(tmp_path / "samples.npz"),)
    whole = evaluate(Options(images, **told))
    assert whole["metrics"]["fid"]["id"] == f"fid.{LITE}.v1.reference-71x40-to-64x64"
    cut = evaluate(Options(images, **told, crop="center", size=SIZE))
    assert cut["metrics"]["fid"]["id"] == f"fid.{LITE}.v1"
    assert cut["protocol"]["reference_geometry"] == f"32x32 ({CROP})"
    assert cut["metrics"]["fid"]["value"] != whole["metrics"]["fid"]["value"]


def test_published_statistics_carry_their_size(tmp_path, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr("eval.reference.build.extractor_class", lambda name: SimpleNamespace(dim=2))
    for name in ("VIRTUAL_imagenet256_labeled.npz", "mine.npz"):
        np.savez(tmp_path / name, mu=np.zeros(2), sigma=np.eye(2))
    known = import_statistics("adm", tmp_path / "VIRTUAL_imagenet256_labeled.npz", "a")
    assert known.geometry.startswith("256x256 (ADM's: ")
    known.check_geometry(256, 256)
    with pytest.raises(Unavailable, match="the samples 512x512"):
        known.check_geometry(512, 512)
    unknown = import_statistics("adm", tmp_path / "mine.npz", "b")
    assert unknown.geometry.startswith("of unknown size")
    unknown.check_geometry(512, 512)
    assert import_statistics("adm", tmp_path / "mine.npz", "c", size=64).geometry.startswith(
        "64x64"
    )


@pytest.mark.parametrize(("crop", "size"), [("center", None), ("none", 64)])
def test_a_crop_needs_its_size(crop, size):
    with pytest.raises(UsageError, match=f"--crop {crop} --size {size}: expected --crop center"):
        parse_crop(crop, size)
