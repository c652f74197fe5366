"""The rules of reports/verdicts/editing.py, each at both sides of its limits."""

from __future__ import annotations

import math

import pytest

from reports.means import Mean
from reports.paper import paper_values
from reports.verdicts.decoding import judge_iterations
from reports.verdicts.editing import (
    judge_baselines,
    judge_boundary,
    judge_class,
    judge_samples,
    judge_seams,
)
from reports.verdicts.numbers import judge_number

NONE = Mean(math.nan, math.nan, 0)
TASKS = ("outpaint-right", "inpaint-center")


def one(value):
    return Mean(value, math.nan, 1)


MEAN, BIHARMONIC = one(12.0), one(9.0)


def fids(maskgit, mean=MEAN, biharmonic=BIHARMONIC):
    return {t: {"maskgit": maskgit, "mean": mean, "biharmonic": biharmonic} for t in TASKS}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (fids(Mean(5.0, 0.1, 3)), "reproduced"),
        (fids(one(5.0)), "trend reproduced"),  # one seed
        (fids(Mean(5.0, 0.1, 3), biharmonic=NONE), "trend reproduced"),
        (fids(Mean(8.9, 1.0, 3)), "trend reproduced"),  # within two standard errors
        (fids(Mean(9.1, 0.1, 3)), "not reproduced"),
        (fids(NONE), "not run"),
        (fids(Mean(5.0, 0.1, 3), NONE, NONE), "not run"),
        ({"outpaint-right": fids(Mean(5.0, 0.1, 3))["outpaint-right"]}, "not run"),
    ],
)
def test_baselines(found, verdict):
    rule = paper_values()["table2_baselines"]
    assert judge_baselines("table2_baselines", found, rule, {}).verdict == verdict


@pytest.mark.parametrize(
    ("kept", "verdict"),
    [
        ([2, 3, 6, 8, 10, 11, 12, 12], "reproduced"),
        ([2, 3, 3], "trend reproduced"),
        ([2, 5, 3, 6], "trend reproduced"),  # not rising throughout
        ([8, 8, 8, 8], "not reproduced"),
        ([9, 4, 2, 1], "not reproduced"),
        ([64], "not run"),
        ([], "not run"),
    ],
)
def test_iterations(kept, verdict):
    assert judge_iterations(kept, paper_values()["figure2_rule"]).verdict == verdict


@pytest.mark.parametrize(
    ("share", "before", "verdict"),
    [
        (Mean(0.5, 0.01, 3), one(0.02), "reproduced"),
        (one(0.9), one(0.02), "trend reproduced"),
        (Mean(0.2, 0.01, 3), one(0.02), "trend reproduced"),
        (Mean(0.19, 0.01, 3), one(0.02), "not reproduced"),
        (Mean(0.3, 0.01, 3), one(0.4), "not reproduced"),
        (NONE, NONE, "not run"),
    ],
)
def test_classes_of_edits(share, before, verdict):
    assert judge_class(share, before, 10, paper_values()["figure6_class"], "").verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Mean(1.25, 0.01, 3), "reproduced"),
        (Mean(1.26, 0.01, 3), "trend reproduced"),
        (one(1.0), "trend reproduced"),
        (Mean(1.51, 0.01, 3), "not reproduced"),
        (NONE, "not run"),
    ],
)
def test_seams(ratio, verdict):
    assert judge_seams(ratio, 4, paper_values()["figure15_rule"]).verdict == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((1.5, 1.0), "reproduced"),  # 1.25 over the directions
        ((1.3, 1.1), "trend reproduced"),
        ((1.0, 1.1), "not reproduced"),
        ((), "not run"),
    ],
)
def test_boundaries(values, verdict):
    ratios = {str(i): Mean(value, 0.01, 2) for i, value in enumerate(values)}
    assert judge_boundary(ratios, paper_values()["figure21_boundary"]).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "real", "verdict"),
    [
        (0.2, 0.1, "reproduced"),
        (0.11, 0.1, "trend reproduced"),  # two errors of 1000 and 3000 images are 0.022
        (0.1, 0.1, "not reproduced"),
    ],
)
def test_samples(ours, real, verdict):
    rule = paper_values()["figure21_samples"]
    assert judge_samples(Mean(ours, 0.01, 3), one(real), 1000, rule, "").verdict == verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(6.78, "reproduced"), (7.1, "reproduced"), (8.0, "trend reproduced"), (9.0, "not reproduced")],
)
def test_numbers_are_compared_on_the_paper_s_preset_only(value, verdict):
    rule = paper_values()["table2"]
    arguments = {"samples": 9, "rule": rule}
    row = judge_number("FID", 6.78, one(value), same_preset=True, **arguments)
    assert (row.verdict, row.difference) == (verdict, f"{value - 6.78:+.2f}")
    other = judge_number("FID", 6.78, one(value), same_preset=False, **arguments)
    assert (other.verdict, other.difference) == ("not comparable", "–")
    gone = judge_number("FID", 6.78, NONE, same_preset=True, why="no reference", **arguments)
    assert (gone.verdict, gone.why) == ("not run", "no reference")
