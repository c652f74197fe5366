"""Kernel distance: against torch-fidelity, clean-fid and the sum over pairs."""

import numpy as np
import pytest
import torch

from eval.metrics.kid import METRIC, kernel_distance, standard_error
from maskgit.common.errors import UsageError


def pair(n: int, m: int, dim: int = 16, shift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + m)
    return rng.normal(size=(n, dim)), rng.normal(shift, 1.1, size=(m, dim))


@pytest.mark.parametrize(("subsets", "size", "seed"), [(10, 100, 2020), (3, 250, 7)])
def test_equals_torch_fidelity_with_the_same_draws(subsets, size, seed):
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, generated = pair(300, 250)
    theirs = kid_features_to_metric(
        torch.from_numpy(generated),
        torch.from_numpy(real),
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    mean, sd = kernel_distance(real, generated, subsets, size, seed)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-10)
    assert sd == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-8)


def test_equals_clean_fid_where_a_subset_is_everything():
    from cleanfid.fid import kernel_distance as clean

    real, generated = pair(200, 200)
    mean, sd = kernel_distance(real, generated, subsets=4)
    assert mean == pytest.approx(clean(real, generated, num_subsets=1), rel=1e-9)
    assert sd < 1e-12


def test_equals_the_sum_over_pairs():
    real, generated = pair(5, 5, dim=3)

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    within = sum(
        k(s[i], s[j]) for s in (real, generated) for i in range(5) for j in range(5) if i != j
    )
    across = sum(k(x, y) for x in real for y in generated)
    assert kernel_distance(real, generated, 1)[0] == pytest.approx(within / 20 - 2 * across / 25)


def test_unbiased_zero_for_equal_distributions_and_not_for_others():
    real, generated = pair(2000, 2000, shift=0.0)
    same = kernel_distance(real[:1000], real[1000:], subsets=50, subset_size=200)
    other = kernel_distance(real, generated + 0.5, subsets=50, subset_size=200)
    assert abs(same[0]) < same[1]
    assert other[0] > 5 * other[1]


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_standard_error_is_the_scatter_of_kid_over_independent_sets(shift):
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(60):
        real, generated = rng.normal(size=(300, 4)), rng.normal(shift, 1, (300, 4))
        values.append(kernel_distance(real, generated, subsets=20, subset_size=100)[0])
        errors.append(standard_error(real, generated)[0])
    # Where the distance is 0 smaller subsets scatter more than in proportion: never too small.
    assert 0.75 * np.std(values) < np.mean(errors) < (1.4 if shift else 6) * np.std(values)


def test_standard_error_comes_from_subsets_that_share_no_image():
    real, generated = pair(400, 300)
    error, number = standard_error(real, generated, 100, seed=3)
    assert number == 3
    rng = np.random.default_rng(3)
    x, y = rng.permutation(300).reshape(3, 100), rng.permutation(400)[:300].reshape(3, 100)
    whole = [kernel_distance(real[b], generated[a], 1)[0] for a, b in zip(x, y, strict=True)]
    assert error == pytest.approx(np.std(whole, ddof=1) / np.sqrt(3), rel=1e-9)
    assert standard_error(*pair(20_000, 20_000, dim=2))[1] == 20


@pytest.mark.parametrize(("n", "size"), [(3, None), (50, 26), (50, 1)])
def test_standard_error_needs_two_subsets(n, size):
    with pytest.raises(UsageError, match="standard error in subsets of"):
        standard_error(*pair(n, n), size)


def test_default_subset_is_the_smaller_side():
    real, generated = pair(300, 50)
    assert kernel_distance(real, generated) == kernel_distance(real, generated, 100, 50)


@pytest.mark.parametrize(
    ("n", "m", "arguments", "says"),
    [
        (300, 50, {"subset_size": 51}, "subset size 51: expected 2 to 50"),
        (300, 50, {"subset_size": 1}, "subset size 1"),
        (300, 50, {"subsets": 0}, "subsets 0"),
        (1, 50, {}, "real features: 1 rows, at least 2"),
        (50, 1, {}, "generated features: 1 rows, at least 2"),
    ],
)
def test_impossible_subsets_are_refused(n, m, arguments, says):
    real, generated = pair(n, m)
    with pytest.raises(UsageError, match=says):
        kernel_distance(real, generated, **arguments)


def test_different_networks_are_refused():
    with pytest.raises(UsageError, match="16 columns real, 3 columns generated"):
        kernel_distance(pair(9, 9)[0], pair(9, 9, 3)[1])


def test_id_names_features_and_version():
    assert METRIC.id("x") == "kid.x.v1"
