"""Streaming statistics and the shipped reference."""

import itertools
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.statistics import Statistics
from eval.reference import files as module
from eval.reference.files import Reference, load_reference, read_reference, write_reference
from eval.weights.files import ZOO, weights_path, weights_sha256
from maskgit.common.errors import Unavailable, UsageError

NAME = "fashion-mnist-train"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_batches_in_any_order_give_numpys_mean_and_covariance(seed, sizes, dim, random):
    sizes = [*sizes, 2]
    rows = np.random.default_rng(seed).normal(3, 2, (sum(sizes), dim))
    cuts = list(itertools.pairwise(np.cumsum([0, *sizes])))
    random.shuffle(cuts)
    total = Statistics(dim)
    for start, stop in cuts:
        total.update(rows[start:stop])
    assert total.n == len(rows)
    np.testing.assert_allclose(total.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(total.cov, np.cov(rows, rowvar=False).reshape(dim, dim), atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 20), min_size=1, max_size=7),
    st.sampled_from([0.0, -1e4, 1e8]),
)
def test_any_batches_give_the_one_shot_result_also_far_from_zero(seed, sizes, offset):
    rows = np.random.default_rng(seed).normal(size=(sum(sizes) + 3, 3)) + offset
    total = Statistics(3)
    for start, stop in itertools.pairwise(np.cumsum([0, 3, *sizes])):
        total.update(rows[start:stop])
    # Rounding of the rows themselves is 1.5e-8 at 1e8; a sum of squares there would lose all.
    near = rows - offset
    np.testing.assert_allclose(total.mean - offset, near.mean(0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(total.cov, np.cov(near, rowvar=False), rtol=0, atol=1e-6)
    assert total.n == len(rows)


@pytest.mark.parametrize("batch_size", [77, 5000])
def test_a_mean_of_1e8_does_not_drown_the_covariance(batch_size):
    rows = np.random.default_rng(0).normal(size=(5000, 4)) + 1e8
    far = Statistics.of(rows, batch_size)
    np.testing.assert_allclose(far.cov, np.cov(rows - 1e8, rowvar=False), rtol=0, atol=1e-9)


def test_memory_does_not_grow_with_the_number_of_rows():
    rows = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
    peaks = []
    for repeats in (3, 30):
        statistics = Statistics(64)
        tracemalloc.start()
        for _ in range(repeats):
            statistics.update(rows)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 10_000


def test_arrays_come_back_and_go_on():
    rows = np.random.default_rng(0).normal(size=(50, 3))
    first = Statistics.of(rows[:20])
    again = Statistics.from_arrays(first.arrays())
    for statistics in (first, again):
        statistics.update(rows[20:])
    assert again.n == 50
    np.testing.assert_array_equal(again.cov, first.cov)


@pytest.mark.parametrize(
    "damage",
    [{"n": None}, {"scatter": np.zeros((3, 2))}, {"scatter": np.full((3, 3), np.nan)}],
    ids=["missing", "shapes", "nan"],
)
def test_arrays_that_are_no_statistics_are_one_line(damage):
    arrays = Statistics.of(np.random.default_rng(0).normal(size=(9, 3))).arrays() | damage
    with pytest.raises(UsageError, match=r"^statistics: ") as caught:
        Statistics.from_arrays({key: array for key, array in arrays.items() if array is not None})
    assert "\n" not in str(caught.value)


def test_float32_rows_are_summed_in_float64_and_left_alone():
    rows = np.random.default_rng(0).uniform(0, 1, (1000, 3)).astype(np.float32)
    before = rows.copy()
    np.testing.assert_allclose(Statistics.of(rows).mean, rows.mean(0, np.float64), rtol=1e-14)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.zeros(3), "shape"),
        (np.zeros((0, 3)), "0 rows"),
        (np.array([["a", "b", "c"]]), "real numbers"),
        (np.array([[0, np.nan, 1]]), "1 values are NaN"),
        (np.zeros((2, 4)), "4 columns, these statistics have 3"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, says):
    with pytest.raises(UsageError, match=says):
        Statistics(3).update(rows)


def test_one_row_has_no_covariance():
    with pytest.raises(UsageError, match="at least 2 images, got 1"):
        _ = Statistics.of(np.zeros((1, 3))).cov


def test_shipped_reference_is_the_training_split_on_the_shipped_weights(resnet):
    reference = load_reference(NAME, "fashion-resnet")
    assert (reference.n, reference.name) == (60000, NAME)
    assert reference.weights_sha256 == resnet.weights_sha256 == weights_sha256("fashion-resnet")
    assert reference.mean.shape == (64,)
    assert reference.cov.shape == (64, 64)
    assert reference.features.shape == (10000, 64)
    assert reference.features.dtype == np.float32
    assert (ZOO / module.REFERENCES[NAME][0]).stat().st_size < 3e6
    # The subset is a fair sample of the 60,000 images behind the mean.
    error = (reference.features.mean(0) - reference.mean) / np.sqrt(np.diag(reference.cov) / 10000)
    assert np.abs(error).max() < 5
    with pytest.raises(ValueError, match="read-only"):
        reference.mean[0] = 0


def test_row_i_of_the_subset_is_of_class_i_mod_10(resnet):
    features = torch.tensor(load_reference(NAME).features)
    predicted = resnet.model.head(features).argmax(1).numpy()
    assert (predicted == np.arange(10000) % 10).mean() > 0.9


def test_weights_other_than_the_references_are_refused(tmp_path):
    shutil.copy(weights_path("fashion-resnet"), tmp_path)
    assert load_reference(NAME, feature_weights=tmp_path).n == 60000
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UsageError, match=r"was made with fashion-resnet weights .* build it again"):
        load_reference(NAME, feature_weights=tmp_path)


def test_another_extractor_and_an_unknown_name_are_refused():
    with pytest.raises(Unavailable, match="fashion-resnet, not of efficientnet-lite0; python -m"):
        load_reference(NAME, "efficientnet-lite0")
    with pytest.raises(Unavailable, match="'imagenet': expected one of fashion-mnist-train"):
        load_reference("imagenet")


def test_reference_comes_back_as_written_with_the_same_bytes_each_time(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    statistics = Statistics.of(rows)
    for name in ("a.npz", "b.npz"):
        reference = Reference(
            "r", "some-net", 20, statistics.mean, statistics.cov, rows, "", "f" * 64, "test"
        )
        write_reference(tmp_path / name, reference)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    reference = read_reference(tmp_path / "a.npz", "mine")
    assert (reference.n, reference.extractor, reference.name) == (20, "some-net", "mine")
    np.testing.assert_array_equal(reference.cov, statistics.cov)
    np.testing.assert_array_equal(reference.features, rows)


@pytest.mark.parametrize("damage", ["truncated", "missing", "other", "pickle"])
def test_a_broken_reference_is_one_clear_line(tmp_path, damage):
    path = tmp_path / "r.npz"
    if damage == "truncated":
        path.write_bytes((ZOO / module.REFERENCES[NAME][0]).read_bytes()[:5000])
    elif damage == "other":
        np.savez(path, mean=np.zeros(3))
    elif damage == "pickle":
        np.savez(path, mean=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="not a readable reference file") as caught:
        read_reference(path, "r")
    assert "\n" not in str(caught.value)
