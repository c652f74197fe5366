"""Rejection sampling: the share kept, balance, order, ties, cost, and the classifiers."""

import numpy as np
import pytest
import torch
import torchvision.models
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from eval.features.registry import extractor_class
from eval.rejection import (
    PAPER_RATE,
    accept,
    class_scores,
    classifier_names,
    get_classifier,
    num_drawn,
    num_kept,
)
from eval.weights.files import SOURCES
from maskgit.common.errors import Unavailable, UsageError
from maskgit.data.fashion_mnist import load_split

RATES = st.sampled_from([0.005, 0.05, 0.1, 0.3, 1 / 3, 0.7, 1.0])


@st.composite
def drawn(draw):
    """Logits and labels of up to 60 samples of 4 classes, with ties."""
    count = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.integers(-3, 4, (count, 4)) * draw(st.sampled_from([0.5, 100.0]))
    return logits, rng.integers(0, 4, count)


@given(drawn(), RATES)
def test_every_class_keeps_its_share_and_its_best(samples, rate):
    logits, labels = samples
    kept = accept(logits, labels, rate)
    assert (np.diff(kept) > 0).all()
    probability = log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    for c in range(4):
        mine = np.flatnonzero(labels == c)
        chosen = kept[labels[kept] == c]
        assert len(chosen) == num_kept(len(mine), rate)
        left = np.setdiff1d(mine, chosen)
        if len(chosen) and len(left):
            assert probability[chosen].min() >= probability[left].max() - 1e-12


@given(drawn(), RATES, RATES)
def test_a_higher_rate_keeps_the_same_samples_and_more(samples, a, b):
    low, high = (set(accept(*samples, rate).tolist()) for rate in sorted((a, b)))
    assert low <= high


@given(drawn())
def test_rate_one_keeps_everything_in_order(samples):
    np.testing.assert_array_equal(accept(*samples, 1.0), np.arange(len(samples[1])))


@given(st.integers(1, 40), RATES)
def test_what_is_drawn_leaves_exactly_what_is_wanted(wanted, rate):
    labels = np.arange(3 * num_drawn(wanted, rate)) % 3
    logits = np.random.default_rng(0).normal(size=(len(labels), 3))
    kept = labels[accept(logits, labels, rate)]
    np.testing.assert_array_equal(np.bincount(kept), [wanted] * 3)


def test_the_papers_rate_costs_twenty_samples_for_one():
    assert PAPER_RATE == 0.05
    assert num_drawn(50, 0.05) == 1000
    assert num_drawn(3, 0.3) == 10  # 3 / 0.3 is 10.000000000000002 as binary fractions
    assert num_kept(1000, 0.05) == 50
    assert num_kept(29, 0.1) == 2


def test_of_equal_scores_the_earlier_samples_are_kept():
    logits = np.zeros((6, 3))
    np.testing.assert_array_equal(accept(logits, np.array([1, 0, 1, 0, 1, 1]), 0.5), [0, 1, 2])


def test_scores_are_log_odds_also_of_large_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 7)).astype(np.float32) * 1000
    labels = rng.integers(0, 7, 50)
    wanted = log_softmax(logits.astype(np.float64), axis=1)[np.arange(50), labels]
    got = -np.logaddexp(0, -class_scores(logits, labels))
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-15)
    # Two samples whose probabilities are both 1 in float64.
    sure = np.array([[40.0, 0.0], [60.0, 0.0]])
    np.testing.assert_array_equal(accept(sure, np.array([0, 0]), 0.5), [1])


@pytest.mark.parametrize("rate", [0, -0.1, 1.01, float("nan"), float("inf"), "half"])
def test_other_rates_are_refused(rate):
    with pytest.raises(UsageError, match=f"acceptance rate {rate}: expected"):
        accept(np.zeros((4, 3)), np.arange(4) % 3, rate)


def test_what_does_not_fit_is_refused():
    logits, labels = np.zeros((4, 3)), np.array([0, 1, 2, 0])
    for bad_logits, bad_labels, says in (
        (logits[:3], labels, r"logits \(3, 3\) for 4 labels"),
        (logits, labels + 1, "label 3: the classifier has classes 0 to 2"),
        (logits, labels - 1, "expected classes from 0"),
        (logits, labels / 2, "labels float64"),
        (logits + np.nan, labels, "expected finite numbers"),
    ):
        with pytest.raises(UsageError, match=says):
            accept(bad_logits, bad_labels, 0.5)


def test_the_embedded_classifier_keeps_real_images_of_the_class(resnet):
    images, labels = (array[:60] for array in load_split("test"))
    images, labels = np.tile(images, (2, 1, 1, 1)), np.tile(labels, 2)
    true = np.arange(120) < 60
    labels[~true] = (labels[~true] + 5) % 10  # the second half claims to be something else
    # Two of each class and kind, so that half of a class is true.
    pick = np.concatenate(
        [np.flatnonzero((labels == c) & (true == t))[:2] for c in range(10) for t in (True, False)]
    )
    kept = pick[accept(resnet.extract(images[pick]).logits, labels[pick], 0.5)]
    assert len(pick) == 2 * len(kept)
    assert true[kept].mean() > 0.9


def test_classifiers_are_those_with_logits(tmp_path):
    names = classifier_names()
    assert {"resnet50", "fashion-resnet", "efficientnet-lite0"} <= set(names)
    assert all(extractor_class(name).num_logits > 0 for name in names)
    assert "dinov2-vit-l-14" not in names
    for name in ("dinov2-vit-l-14", "resnet18"):
        with pytest.raises(UsageError, match=f"classifier '{name}': expected one of"):
            get_classifier(name)
    with pytest.raises(Unavailable, match=r"fetch resnet50.*rejection sampling with resnet50"):
        get_classifier("resnet50", tmp_path)


@pytest.mark.slow
def test_resnet_50_is_torchvisions_with_its_own_preprocessing(tmp_path):
    from PIL import Image

    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    torch.save(model.state_dict(), tmp_path / SOURCES["resnet50"].file)
    classifier = get_classifier("resnet50", tmp_path)
    rng = np.random.default_rng(0)
    prepare = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    for size in ((256, 256), (120, 180)):
        images = rng.integers(0, 256, (2, *size, 3), np.uint8)
        # torchvision resizes tensors and PIL images alike; PIL is what the weights were made with.
        inputs = torch.stack([prepare(Image.fromarray(image)) for image in images])
        with torch.inference_mode():
            wanted = model(inputs).numpy()
        got = classifier.extract(images)
        assert got.features.shape == (2, 2048)
        np.testing.assert_allclose(got.logits, wanted, rtol=2e-3, atol=2e-3)
    assert "not the published file" in str(classifier.protocol["weights"])
