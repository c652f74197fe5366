"""Inception Score: against torch-fidelity, closed forms, and logits that overflow elsewhere."""

import tracemalloc

import numpy as np
import pytest
import torch

from eval.metrics.inception_score import METRIC, inception_score
from maskgit.common.errors import UsageError


@pytest.mark.parametrize(
    ("n", "splits", "seed"), [(1000, 10, 2020), (997, 10, 2020), (128, 1, 2020), (50, 7, 1)]
)
def test_equals_torch_fidelity(n, splits, seed):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = np.random.default_rng(n).normal(0, 4, (n, 10)).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits, True, seed)
    mean, sd = inception_score(logits, splits, seed)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert sd == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-13)


def test_order_is_kept_without_a_seed():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = np.random.default_rng(0).normal(0, 4, (100, 10))
    theirs = isc_features_to_metric(torch.from_numpy(logits), 10, False, 0)
    assert inception_score(logits, 10, None)[0] == pytest.approx(theirs["inception_score_mean"])


@pytest.mark.parametrize("height", [60.0, 1e5])
def test_certain_and_balanced_predictions_score_the_number_of_classes(height):
    logits = np.tile(np.eye(10) * height, (20, 1))
    mean, sd = inception_score(logits, splits=1)
    assert mean == pytest.approx(10)
    assert sd == 0


def test_equal_predictions_score_one_also_when_certain():
    assert inception_score(np.zeros((40, 10)))[0] == pytest.approx(1)
    assert inception_score(np.tile([1e5, 0, 0], (40, 1)))[0] == pytest.approx(1)


def test_shift_of_an_images_logits_and_order_of_images_change_nothing():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (64, 10))
    expected = inception_score(logits, 1)[0]
    moved = (logits + rng.normal(0, 100, (64, 1)))[rng.permutation(64)]
    assert inception_score(moved, 1)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logits", "splits", "says"),
    [
        (np.zeros((9, 10)), 10, "10 splits needs 10 images, got 9"),
        (np.zeros((9, 10)), 0, "splits 0"),
        (np.full((20, 10), np.nan), 10, "NaN"),
        (np.zeros(20), 10, "shape"),
        (np.zeros((0, 10)), 1, "0 rows"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(logits, splits, says):
    with pytest.raises(UsageError, match=says):
        inception_score(logits, splits)


def test_id_names_features_and_version():
    assert METRIC.id("x") == "is.x.v2"


def test_many_images_need_no_second_copy_of_the_logits():
    logits = np.random.default_rng(0).normal(0, 3, (40_000, 50)).astype(np.float32)
    tracemalloc.start()
    inception_score(logits, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < logits.nbytes
