"""Density and coverage: against the definition, the authors' package where it is installed, and
what they must be for known cases."""

import numpy as np
import pytest

from eval.metrics.density_coverage import COVERAGE, DENSITY, density_coverage
from eval.metrics.precision_recall import Manifold
from maskgit.common.errors import UsageError
from tests.eval.metrics.test_precision_recall_exact import inside


def by_definition(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    """Equations of Naeem et al. 2020: the shares of balls and points over all distances."""
    across = np.linalg.norm(real[:, None] - generated[None], axis=2)
    within = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)
    inside = across < within[:, k, None]  # column 0 is the point itself
    return inside.sum() / (k * len(generated)), inside.any(axis=1).mean()


@pytest.mark.parametrize(
    ("n", "m", "dim", "k"), [(200, 200, 8, 5), (300, 70, 3, 5), (80, 250, 20, 3), (60, 1, 2, 1)]
)
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_equals_the_definition(n, m, dim, k, decay):
    rng = np.random.default_rng(n)
    scale = np.arange(1, dim + 1) ** -decay
    real, generated = rng.normal(size=(n, dim)) * scale, rng.normal(0.2, 0.9, (m, dim)) * scale
    ours = density_coverage(real, generated, k)
    assert ours == pytest.approx(by_definition(real, generated, k), rel=1e-12)
    assert ours[0] > 0


def test_equals_the_authors_package(capsys):
    prdc = pytest.importorskip("prdc", reason="the authors' package is not installed")
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(300, 16)), rng.normal(0.1, 1, size=(250, 16))
    theirs = prdc.compute_prdc(real, generated, nearest_k=5)
    ours = density_coverage(real, generated)
    assert ours == pytest.approx((theirs["density"], theirs["coverage"]), rel=1e-12)


def test_copies_of_the_real_images_have_density_and_coverage_1():
    """A ball holds its centre's copy and those of the k - 1 nearer neighbours; the k-th is on the
    rim."""
    real = np.random.default_rng(1).uniform(5, 6, (200, 64)).astype(np.float32)
    assert density_coverage(real, real.copy()) == (1.0, 1.0)


def test_one_image_repeated_covers_only_the_balls_around_it():
    real = np.random.default_rng(2).normal(size=(100, 4))
    generated = np.repeat(real[:1], 50, axis=0)
    expected = by_definition(real, generated, 5)
    assert density_coverage(real, generated) == pytest.approx(expected)
    assert expected[1] < 0.2


def test_samples_in_the_middle_have_density_above_1_and_far_ones_0():
    rng = np.random.default_rng(3)
    real = rng.normal(size=(400, 20))
    assert density_coverage(real, 0.5 * rng.normal(size=(100, 20)))[0] > 2
    assert density_coverage(real, 100 + rng.normal(size=(100, 20))) == (0.0, 0.0)


def test_a_real_outlier_moves_precision_but_hardly_density():
    """The case that density was made for: one real point far out, with a ball around everything
    between."""
    rng = np.random.default_rng(4)
    real = rng.normal(size=(200, 2))
    real[0] = 30
    generated = rng.uniform(5, 25, size=(200, 2))
    assert inside(Manifold(real, 5), generated).mean() > 0.5
    assert density_coverage(real, generated)[0] < 0.25


def test_equal_distributions_have_the_expected_values():
    """Density 1 and coverage 1 - 2^-k in expectation, for large sets of equal size."""
    rng = np.random.default_rng(5)
    real, generated = rng.normal(size=(2, 3000, 4))
    density, coverage = density_coverage(real, generated)
    assert density == pytest.approx(1, abs=0.05)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.01)


def test_a_prepared_manifold_gives_the_same_numbers():
    rng = np.random.default_rng(6)
    real, generated = rng.normal(size=(2, 90, 5))
    assert density_coverage(Manifold(real, 5), generated) == density_coverage(real, generated)
    with pytest.raises(UsageError, match="k=3, asked for k=5"):
        density_coverage(Manifold(real, 3), generated)


@pytest.mark.parametrize(
    ("real", "generated", "says"),
    [
        (np.zeros((5, 2)), np.zeros((9, 2)), "real features: .* at least 6 images, got 5"),
        (np.zeros((9, 2)), np.zeros((0, 2)), "0 rows"),
        (np.zeros((9, 2)), np.zeros((9, 3)), "3 columns, the manifold has 2"),
        (np.zeros((9, 2)), np.full((9, 2), np.nan), "NaN"),
    ],
)
def test_input_without_these_metrics_is_refused(real, generated, says):
    with pytest.raises(UsageError, match=says):
        density_coverage(real, generated)


def test_ids_name_features_and_version():
    assert (DENSITY.id("x"), COVERAGE.id("x")) == ("density.x.v1", "coverage.x.v1")
