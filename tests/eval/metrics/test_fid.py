"""Frechet distance: against torch-fidelity, clean-fid and closed forms, and its invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.fid import FD_DINOV2, METRIC, covariance_factor, frechet_distance
from eval.metrics.statistics import Statistics
from maskgit.common.errors import UsageError


def gaussian(seed: int, dim: int, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows or 3 * dim, dim)) @ rng.normal(size=(dim, dim))
    statistics = Statistics.of(features + rng.normal(size=dim))
    return statistics.mean, statistics.cov


def decaying_features(seed: int, n: int, dim: int) -> np.ndarray:
    """Rectified features whose spectrum decays, with some that are always 0, as a network's."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(dim, dim)) / np.arange(1, dim + 1)[:, None]
    features = np.maximum(rng.normal(size=(n, dim)) @ mixing + 0.1 * (seed % 3), 0)
    features[:, :3] = 0
    return features


@pytest.mark.parametrize(("n", "m", "dim"), [(500, 400, 64), (300, 1000, 17), (200, 200, 1)])
def test_equals_torch_fidelity(n, m, dim):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = (np.random.default_rng(s).normal(s, 1 + s, (k, dim)) for s, k in ((0, n), (1, m)))
    if dim == 1:  # numpy.cov of one column has no dimensions, which torch-fidelity does not take
        expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    else:
        stats = [fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y)]
        expected = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    a, b = Statistics.of(x), Statistics.of(y)
    assert frechet_distance(a.mean, a.cov, b.mean, b.cov) == pytest.approx(expected, rel=1e-9)


def test_equals_clean_fid(monkeypatch):
    from cleanfid import fid as clean

    # It calls sqrtm(disp=), which scipy 1.18 dropped.
    sqrtm = clean.linalg.sqrtm
    monkeypatch.setattr(clean.linalg, "sqrtm", lambda matrix, disp: (sqrtm(matrix), None))
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(500, 64)), rng.normal(0.2, 1.3, size=(400, 64))
    a, b = Statistics.of(x), Statistics.of(y)
    ours = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    assert ours == pytest.approx(clean.fid_from_feats(x, y), rel=1e-9)


def test_diagonal_gaussians_have_a_closed_form():
    rng = np.random.default_rng(0)
    m1, m2, s1, s2 = rng.uniform(0, 3, (4, 50))
    expected = np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2)
    assert frechet_distance(m1, np.diag(s1**2), m2, np.diag(s2**2)) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize(("n", "m"), [(20, 30), (128, 2000), (65, 64)])
def test_fewer_images_than_features_equals_the_low_rank_form(n, m):
    """Tr (C1 C2)^(1/2) is the nuclear norm of X1 X2' / sqrt((n-1)(m-1)), X the centred features."""
    x, y = decaying_features(1, n, 200), decaying_features(2, m, 200)
    a, b = Statistics.of(x), Statistics.of(y)
    cross = (x - x.mean(0)) @ (y - y.mean(0)).T
    trace = np.linalg.svd(cross, compute_uv=False).sum() / np.sqrt((n - 1) * (m - 1))
    offset = x.mean(0) - y.mean(0)
    expected = offset @ offset + np.trace(a.cov) + np.trace(b.cov) - 2 * trace
    assert frechet_distance(a.mean, a.cov, b.mean, b.cov) == pytest.approx(expected, rel=1e-9)


def test_covariances_on_disjoint_features_and_zero_covariances():
    zero = np.zeros(3)
    left, right, none = np.diag([2.0, 0, 0]), np.diag([0, 3.0, 1]), np.zeros((3, 3))
    assert frechet_distance(zero, left, zero, right) == pytest.approx(6.0)
    assert frechet_distance(zero, none, zero, right) == pytest.approx(4.0)
    assert frechet_distance(zero, none, zero + 2, none) == pytest.approx(12.0)


@pytest.mark.parametrize("rows", [None, 10])
def test_a_gaussian_is_at_distance_zero_of_itself(rows):
    mean, cov = gaussian(5, 40, rows)
    assert 0 <= frechet_distance(mean, cov, mean, cov) < 1e-10 * np.trace(cov)


def test_prepared_factor_gives_the_same_number():
    (m1, c1), (m2, c2) = gaussian(1, 30), gaussian(2, 30)
    factor = covariance_factor(c1)
    np.testing.assert_allclose(factor @ factor.T, c1, atol=1e-12 * np.trace(c1))
    assert frechet_distance(m1, c1, m2, c2, factor) == frechet_distance(m1, c1, m2, c2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 40))
def test_symmetric_and_the_same_after_rotation_shift_and_permutation(seed, dim, rows):
    (m1, c1), (m2, c2) = gaussian(seed, dim, rows), gaussian(seed + 1, dim)
    scale = np.trace(c1) + np.trace(c2)
    distance = frechet_distance(m1, c1, m2, c2)
    assert distance == pytest.approx(frechet_distance(m2, c2, m1, c1), abs=1e-9 * scale)
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    for q in (rotation, np.eye(dim)[rng.permutation(dim)]):
        turned = frechet_distance(q @ m1 + 5, q @ c1 @ q.T, q @ m2 + 5, q @ c2 @ q.T)
        assert turned == pytest.approx(distance, abs=1e-7 * scale)
    doubled = frechet_distance(2 * m1, 4 * c1, 2 * m2, 4 * c2)
    assert doubled == pytest.approx(4 * distance, rel=1e-6, abs=1e-8 * scale)


EYE, ZERO = np.eye(2), np.zeros(2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.zeros(3), np.eye(3), ZERO, EYE), "do not fit"),
        ((ZERO, np.ones((2, 3)), ZERO, EYE), "do not fit"),
        ((EYE, EYE, EYE, EYE), "do not fit"),
        ((ZERO * np.nan, EYE, ZERO, EYE), "NaN"),
        ((ZERO, EYE + np.inf, ZERO, EYE), "NaN"),
        ((ZERO, np.array([[1.0, 2], [0, 1]]), ZERO, EYE), "symmetric"),
        ((ZERO, np.diag([1.0, -1]), ZERO, EYE), "negative eigenvalue -1"),
        ((ZERO, -EYE, ZERO, EYE), "negative eigenvalue"),
    ],
)
def test_input_that_is_no_gaussian_is_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        frechet_distance(*arguments)


def test_factor_of_something_else_than_a_matrix_is_refused():
    with pytest.raises(UsageError, match="square"):
        covariance_factor(np.zeros((2, 3)))


def test_id_names_features_and_version():
    assert METRIC.id("fashion-resnet") == "fid.fashion-resnet.v1"
    assert FD_DINOV2.id("dinov2-vit-l-14") == "fd.dinov2-vit-l-14.v1"
