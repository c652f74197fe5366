"""Training of the embedded benchmark's classifier: it learns, repeats, and is saved whole."""

import json

import numpy as np
import pytest
import torch

from eval.features import classifier_training as training
from eval.features.fashion_resnet import FashionResNet
from eval.features.registry import get_extractor
from maskgit.common.errors import UsageError


def stripes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that no shift or mirror mixes up: horizontal and vertical stripes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    lines = (np.arange(32) // 4 % 2 * 120).astype(np.uint8)
    images = np.where(labels[:, None, None] == 0, lines[:, None], lines[None, :])
    images = images + rng.integers(0, 100, images.shape)
    return images.astype(np.uint8)[..., None], labels


def test_it_learns_and_the_saved_weights_are_the_loaded_ones(tmp_path):
    images, labels = stripes(128)
    seen = []
    model, loss = training.train(
        images, labels, epochs=10, progress=lambda step, steps, value: seen.append((step, steps))
    )
    assert seen == [(i + 1, 10) for i in range(10)]
    assert loss < 0.3
    state = training.half_precision(model)
    model.load_state_dict(state, strict=False)
    test_images, test_labels = stripes(100, seed=1)
    assert training.accuracy(model, test_images, test_labels) > 0.95
    card = {
        "data": "stripes",
        "command": "none",
        "budget": {"epochs": 8},
        "final_train_loss": loss,
        "test_accuracy": 1.0,
        "parameters": 1,
        "versions": {"torch": torch.__version__},
    }
    sha256 = training.save_classifier(state, tmp_path, card)
    extractor = get_extractor("fashion-resnet", tmp_path)
    assert extractor.weights_sha256 == sha256
    logits = extractor.extract(test_images).logits
    with torch.inference_mode():
        expected = model.eval()(training.to_input(test_images))[1].numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert json.loads((tmp_path / "card.json").read_text())["sha256"] == sha256
    assert sha256 in (tmp_path / "README.md").read_text()


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    images, labels = stripes(128)
    first, again, other = (
        training.train(images, labels, epochs=2, seed=seed)[0].head.weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmentation_only_shifts_and_mirrors():
    image = torch.zeros(1, 1, 32, 32)
    image[0, 0, 10, 8] = 1.0
    out = training.augment(image.expand(400, -1, -1, -1), torch.Generator().manual_seed(0))
    places = {tuple(torch.nonzero(x[0])[0].tolist()) for x in out}
    assert torch.equal(out.sum(dim=(1, 2, 3)), torch.ones(400))
    columns = {8 + s for s in range(-2, 3)} | {23 + s for s in range(-2, 3)}
    assert places == {(10 + s, c) for s in range(-2, 3) for c in columns}


def test_features_are_pooled_and_never_negative():
    features, logits = FashionResNet().eval()(torch.rand(3, 1, 32, 32))
    assert features.shape == (3, 64)
    assert logits.shape == (3, 10)
    assert (features >= 0).all()


@pytest.mark.parametrize(
    ("images", "labels", "epochs", "says"),
    [
        (np.zeros((128, 32, 32, 1), np.uint8), np.zeros(128), 0, "--epochs 0"),
        (np.zeros((128, 32, 32, 1), np.uint8), np.zeros(128), float("nan"), "--epochs nan"),
        (np.zeros((127, 32, 32, 1), np.uint8), np.zeros(127), 1, "at least 128"),
        (np.zeros((128, 32, 32, 1), np.uint8), np.zeros(9), 1, "9 labels"),
        (np.zeros((128, 28, 28, 1), np.uint8), np.zeros(128), 1, "must be uint8"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(images, labels, epochs, says):
    with pytest.raises(UsageError, match=says):
        training.train(images, labels, epochs=epochs)
