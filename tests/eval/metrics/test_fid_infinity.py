"""FID-infinity: against Gaussians whose distance is known."""

import numpy as np
import pytest

from eval.metrics.fid import covariance_factor, frechet_distance
from eval.metrics.fid_infinity import METRIC, fid_infinity
from eval.metrics.statistics import Statistics
from maskgit.common.errors import UsageError

DIM = 6
REAL_COV = np.diag(np.linspace(0.5, 2, DIM))
FAKE_COV = REAL_COV * 1.3
SHIFT = np.full(DIM, 0.1)
TRUE = DIM * 0.01 + ((np.sqrt(1.3) - 1) ** 2) * np.trace(REAL_COV)


def generated(n, seed, shift=SHIFT):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, DIM)) * np.sqrt(np.diag(FAKE_COV)) + shift


@pytest.fixture(scope="module")
def fits():
    return [fid_infinity(np.zeros(DIM), REAL_COV, generated(600, s), seed=s) for s in range(150)]


def test_the_closed_form_is_that_of_the_package():
    fid = frechet_distance(np.zeros(DIM), REAL_COV, SHIFT, FAKE_COV)
    assert fid == pytest.approx(TRUE, rel=1e-9)


def test_the_mean_over_many_sets_is_the_true_distance_which_plain_fid_misses(fits):
    values = np.array([fit.value for fit in fits])
    plain = np.array([fit.points[0][1] for fit in fits])
    error = values.std() / np.sqrt(len(fits))
    assert abs(values.mean() - TRUE) < 3 * error
    assert plain.mean() - TRUE > 10 * error


def test_the_standard_error_is_the_scatter_over_many_sets(fits):
    deviations = [(fit.value - TRUE) / fit.standard_error for fit in fits]
    assert 0.8 < np.std(deviations) < 1.25


def test_the_slope_is_the_bias_and_its_interval_covers_it(fits):
    # The slope itself, from sets drawn anew at 100 and 600 images.
    means = []
    for n in (100, 600):
        fids = []
        for seed in range(400):
            s = Statistics.of(generated(n, 1000 + seed))
            fids.append(frechet_distance(np.zeros(DIM), REAL_COV, s.mean, s.cov))
        means.append(np.mean(fids))
    slope = (means[0] - means[1]) / (1 / 100 - 1 / 600)
    assert np.mean([fit.slope for fit in fits]) == pytest.approx(slope, rel=0.1)
    covered = [fit.slope_interval[0] < slope < fit.slope_interval[1] for fit in fits]
    assert np.mean(covered) > 0.9


def test_agrees_with_the_authors_protocol_on_the_same_features(fits):
    # One random subset at each of 15 sizes from n / 10 to n, an unweighted line through them.
    differences = []
    for seed, fit in enumerate(fits[:60]):
        rows, rng = generated(600, seed), np.random.default_rng(seed)
        sizes = np.linspace(60, 600, 15).astype(int)
        fids = []
        for size in sizes:
            s = Statistics.of(rows[rng.permutation(600)[:size]])
            fids.append(frechet_distance(np.zeros(DIM), REAL_COV, s.mean, s.cov))
        theirs = np.polyfit(1 / sizes, fids, 1)[1]
        differences.append(fit.value - theirs)
    error = np.std(differences) / np.sqrt(len(differences))
    assert abs(np.mean(differences)) < 3 * error
    assert error < 0.02 * TRUE


def test_points_are_mean_fids_of_disjoint_parts():
    rows = generated(601, 5)
    fit = fid_infinity(np.zeros(DIM), REAL_COV, rows, levels=3, seed=7)
    rng = np.random.default_rng(7)
    rng_orders = [np.arange(601), rng.permutation(601), rng.permutation(601)]
    for j, (order, (size, mean)) in enumerate(zip(rng_orders, fit.points, strict=True), 1):
        fids = []
        for part in np.array_split(order, j):
            cov = np.cov(rows[part], rowvar=False)
            fids.append(frechet_distance(np.zeros(DIM), REAL_COV, rows[part].mean(0), cov))
        assert size == pytest.approx(601 / j)
        assert mean == pytest.approx(np.mean(fids), rel=1e-9)


def test_a_seed_gives_the_same_number_and_a_prepared_factor_changes_nothing():
    rows = generated(300, 1)
    one = fid_infinity(np.zeros(DIM), REAL_COV, rows, seed=3)
    factor = covariance_factor(REAL_COV)
    two = fid_infinity(np.zeros(DIM), REAL_COV, rows, seed=3, factor=factor)
    assert one == two
    assert one != fid_infinity(np.zeros(DIM), REAL_COV, rows, seed=4)


@pytest.mark.parametrize(
    ("n", "levels", "says"),
    [(59, 5, "on 6 features needs at least 60 generated images, got 59"), (60, 2, "levels 2")],
)
def test_too_few_images_or_levels_are_refused(n, levels, says):
    with pytest.raises(UsageError, match=says):
        fid_infinity(np.zeros(DIM), REAL_COV, generated(n, 0), levels=levels)


def test_id_names_features_and_version():
    assert METRIC.id("x") == "fid-infinity.x.v1"
