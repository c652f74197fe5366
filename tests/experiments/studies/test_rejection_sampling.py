"""Table 4: what is drawn and kept, and that rate 1 is the plain sampler."""

import numpy as np
import pytest

from eval.rejection import accept
from experiments.studies.rejection_sampling.compute import kept_of_each_class
from experiments.studies.rejection_sampling.experiment import parse_rates
from maskgit.common.errors import UsageError
from tests.experiments.studies.table_doubles import call, results, value


@pytest.mark.parametrize("seed", [0, 1])
def test_kept_of_each_class_keeps_what_eval_rejection_accepts(seed):
    logits = np.random.default_rng(seed).normal(size=(200, 10)).round(1)  # with equal scores
    labels = np.arange(200) % 10
    from eval.rejection import class_scores

    kept = kept_of_each_class(class_scores(logits, labels), 10, 5)
    assert kept.tolist() == accept(logits, labels, 0.25).tolist()
    assert np.bincount(labels[kept]).tolist() == [5] * 10


def test_rate_1_is_the_plain_sampler_and_draws_are_counted(weights, tmp_path):
    shared = ("--num-samples", 20, "--seeds", "3")
    out = tmp_path / "rejection_sampling"
    rates = ("--rates", "1,0.5,0.25", "--T", 2)
    assert call("rejection_sampling", *shared, *rates, out=out, weights=weights) == 0
    plain = tmp_path / "ablate_schedule"
    flags = ("--T", 2, "--schedules", "cosine", "--metrics", "fid,is")
    assert call("ablate_schedule", *shared, *flags, out=plain, weights=weights) == 0
    ours, theirs = results(out)[0], results(plain)[0]
    assert value(ours, "fid@1") == value(theirs, "fid")
    assert value(ours, "is@1") == value(theirs, "is")
    assert [value(ours, f"drawn@{rate}") for rate in ("1", "0.5", "0.25")] == [20, 40, 80]
    sure = [value(ours, f"own@{rate}") for rate in ("1", "0.5", "0.25")]
    assert sure == sorted(sure)
    assert sure[0] < sure[-1]
    # One run of the sampler: the plain one found its tokens there.
    (tokens,) = (tmp_path / "stages" / "tokens").glob("*/*.npy")
    assert len(np.load(tokens)) == 80


def test_rates_rise_from_no_grammar():
    assert parse_rates("0.05,1,0.5,0.5") == [1.0, 0.5, 0.05]
    for text in ("", "a", "0", "1.5", "-0.1"):
        with pytest.raises(ValueError, match="rate"):
            parse_rates(text)


def test_uneven_classes_are_refused(weights, tmp_path):
    with pytest.raises(UsageError, match="--num-samples 15: expected a multiple of the 10"):
        call("rejection_sampling", "--num-samples", 15, out=tmp_path / "run", weights=weights)
