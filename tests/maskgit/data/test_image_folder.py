"""Image folders: order of the classes, augmentation, workers, broken files."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from maskgit.common.errors import UsageError
from maskgit.data.image_folder import Augmentation, ImageFolder, check_same_classes
from maskgit.training.feed import Feed
from maskgit.training.loop import DataOrder
from tests.maskgit.training.training_doubles import CLASSES, make_folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


TRAIN = Augmentation(16, "random-resized", (0.5, 1.0), flip=True)


def test_classes_have_imagenets_order(root):
    folder = ImageFolder(root, "train", TRAIN, num_classes=3)
    assert folder.classes == sorted(CLASSES)
    assert folder.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    red = [folder.image(i)[..., 0].mean() for i in (0, 4, 8)]
    assert red[0] < red[1] < red[2], "class numbers do not follow the sorted ids"


def test_crop_depends_on_seed_epoch_and_image_only(root):
    folder = ImageFolder(root, "train", TRAIN)
    whole = folder.batch(np.arange(12), np.full(12, 3))
    torch.manual_seed(99)  # the global generators do not matter
    np.random.seed(99)  # noqa: NPY002
    again = ImageFolder(root, "train", TRAIN)
    assert np.array_equal(again.image(7, 3), whole[7])
    assert np.array_equal(again.batch(np.array([9, 2]), np.array([3, 3])), whole[[9, 2]])
    assert not np.array_equal(again.image(7, 4), whole[7])
    assert not np.array_equal(ImageFolder(root, "train", TRAIN, seed=1).image(7, 3), whole[7])
    before = torch.random.get_rng_state()
    again.image(0, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_crops_are_spread_over_area_aspect_and_flip():
    """On coordinate images: what share of the area, which aspect ratio, how many flipped."""
    y, x = np.mgrid[0:256, 0:256].astype(np.uint8)
    image = Image.fromarray(np.stack([x, y, x * 0], -1))
    areas, ratios, flips = [], [], []
    for i in range(400):
        crop = np.asarray(Augmentation(64, "random-resized", (0.3, 1.0), True)(image, 0, 0, i))
        left, right = crop[:, 2, 0].mean(), crop[:, -3, 0].mean()
        flips.append(left > right)
        # The slopes of the coordinates are the sides of the box over the size of the crop.
        width = abs(right - left) / 59 * 64
        height = (crop[-3, :, 1].mean() - crop[2, :, 1].mean()) / 59 * 64
        areas.append(width * height / 256**2)
        ratios.append(width / height)
    assert 0.29 < min(areas) < 0.35
    assert 0.9 < max(areas) < 1.02
    assert 0.73 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.36
    assert np.log(ratios).mean() == pytest.approx(0.0, abs=0.04)
    assert np.mean(flips) == pytest.approx(0.5, abs=0.1)


def test_validation_crop_is_torchvisions_centre_crop(root):
    from torchvision import transforms

    folder = ImageFolder(root, "train", Augmentation(16))
    expected = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16)])
    with Image.open(folder.paths[5]) as image:
        assert np.array_equal(folder.image(5, epoch=8), np.asarray(expected(image)))


def test_small_and_grey_images_and_those_with_an_opaque_alpha_become_colour(tmp_path):
    for name, mode in (("a", "L"), ("b", "RGBA"), ("c", "P"), ("d", "CMYK")):
        (tmp_path / "train" / name).mkdir(parents=True)
        image = Image.new(mode, (7, 5), (9, 9, 9, 255) if mode == "RGBA" else 0)
        image.save(tmp_path / "train" / name / ("x.tif" if mode == "CMYK" else "x.png"))
    folder = ImageFolder(tmp_path, "train", TRAIN)
    assert folder.batch(np.arange(4), 0).shape == (4, 16, 16, 3)
    grey = ImageFolder(tmp_path, "train", TRAIN, channels=1)
    assert grey.image(0).shape == (16, 16, 1)


def test_without_labels_all_images_count_however_deep(tmp_path):
    make_folder(tmp_path, 2, classes={"a/abbey": 0, "a/arch/outer": 1, "z": 2})
    folder = ImageFolder(tmp_path, "train", TRAIN, conditional=False, num_classes=1)
    assert len(folder) == 6
    assert folder.labels.tolist() == [0] * 6


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, r"--data .*expected the folders train and val.*train is missing"),
        (lambda p: (p / "train").mkdir(), r"train: .*class folder"),
        (lambda p: (p / "train" / "n01").mkdir(parents=True), r"train: .*n01"),
        (lambda p: make_folder(p, 1), r"3 class folders in .*train, the preset has 1000"),
    ],
)
def test_folder_that_does_not_fit_is_one_clear_line(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(UsageError, match=message) as error:
        ImageFolder(tmp_path, "train", TRAIN, num_classes=1000)
    assert "\n" not in str(error.value)


def test_splits_with_other_classes_are_refused(tmp_path):
    make_folder(tmp_path, 1)
    make_folder(tmp_path, 1, "val", classes={**CLASSES, "n09": 1})
    folders = [ImageFolder(tmp_path, split, TRAIN) for split in ("train", "val")]
    with pytest.raises(UsageError, match=r"val: not the classes of .*n09"):
        check_same_classes(*folders)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_named(tmp_path, damage, workers):
    make_folder(tmp_path, 2)
    path = sorted((tmp_path / "train").rglob("*.JPEG"))[3]
    raw = path.read_bytes()
    path.write_bytes(
        {"truncated": raw[: len(raw) // 2], "foreign": b"no image" * 9, "empty": b""}[damage]
    )
    folder = ImageFolder(tmp_path, "train", TRAIN)
    feed = Feed(folder, DataOrder(6, 6, 0), Accelerator(cpu=True), workers=workers)
    with pytest.raises(UsageError) as error:
        feed.images(0, 0)
    assert str(path) in str(error.value)
    assert "not a readable image" in str(error.value)
    assert "\n" not in str(error.value)


def test_workers_accumulation_and_resume_do_not_change_what_is_fed(root):
    folder = ImageFolder(root, "train", TRAIN)
    order = DataOrder(len(folder), 5, seed=0)
    accelerator = Accelerator(cpu=True)
    alone = Feed(folder, order, accelerator)
    ahead = Feed(folder, order, accelerator, accumulate=2, workers=2)
    for step in (0, 1, 2, 7, 8):  # 7 is a resume, also into another epoch
        whole = alone.images(step, 0)
        for part in range(2):
            assert np.array_equal(ahead.images(step, part), whole[part::2]), (step, part)


def test_augmentation_refuses_what_it_does_not_know():
    with pytest.raises(UsageError, match="crop random: expected one of"):
        Augmentation(16, "random")
    with pytest.raises(UsageError, match="crop scale"):
        Augmentation(16, "center", (0.9, 0.1))
