"""Kernel distance: against torch-fidelity, clean-fid and the sum over pairs."""

import numpy as np
import pytest
import torch

from eval.errors import UsageError
from eval.kid import kernel_distance, metric_id


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
    assert metric_id("x") == "kid.x.v1"
