"""The registry of metrics: ids, settings of both users, what is missing and why."""

import numpy as np
import pytest

from eval.features.registry import Features
from eval.metrics import registry
from eval.metrics.density_coverage import density_coverage
from eval.metrics.fid import frechet_distance
from eval.metrics.inception_score import inception_score
from eval.metrics.kid import kernel_distance
from eval.metrics.metric import NEEDS, Metric, PreparedReference, Settings
from eval.metrics.precision_recall import precision_recall
from eval.metrics.registry import METRICS, ON_FEATURES, measure
from eval.metrics.statistics import Statistics
from eval.reference.files import Reference

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(300, 4))
SAMPLES = Features(RNG.normal(0.3, 1, (90, 4)), RNG.normal(size=(90, 5)))


def reference(features=REAL):
    whole = Statistics.of(REAL)
    return PreparedReference(
        Reference("r", "net", len(REAL), whole.mean, whole.cov, features, "a" * 64, "")
    )


def test_every_metric_states_what_reports_and_protocols_need():
    assert list(METRICS) == [metric.name for metric in METRICS.values()]
    ids = [metric.id("net") for metric in METRICS.values()]
    assert len(set(ids)) == len(ids)
    for metric in METRICS.values():
        assert metric.id("net").endswith(f".v{metric.version}")
        assert metric.label
        assert metric.direction in ("lower", "higher", "")
        assert metric.needs <= set(NEEDS)
    assert METRICS["fid"].id("fashion-resnet") == "fid.fashion-resnet.v1"
    assert METRICS["nll"].id("fashion-resnet") == "nll.masked.v1"


def test_equal_sizes_are_what_experiments_measure_by():
    found, missing = measure(METRICS, "net", SAMPLES, reference(), Settings(equal_sizes=True))
    assert missing == {}
    real, (fake, logits) = REAL[: len(SAMPLES.features)], SAMPLES
    a, b = Statistics.of(REAL), Statistics.of(fake)
    assert found["fid"]["value"] == frechet_distance(a.mean, a.cov, b.mean, b.cov)
    assert found["is"] == {"id": "is.net.v2", "value": inception_score(logits, 1)[0]}
    ten = found["is-10-splits"]
    assert (ten["value"], ten["sd"]) == inception_score(logits, 10)
    assert ten["id"] == "is-10-splits.net.v1"
    assert found["recall"]["id"] == "recall.net.v1"
    pair = found["precision"]["value"], found["recall"]["value"]
    assert pair == precision_recall(real, fake, 3)
    pair = found["density"]["value"], found["coverage"]["value"]
    assert pair == density_coverage(real, fake)
    # KID draws from all real features.
    assert (found["kid"]["value"], found["kid"]["sd"]) == kernel_distance(REAL, fake)
    assert set(found) == set(ON_FEATURES)


def test_the_single_split_is_the_score_of_all_samples_at_any_number():
    # Ten splits of 500 score lower than all 5,000 at once: the literature has both.
    logits = np.random.default_rng(1).normal(size=(5000, 200)) * 3
    samples = Features(np.zeros((5000, 1)), logits)
    found, _ = measure(["is", "is-10-splits"], "net", samples, None)
    assert found["is"]["value"] == inception_score(logits, 1)[0]
    assert found["is-10-splits"]["value"] == inception_score(logits, 10)[0]
    assert found["is-10-splits"]["value"] < 0.99 * found["is"]["value"]
    assert "sd" not in found["is"]


def test_all_kept_features_count_where_sizes_need_not_be_equal():
    found, _ = measure(["recall", "density"], "net", SAMPLES, reference())
    assert found["recall"]["value"] == precision_recall(REAL, SAMPLES.features)[1]
    assert set(found) == {"recall", "density"}  # only what was asked for
    # Balls of other numbers on both sides: both stand in what may share a column.
    assert len(REAL) != len(SAMPLES.features)
    assert found["recall"]["id"] == f"recall.net.v1.real-{len(REAL)}"
    assert found["density"]["id"] == f"density.net.v1.real-{len(REAL)}"


def test_what_one_set_of_the_reference_needs_is_computed_once(monkeypatch):
    prepared = reference()
    calls = []
    monkeypatch.setattr(registry.fid, "covariance_factor", _counted(calls))
    first = measure(["fid", "fid-infinity"], "net", SAMPLES, prepared)[0]
    again = measure(["fid"], "net", SAMPLES, prepared)[0]
    assert first["fid"] == again["fid"]
    assert len(calls) == 1
    # The manifold is another one for another number of samples.
    settings = Settings(equal_sizes=True)
    for count in (50, 90, 50):
        part = Features(SAMPLES.features[:count], SAMPLES.logits[:count])
        found = measure(["precision"], "net", part, prepared, settings)[0]
        assert found["precision"]["value"] == precision_recall(REAL[:count], part.features)[0]


def _counted(calls, function=registry.fid.covariance_factor):
    def call(cov):
        calls.append(1)
        return function(cov)

    return call


def test_what_cannot_be_computed_is_missing_and_says_why():
    names = ["fid", "is", "precision", "nll"]
    found, missing = measure(names, "net", None, None, no_features="no weights")
    assert found == {}
    assert missing == dict.fromkeys(("fid", "is", "precision"), "no weights")
    found, missing = measure(names, "net", SAMPLES, None, no_reference="not built")
    assert set(found) == {"is"}
    assert missing == dict.fromkeys(("fid", "precision"), "not built")
    found, missing = measure(names, "net", SAMPLES, reference(np.zeros((0, 4))))
    assert "mean and covariance only" in missing["precision"]
    assert "fid" in found
    few = Features(SAMPLES.features[:1], SAMPLES.logits[:1, :0])
    found, missing = measure(names, "net", few, reference())
    assert found == {}
    assert "at least 2 images" in missing["fid"]
    assert "no classifier" in missing["is"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_missing(monkeypatch, value):
    odd = Metric("odd", 1, "Odd", 1, "", function=lambda *_: {"odd": {"value": value}})
    monkeypatch.setitem(METRICS, "odd", odd)
    found, missing = measure(["odd"], "net", SAMPLES, reference())
    assert (found, missing) == ({}, {"odd": "odd is not a finite number"})
