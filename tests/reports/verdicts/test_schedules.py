"""The rules: each verdict of each claim from a table of curves, and what tolerances let through."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import numpy as np
import pytest
from scipy import stats

from reports.means import Mean
from reports.paper import paper_values
from reports.verdicts import NOT_COMPARABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, TREND
from reports.verdicts.schedules import (
    Evidence,
    best_of,
    eligible,
    judge,
    neighbour_sd,
    pooled_sd,
    rank_correlation,
    sweet_spot,
    within_noise,
)
from reports.verdicts.verdict import tolerance

ORDER = ["exponential", "cubic", "square", "cosine", "linear", "sqrt", "logarithmic"]
PAPER = {row["schedule"]: row for row in paper_values()["table3"]["rows"]}
DENSE = list(range(4, 61))
RULE = {"noise_multiple": 3.0, "relative": 0.02, "one_seed_relative": 0.05}


def curve(best_T, best, steps=DENSE, sd=0.02, n=3, curvature=0.5):
    """A parabola in log2 T with its lowest point (best_T, best)."""
    return {
        T: Mean(best + curvature * math.log2(T / best_T) ** 2, sd if n > 1 else math.nan, n)
        for T in steps
    }


def curves(best=None, place=None, **kwargs):
    """Seven curves with the paper's best FID and T unless told otherwise."""
    best = {s: PAPER[s]["fid"] for s in ORDER} | (best or {})
    place = {s: PAPER[s]["T"] for s in ORDER} | (place or {})
    return {s: curve(place[s], best[s], **kwargs) for s in ORDER}


def verdict(claim, found, **kwargs):
    by_claim = {v.claim: v for v in judge(Evidence(found, **kwargs), paper_values())}
    return by_claim[claim]


def test_the_papers_own_table_reproduces_every_claim():
    assert {v.claim: v.verdict for v in judge(Evidence(curves()), paper_values())} == dict.fromkeys(
        ["groups", "sweet_spot", "later", "cosine_first"], REPRODUCED
    )


def test_what_the_toml_says_of_the_paper_follows_from_its_table():
    fid = {s: PAPER[s]["fid"] for s in ORDER}
    concave, convex = fmean(fid[s] for s in ORDER[:4]), fmean(fid[s] for s in ORDER[5:])
    shapes = paper_values()["shapes"]
    assert (
        f"concave {concave:.2f}, linear {fid['linear']:.2f}, convex {convex:.2f}"
        in (shapes["groups"]["paper"])
    )
    rho = stats.spearmanr(range(7), [PAPER[s]["T"] for s in ORDER]).statistic
    assert f"{rho:.2f}" in shapes["later"]["paper"]
    first, second = sorted(ORDER, key=fid.get)[:2]
    assert shapes["cosine_first"]["paper"] == f"{first} {fid[first]}, then {second} {fid[second]}"


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ({}, REPRODUCED),
        ({"linear": 6.0}, TREND),  # linear beats the concave ones, which beat the convex ones
        ({"linear": 30.0}, TREND),
        ({"linear": 6.90}, TREND),  # level with the concave mean of 6.89
        ({"sqrt": 3.0, "logarithmic": 4.0}, NOT_REPRODUCED),
        ({"sqrt": 6.9, "logarithmic": 6.9}, NOT_REPRODUCED),  # within the tolerance
    ],
)
def test_groups(best, expected):
    assert verdict("groups", curves(best)).verdict == expected


@pytest.mark.parametrize(
    ("place", "expected", "found"),
    [
        ({}, REPRODUCED, 6),
        ({"exponential": 4}, TREND, 5),  # best at the first T: no sweet spot
        ({"exponential": 4, "sqrt": 60}, TREND, 4),
        ({"exponential": 4, "cubic": 4, "sqrt": 60}, NOT_REPRODUCED, 3),
        (dict.fromkeys(ORDER, 60), NOT_REPRODUCED, 0),
    ],
)
def test_sweet_spots(place, expected, found):
    result = verdict("sweet_spot", curves(place=place))
    assert result.verdict == expected
    assert result.ours.startswith(f"{found} of 6")


def test_a_sweet_spot_of_the_logarithmic_is_told():
    assert "logarithmic: none" in verdict("sweet_spot", curves()).ours
    result = verdict("sweet_spot", curves(place={"logarithmic": 16}, curvature=5.0))
    assert "logarithmic: has one too" in result.ours


@pytest.mark.parametrize(
    ("sd", "found"),
    [(0.02, True), (0.30, True), (0.60, False)],  # the rise at T = 4 is 1.12
)
def test_a_sweet_spot_must_rise_above_the_noise(sd, found):
    spot = sweet_spot("cosine", curve(9, 6.0, sd=sd, curvature=0.8), RULE)
    assert spot.rise_first == pytest.approx(0.8 * math.log2(4 / 9) ** 2)
    assert spot.tolerance == pytest.approx(max(3 * sd * math.sqrt(2 / 3), 0.12))
    assert spot.found is found


def test_flat_curves_with_noise_have_hardly_ever_a_sweet_spot():
    """The best of 57 noisy values lies below a flat line; the rule must not take it for a spot."""
    rng = random.Random(0)
    rule, found = {**RULE, "relative": 0.0}, 0
    for _ in range(300):
        flat = {}
        for T in DENSE:
            values = [rng.gauss(5, 0.3) for _ in range(3)]
            flat[T] = Mean(fmean(values), stdev(values), 3)
        found += sweet_spot("cosine", flat, rule).found
    assert found <= 6  # 2 %


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({}, REPRODUCED),
        (dict(zip(ORDER, [8, 9, 10, 11, 16, 32, 60], strict=True)), REPRODUCED),
        (dict(zip(ORDER, [9, 8, 11, 10, 32, 16, 60], strict=True)), TREND),  # 0.893
        (dict(zip(ORDER, [9, 8, 10, 60, 16, 11, 32], strict=True)), TREND),  # 0.714, the limit
        (dict(zip(ORDER, [8, 9, 10, 60, 32, 16, 11], strict=True)), NOT_REPRODUCED),  # 0.643
        (dict(zip(ORDER, [60, 32, 16, 11, 10, 9, 8], strict=True)), NOT_REPRODUCED),
        (dict.fromkeys(ORDER, 12), NOT_REPRODUCED),
    ],
)
def test_the_less_concave_the_later(place, expected):
    result = verdict("later", curves(place=place))
    assert result.verdict == expected
    if len(set(place.values())) > 1:
        oracle = stats.spearmanr(range(7), [place[s] for s in ORDER]).statistic
        assert result.numbers["rho"] == pytest.approx(oracle)


@pytest.mark.parametrize(
    ("best", "sd", "expected"),
    [
        ({}, 0.02, REPRODUCED),
        ({}, 0.30, TREND),  # first, but 0.29 is less than 2 * 0.3 * sqrt(2/3)
        ({"square": 6.0}, 0.02, TREND),  # second, within one percent
        ({"square": 5.5}, 0.02, NOT_REPRODUCED),
        ({"square": 5.5}, 0.60, TREND),
        ({"square": 5.5, "linear": 5.0}, 0.02, NOT_REPRODUCED),
    ],
)
def test_cosine_first(best, sd, expected):
    result = verdict("cosine_first", curves(best, sd=sd))
    assert result.verdict == expected
    ranked = sorted({**{s: PAPER[s]["fid"] for s in ORDER}, **best}.items(), key=lambda p: p[1])
    assert result.numbers["place"] == [s for s, _ in ranked].index("cosine") + 1


@pytest.mark.parametrize("claim", ["groups", "sweet_spot", "later", "cosine_first"])
class TestLimits:
    """What keeps every claim from being judged, or from more than a trend."""

    def test_an_absent_schedule_is_not_run(self, claim):
        found = curves()
        del found["sqrt"]
        result = verdict(claim, found)
        assert (result.verdict, result.why) == (NOT_RUN, ("no FID for sqrt",))

    def test_a_short_range_of_T_is_not_run(self, claim):
        result = verdict(claim, curves(steps=[4, 8, 16]))
        assert result.verdict == NOT_RUN
        assert result.why == ("needs T from 4 to 60; this run has T from 4 to 16",)

    def test_one_schedule_with_a_short_range_is_named(self, claim):
        result = verdict(claim, curves() | {"sqrt": curve(32, 12.33, steps=[8])})
        assert result.why == ("needs T from 4 to 60; sqrt has only T = 8",)

    def test_an_obstacle_is_not_comparable_and_says_why(self, claim):
        result = verdict(claim, curves(), obstacles=["different training budgets"])
        assert (result.verdict, result.why) == (NOT_COMPARABLE, ("different training budgets",))

    def test_a_coarse_grid_of_T_is_at_most_a_trend(self, claim):
        result = verdict(claim, curves(steps=[4, 8, 9, 10, 16, 32, 60]))
        assert result.verdict == TREND
        assert result.why == ("coarse grid of T (7 values)",)

    def test_one_seed_is_at_most_a_trend(self, claim):
        found = curves({"square": 6.5}, n=1)
        result = verdict(claim, found)
        assert result.verdict == TREND
        assert result.why == ("n=1: the noise is judged from neighbouring T only",)

    def test_one_seed_on_a_coarse_grid_says_that_the_noise_is_unknown(self, claim):
        result = verdict(claim, curves({"square": 6.5}, n=1, steps=[4, 8, 9, 10, 16, 32, 60]))
        assert "n=1, so the noise is unknown" in result.why

    def test_unfinished_cells_are_at_most_a_trend(self, claim):
        result = verdict(claim, curves(), unfinished=2)
        assert (result.verdict, result.why) == (TREND, ("2 cells are not there",))

    def test_limits_do_not_lift_a_failure(self, claim):
        best = {"sqrt": 1.0, "logarithmic": 1.0, "square": 1.5}
        place = dict(zip(ORDER, [60, 60, 60, 60, 8, 8, 8], strict=True))
        assert verdict(claim, curves(best, place), unfinished=1).verdict == NOT_REPRODUCED


def test_the_best_T_needs_all_seeds():
    """A T with fewer seeds must not win by luck."""
    points = {4: Mean(5.0, 0.1, 3), 8: Mean(4.0, math.nan, 1), 16: Mean(4.5, 0.1, 3)}
    assert best_of(points).T == 16
    assert sorted(eligible(points)) == [4, 16]


def test_ties_go_to_the_fewer_iterations():
    assert best_of({16: Mean(4.0, 0.1, 2), 8: Mean(4.0, 0.1, 2)}).T == 8
    assert best_of({}) is None


def test_pooled_sd_weighs_by_degrees_of_freedom():
    values = {4: [1.0, 2.0, 4.0], 8: [3.0, 3.5]}
    points = {T: Mean(fmean(v), stdev(v), len(v)) for T, v in values.items()}
    points[16] = Mean(2.0, math.nan, 1)
    squares = sum((x - fmean(v)) ** 2 for v in values.values() for x in v)
    assert pooled_sd(points) == pytest.approx(math.sqrt(squares / 3))
    assert math.isnan(pooled_sd({4: Mean(1.0, math.nan, 1)}))


def test_tolerance_takes_the_larger_of_noise_and_share():
    assert tolerance(4.0, (0.3, 0.4), RULE) == pytest.approx(1.5)
    assert tolerance(4.0, (0.0, 0.0), RULE) == pytest.approx(0.08)
    assert tolerance(4.0, (math.nan, 0.1), RULE) == pytest.approx(0.2)


def test_within_noise_lists_what_cannot_be_told_from_the_best():
    points = {T: Mean(m, 0.01, 3) for T, m in {4: 5.0, 8: 4.05, 12: 4.0, 16: 4.2}.items()}
    assert within_noise(points, RULE) == [8, 12]


def test_rank_correlation_equals_scipys():
    rng = random.Random(1)
    for _ in range(50):
        first = [rng.randint(0, 5) for _ in range(7)]
        second = [rng.randint(0, 5) for _ in range(7)]
        oracle = stats.spearmanr(first, second).statistic
        assert rank_correlation(first, second) == pytest.approx(oracle, nan_ok=True)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def noisy(rng, sd, best_T=None):
    """One seed of 57 values of T: flat, or a deep parabola around best_T, with normal noise."""
    shape = curve(best_T or 16, 2.0, n=1, curvature=0.5 if best_T else 0.0)
    return {T: Mean(p.mean + sd * rng.standard_normal(), math.nan, 1) for T, p in shape.items()}


def test_noise_of_one_seed_is_recovered_from_neighbours():
    rng = np.random.default_rng(0)
    for best_T in (None, 16):
        found = [neighbour_sd(noisy(rng, 0.2, best_T)) for _ in range(200)]
        assert 0.17 < fmean(found) < 0.23
    assert math.isnan(neighbour_sd({T: Mean(1.0, math.nan, 1) for T in (4, 8, 12, 60)}))


def test_the_lowest_of_many_noisy_values_is_no_sweet_spot():
    rng = np.random.default_rng(1)
    flat = [sweet_spot("cosine", noisy(rng, 0.2), RULE) for _ in range(300)]
    assert sum(spot.found for spot in flat) <= 30
    deep = [sweet_spot("cosine", noisy(rng, 0.05, 16), RULE) for _ in range(100)]
    assert all(spot.found for spot in deep)
