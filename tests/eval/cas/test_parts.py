"""The parts of CAS: the network and its recipe, batches and augmentation."""

import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eval.cas import recipe as cas_recipe
from eval.cas.data import TrainingBatches, ValidationImages, geometry, labelled, normalize
from eval.cas.recipe import RECIPES, STEMS, Recipe, build_network, build_optimizer, get_recipe
from eval.cas.training import Training
from maskgit.common.errors import UsageError


def noise(count, size=32, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, size, size, channels), np.uint8)
    return labelled(pixels, rng.integers(0, 3, count))


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 8), ("stride-4", 8), ("stride-1", 32)])
def test_the_stem_leaves_what_its_name_says(stem, side):
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    shape = {}
    real = build_network(stem, 10, 0)
    real.layer1.register_forward_pre_hook(lambda _, inputs: shape.update(x=inputs[0].shape))
    with torch.inference_mode():
        assert real.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert shape["x"] == (1, 64, side, side)
    same = {k for k, v in model.state_dict().items() if real.state_dict()[k].shape != v.shape}
    assert same == {"fc.weight", "fc.bias"} | ({"conv1.weight"} if stem != "imagenet" else set())
    assert sum(p.numel() for p in real.parameters()) == (
        25_557_032 - 990 * 2049 - (0 if stem == "imagenet" else 40 * 3 * 64)
    )


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = build_network("stride-4", 3, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    again, other = build_network("stride-4", 3, 1), build_network("stride-4", 3, 2)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert torch.count_nonzero(first.layer1[0].bn3.weight) == 0


def test_biases_and_normalisation_do_not_decay():
    model = build_network("stride-4", 3, 0)
    decay = {
        id(p): group["weight_decay"]
        for group in build_optimizer(model, RECIPES["long"]).param_groups
        for p in group["params"]
    }
    for name, p in model.named_parameters():
        layer = "conv" in name or "downsample.0" in name or name == "fc.weight"
        assert decay[id(p)] == (1e-4 if layer else 0), name


def test_the_long_recipe_has_the_rates_of_goyal_et_al():
    long = RECIPES["long"]
    rates = [long.rate_at(step, 100) for step in range(9000)]
    for epoch, rate in ((6, 0.1), (29, 0.1), (30, 0.01), (59, 0.01), (60, 0.001), (80, 0.0001)):
        assert rates[100 * epoch] == pytest.approx(rate), epoch
    assert 0 < rates[0] < 0.0003
    assert np.all(np.diff(rates[:501]) > 0)


@given(
    st.integers(1, 20), st.integers(1, 50), st.floats(0, 0.99), st.sampled_from(["cosine", "steps"])
)
def test_rates_rise_to_the_peak_and_fall(epochs, per_epoch, warmup, schedule):
    recipe = Recipe("x", "stride-4", epochs, 512, 0.3, warmup * epochs, schedule)
    recipe.check()
    rates = np.array([recipe.rate_at(step, per_epoch) for step in range(epochs * per_epoch)])
    top = rates.argmax()
    assert (rates > 0).all()
    assert rates.max() <= 0.6 * (1 + 1e-9)  # twice the rate of a batch of 256
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 0).all()


def test_auto_chooses_by_size_and_small_images_keep_their_pixels():
    assert get_recipe("auto", 32).name == "embedded"
    assert get_recipe("auto", 256).stem == "imagenet"
    assert get_recipe("long", 32).stem == "stride-1"
    assert get_recipe("long", 32, stem="imagenet").stem == "imagenet"
    assert get_recipe("short", 256, epochs=1).warmup_epochs == 1 / 8
    for changes, says in (
        ({"stem": "big"}, "--stem big"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"rate": math.nan}, "--rate nan"),
        ({"warmup_epochs": 16}, "warm-up of 16 epochs"),
        ({"label_smoothing": 1.0}, "label smoothing 1.0"),
        ({"schedule": "up"}, "expected cosine or steps"),
    ):
        with pytest.raises(UsageError, match=says):
            get_recipe("short", 256, **changes)


def batches(data, randaugment=False, seed=0):
    return TrainingBatches(data, geometry(data.images[0]), randaugment, seed)


def test_every_epoch_has_every_image_once_in_an_order_of_its_own():
    data = noise(22)
    keys = list(batches(data).keys(0, 10, 4))  # 5 batches an epoch, 2 images left out
    for epoch in (0, 1):
        seen = [key for batch in keys[5 * epoch : 5 * epoch + 5] for key in batch]
        assert {e for e, _ in seen} == {epoch}
        assert len({index for _, index in seen}) == 20
    assert [i for _, i in keys[0]] != [i for _, i in keys[5]]
    assert list(batches(data).keys(7, 10, 4)) == keys[7:]
    assert list(batches(data, seed=1).keys(0, 10, 4)) != keys


@pytest.mark.parametrize("randaugment", [False, True])
def test_augmentation_depends_on_seed_epoch_and_image_only(randaugment):
    data = noise(8)
    first, again = batches(data, randaugment), batches(data, randaugment)
    pictures = {(e, i): first[e, i][0] for e in range(3) for i in range(8)}
    torch.manual_seed(9)
    for key in reversed(pictures):
        assert torch.equal(again[key][0], pictures[key])
    assert sum(torch.equal(pictures[0, i], pictures[1, i]) for i in range(8)) < 4
    assert not torch.equal(batches(data, randaugment, 1)[0, 0][0], pictures[0, 0])


def test_small_images_are_shifted_by_up_to_an_eighth_and_mirrored():
    pixels = np.zeros((1, 32, 32, 1), np.uint8)
    pixels[0, 10, 12] = 255
    data = batches(labelled(pixels, np.array([0])))
    seen = set()
    for epoch in range(300):
        image = data[epoch, 0][0]
        assert image.shape == (3, 32, 32)
        assert torch.equal(image[0], image[2])
        seen.add(tuple(torch.nonzero(image[0])[0].tolist()))
    rows, columns = zip(*seen, strict=True)
    assert (min(rows), max(rows)) == (6, 14)
    assert (min(columns), max(columns)) == (8, 23)  # 31 - 8: mirrored


def test_large_images_are_cropped_and_validated_on_the_resized_centre():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 300, 400, 3), np.uint8)
    data = labelled(pixels, np.array([1]))
    shape = geometry(pixels[0])
    assert batches(data)[0, 0][0].shape == (3, 224, 224)
    got, label = ValidationImages(data, shape)[0]
    assert label == 1
    resized = Image.fromarray(pixels[0]).resize((341, 256), Image.Resampling.BILINEAR)
    wanted = np.asarray(resized.crop((58, 16, 58 + 224, 16 + 224)))
    difference = np.abs(got.permute(1, 2, 0).numpy().astype(int) - wanted)
    assert difference.max() <= 1  # two libraries' roundings
    assert geometry(np.zeros((128, 128, 3), np.uint8)).size == (128, 128)
    assert geometry(np.zeros((128, 128, 3), np.uint8)).resize == 146


def test_inputs_are_imagenets_normalisation():
    x = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    got = normalize(x)
    wanted = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(got, wanted(x.float() / 255))
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_mixed_sizes_work_for_large_images_only(tmp_path):
    for name, size in (("a/0.png", 70), ("a/1.png", 90), ("b/2.png", 80)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (size, size), (size, 0, 0)).save(tmp_path / name)
    data = labelled(tmp_path)
    assert data.class_names == ["a", "b"]
    assert [len(image) for image in data.images] == [70, 90, 80]
    assert batches(data)[0, 1][0].shape == (3, 70, 70)
    assert data.subset(np.array([2])).labels.tolist() == [1]


@pytest.mark.slow
def test_resnet_50_itself_goes_on_after_a_cut_bit_by_bit(tmp_path, monkeypatch):
    data = noise(16)
    recipe = get_recipe("embedded", 32, epochs=3, batch_size=8)
    networks = []
    original = cas_recipe.build_network
    monkeypatch.setattr(
        "eval.cas.training.build_network",
        lambda *a: networks.append(original(*a)) or networks[-1],
    )

    def training(folder):
        return Training(
            "samples", data, noise(8, seed=1), 3, geometry(data.images[0]), recipe, 0,
            folder=folder, checkpoint_seconds=0,
        )  # fmt: skip

    def stop(what, done, total):
        if done == 4:
            raise KeyboardInterrupt

    whole = training(None).run()
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path).run(stop)
    resumed = training(tmp_path).run()
    assert resumed["final_train_loss"] == whole["final_train_loss"]
    assert resumed["per_class"] == whole["per_class"]
    for (name, a), b in zip(
        networks[0].state_dict().items(), networks[2].state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert set(STEMS) == {"imagenet", "stride-4", "stride-2", "stride-1"}
