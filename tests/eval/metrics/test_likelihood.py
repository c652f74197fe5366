"""NLL of masked tokens: against torch's cross-entropy and closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eval.metrics.likelihood import METRIC, MaskedNLL
from maskgit.common.errors import UsageError


def masked_nll(logits, targets, mask):
    result = MaskedNLL()
    result.update(logits, targets, mask)
    return result.value


def batch(n: int = 6, tokens: int = 9, codes: int = 20):
    rng = np.random.default_rng(n)
    logits = rng.normal(0, 3, (n, tokens, codes)).astype(np.float32)
    return logits, rng.integers(0, codes, (n, tokens)), rng.random((n, tokens)) < 0.4


def test_equals_cross_entropy_on_the_masked_tokens():
    logits, targets, mask = batch()
    expected = F.cross_entropy(
        torch.from_numpy(logits[mask]).double(), torch.from_numpy(targets[mask])
    )
    assert masked_nll(logits, targets, mask) == pytest.approx(expected.item(), rel=1e-12)


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    _, targets, mask = batch()
    assert masked_nll(np.zeros((6, 9, 20)), targets, mask) == pytest.approx(math.log(20))


def test_log_probabilities_and_tensors_give_the_same():
    logits, targets, mask = (torch.from_numpy(x) for x in batch())
    expected = masked_nll(logits, targets, mask)
    assert masked_nll(logits.log_softmax(2), targets, mask) == pytest.approx(expected, rel=1e-6)
    assert masked_nll(logits.numpy(), targets.int().numpy(), mask.numpy()) == expected


def test_tokens_as_they_are_stored_are_taken():
    logits, targets, mask = batch()
    assert masked_nll(logits, targets.astype(np.uint16), mask) == masked_nll(logits, targets, mask)


def test_what_is_not_masked_does_not_count():
    logits, targets, mask = batch()
    expected = masked_nll(logits, targets, mask)
    logits[~mask] = np.nan
    targets[~mask] = -1
    assert masked_nll(logits, targets, mask) == expected


def test_batches_weigh_by_their_tokens():
    logits, targets, mask = batch()
    first = MaskedNLL()
    first.update(logits[:1], targets[:1], mask[:1])
    first.update(logits[1:2], targets[1:2], np.zeros((1, 9), bool))
    mask[1] = False
    first.update(logits[2:], targets[2:], mask[2:])
    assert first.tokens == mask.sum()
    assert first.value == pytest.approx(masked_nll(logits, targets, mask), rel=1e-12)


LOGITS, TARGETS, MASK = np.zeros((2, 3, 4)), np.zeros((2, 3), np.int64), np.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((LOGITS[0], TARGETS, MASK), "expected logits"),
        ((LOGITS, TARGETS[:, :2], MASK), "expected logits"),
        ((LOGITS, TARGETS, MASK[:1]), "expected logits"),
        ((LOGITS, TARGETS * 1.0, MASK), "integer targets"),
        ((LOGITS, TARGETS, MASK * 1), "bool mask"),
        ((LOGITS, TARGETS + 4, MASK), r"4\.\.4 at masked positions, expected 0\.\.3"),
        ((LOGITS, TARGETS - 1, MASK), r"-1\.\.-1"),
        ((LOGITS * np.nan, TARGETS, MASK), "NaN"),
        ((LOGITS, TARGETS, ~MASK), "no masked token"),
    ],
)
def test_input_without_a_likelihood_is_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        masked_nll(*arguments)


def test_id():
    assert METRIC.id() == "nll.masked.v1"
