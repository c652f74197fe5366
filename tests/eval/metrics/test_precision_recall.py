"""Precision and recall: against torch-fidelity, scikit-learn, and what rounding could decide."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from eval.metrics.precision_recall import PRECISION, RECALL, Manifold, precision_recall
from eval.neighbours import search as neighbours
from maskgit.common.errors import UsageError
from tests.eval.metrics.test_precision_recall_exact import inside


def pair(n: int, m: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)), rng.normal(0.2, 0.8, size=(m, dim))


def by_neighbours(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    """The definition through scikit-learn's exact search."""

    def inside(points, manifold):
        search = NearestNeighbors(algorithm="brute").fit(manifold)
        radii = search.kneighbors(manifold, k + 1)[0][:, k]
        distances = np.linalg.norm(points[:, None] - manifold[None], axis=2)
        return (distances <= radii).any(axis=1).mean()

    return inside(generated, real), inside(real, generated)


@pytest.mark.parametrize(
    ("n", "m", "dim", "k"), [(400, 400, 8, 3), (500, 120, 16, 3), (90, 300, 2, 5), (200, 200, 4, 1)]
)
def test_equals_torch_fidelity_and_scikit_learn(n, m, dim, k):
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    real, generated = pair(n, m, dim)
    theirs = calculate_precision_recall_full(
        torch.from_numpy(generated), torch.from_numpy(real), neighborhood=k
    )
    ours = precision_recall(real, generated, k)
    assert ours == pytest.approx(theirs, abs=1e-7)  # theirs averages in float32
    assert ours == by_neighbours(real, generated, k)
    assert min(ours) < 1
    assert min(ours) > 0


def test_equals_scikit_learn_on_the_benchmarks_own_features(resnet):
    from eval.reference.files import load_reference

    real = load_reference("fashion-mnist-train").features
    ours = precision_recall(real[:300], real[300:700])
    assert ours == by_neighbours(real[:300].astype(float), real[300:700].astype(float), 3)


@pytest.mark.parametrize(("scale", "dim"), [(1.0, 30), (1e-3, 64), (1e4, 7), (1.0, 1280)])
def test_copies_of_real_images_are_all_precise(scale, dim):
    """A copy lies on the rim of the ball of every image whose k-th neighbour it is a copy of."""
    real = np.random.default_rng(1).uniform(5, 6, (200, dim)) * scale
    assert precision_recall(real, real.copy()) == (1.0, 1.0)
    assert precision_recall(real, real[50:120])[0] == 1.0


def test_the_rim_belongs_to_the_ball_and_a_step_beyond_does_not():
    offset = 4096.0  # far from 0, where |x|^2 + |y|^2 - 2 x'y is rounded
    real = offset + np.array([[0.0, 0], [1, 0], [2, 0], [3, 0]])
    manifold = Manifold(real, k=1)
    np.testing.assert_array_equal(manifold.radii, 1)
    points = offset + np.array([[4.0, 0], [4 + 2**-30, 0], [-1, 0], [1, 1], [1, 1 + 2**-30]])
    np.testing.assert_array_equal(inside(manifold, points), [True, False, True, True, False])


def test_a_collapsed_generator_has_balls_of_radius_zero():
    real = np.random.default_rng(2).normal(size=(50, 6))
    fake = np.repeat(real[:1], 40, axis=0)
    assert precision_recall(real, fake) == (1.0, 1 / 50)
    assert precision_recall(real, fake + 100) == (0.0, 0.0)


def test_block_size_changes_nothing(monkeypatch):
    real, generated = pair(157, 101, 5)
    generated[:20] = real[:20]
    whole = precision_recall(real, generated)
    for rows in (1, 7, 64):
        monkeypatch.setattr(neighbours, "BLOCK_BYTES", rows * 4 * 157)
        assert precision_recall(real, generated) == whole


def test_prepared_manifold_gives_the_same_numbers():
    real, generated = pair(100, 60, 5)
    manifold = Manifold(real)
    assert precision_recall(manifold, generated) == precision_recall(real, generated)
    with pytest.raises(UsageError, match=r"k=3, asked for k=5"):
        precision_recall(manifold, generated, 5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 40), st.integers(5, 40), st.integers(1, 5))
def test_swapping_the_sides_swaps_the_numbers_and_order_and_rotation_do_not_matter(seed, n, m, dim):
    real, generated = pair(n, m, dim, seed)
    precision, recall = precision_recall(real, generated)
    assert precision_recall(generated, real) == (recall, precision)
    rng = np.random.default_rng(seed)
    shuffled = real[rng.permutation(n)], generated[rng.permutation(m)]
    assert precision_recall(*shuffled) == pytest.approx((precision, recall))
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    turned = precision_recall(real @ rotation, generated @ rotation)
    assert turned == pytest.approx((precision, recall))


@pytest.mark.parametrize(
    ("real", "generated", "k", "says"),
    [
        (np.zeros((3, 2)), np.zeros((9, 2)), 3, "real features: .* at least 4 images, got 3"),
        (np.zeros((9, 2)), np.zeros((3, 2)), 3, "generated features: .* got 3"),
        (np.zeros((9, 2)), np.zeros((9, 3)), 3, "columns"),
        (np.full((9, 2), np.inf), np.zeros((9, 2)), 3, "real features: 18 values are NaN"),
        (np.zeros((9, 2)), np.zeros((9, 2)), 0, "k=0"),
        (np.zeros((9, 2)), np.zeros(9), 3, "shape"),
    ],
)
def test_input_without_a_manifold_is_refused(real, generated, k, says):
    with pytest.raises(UsageError, match=says):
        precision_recall(real, generated, k)


def test_ids_name_features_and_version():
    assert (PRECISION.id("x"), RECALL.id("x")) == ("precision.x.v1", "recall.x.v1")
