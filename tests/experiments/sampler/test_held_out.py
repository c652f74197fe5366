"""Real images of an evaluation: as many as asked for, and never augmented."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from experiments.engine.cells import Sampling
from experiments.sampler.held_out import find_held_out
from experiments.studies import cas
from experiments.studies.class_conditional.experiment import Options
from experiments.studies.real_images import real_images, validation_images
from maskgit.data.image_folder import Augmentation
from maskgit.data.registry import open_split
from maskgit.presets import load_preset

# More images of a class-sorted folder than the 2,000 that were once the limit of everything.
CLASSES, IN_CLASS, SIZE = 30, 70, 16
PRESET = replace(
    load_preset("imagenet256"),
    name="small",
    num_classes=CLASSES,
    class_names=tuple(f"class {i}" for i in range(CLASSES)),
    image_size=SIZE,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/ and val/ of 30 classes x 70 photos of odd sizes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", IN_CLASS)):
        for c in range(CLASSES):
            place = root / split / f"c{c:02}"
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (SIZE + 2 * i % 7, SIZE + 9, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


def test_all_held_out_images_are_used_unless_a_number_is_asked_for(folder):
    found = find_held_out(PRESET, folder)
    assert len(found) == CLASSES * IN_CLASS > 2000
    assert f"{CLASSES * IN_CLASS} of {CLASSES * IN_CLASS} validation images" in found.words
    some = find_held_out(PRESET, folder, 45)
    assert len(some) == 45
    assert f"45 of {CLASSES * IN_CLASS} validation images" in some.words
    assert np.bincount(some.labels).tolist() == [2] * 15 + [1] * 15  # of each class in turn
    assert some.sha256 != found.sha256
    assert len(list(some.numbered())) == 1


def test_the_shipped_images_have_another_identity_for_another_number():
    preset = load_preset("embedded")
    some, more = find_held_out(preset, None, 20), find_held_out(preset, None, 21)
    assert (len(some), len(more)) == (20, 21)
    assert some.sha256 != more.sha256


@pytest.mark.parametrize(
    ("flag", "count"),
    [pytest.param(None, CLASSES * IN_CLASS, marks=pytest.mark.slow), (50, 50)],
)
def test_cas_validates_on_what_its_page_says(folder, flag, count):
    class Cells:
        preset = PRESET

        def task(self, cell, **_):
            return cell

    options = Options(cas_samples=256, held_out=flag, num_samples=CLASSES, data=folder)
    real = replace(real_images(PRESET, folder), labels=np.repeat(np.arange(CLASSES), 20))
    cells, words, why = cas.cas_tasks(Cells(), options, real, no_baseline="none", randaugment=False)
    assert why == ""
    assert words["cas_validation"] == count
    assert {cell["validation"] for cell in cells} == {count}
    assert len(validation_images(PRESET, folder, cells[0]["validation"])) == count
    assert all(cell["sampler"] == cas.REAL or Sampling.of(cell) for cell in cells)


def test_the_second_half_of_shipped_images_is_never_validated_on():
    preset = load_preset("embedded")
    assert len(validation_images(preset, None, None)) == 5000
    assert len(validation_images(preset, None, 9000)) == 5000


def test_evaluation_never_augments(folder):
    assert PRESET.augments
    found = real_images(PRESET, folder)
    assert "centre crops" in found.words
    picked = [3, 17]
    images, labels, _ = found.pick(picked)
    for image, label, row in zip(images, labels, picked, strict=True):
        assert label == row // 4
        file = Image.open(folder / "train" / f"c{label:02}" / f"{row % 4}.png")
        expected = np.asarray(Augmentation(SIZE)(file, 0, 0, 0))
        assert np.array_equal(image, expected)
    for split in ("train", "val"):
        source = open_split(PRESET, folder, split)
        every = np.arange(len(source))
        assert np.array_equal(source.batch(every, 0), source.batch(every, 1))
    training = open_split(PRESET, folder, "train", augment=True)
    assert not np.array_equal(training.batch(every[:9], 0), training.batch(every[:9], 1))
