"""Decoding: the official loop, and that a sample depends on nothing but what it should."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit.common.errors import UsageError
from maskgit.decoding import Trace, _sample, generate, mask_least_confident
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.sampling.noise import gumbel, position_uniforms
from maskgit.schedules import mask_counts, mask_ratio
from tests.paths import GOLDEN

CODES, CLASSES, N = 24, 5, 16
MASK = CODES + CLASSES
SCHEDULES = ("cosine", "linear", "square", "cubic", "sqrt", "logarithmic", "exponential")


def build(config, seed=3, sharpen=6.0):
    """Random weights, large enough that tokens and confidences differ between positions."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(sharpen)
    return model


@pytest.fixture(scope="module")
def model():
    return build(TransformerConfig(CODES, CLASSES, N, width=32, layers=2, heads=4, mlp=48))


def partly_known(images, seed, least=0):
    """(images, N) tokens of which each image has its own number unknown, from `least` to N."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, CODES, (images, N), generator=generator)
    for row in tokens:
        unknown = int(torch.randint(least, N + 1, (), generator=generator))
        row[torch.randperm(N, generator=generator)[:unknown]] = MASK
    return tokens


def official(model, labels, tokens, steps, schedule, start=0, choice_temperature=4.5, greedy=False):
    """The official decode() as written there: whole batch, whole vocabulary cut to the codes, in
    float64; only the noise is ours (two uniforms), or none at all when greedy."""
    ids = tokens.numpy().copy()
    start_unknown = (ids == MASK).sum(axis=1)
    for step in range(start, steps):
        inputs = np.concatenate([CODES + labels.numpy()[:, None], ids], axis=1)
        with torch.no_grad():
            logits = model(torch.from_numpy(inputs))[:, 1:, :CODES].double().numpy()
        exp = np.exp(logits - logits.max(axis=2, keepdims=True))
        probs = exp / exp.sum(axis=2, keepdims=True)
        noise = position_uniforms(0, torch.arange(len(ids)), step, N)
        if greedy:
            sampled = logits.argmax(axis=2)
        else:
            sampled = (probs.cumsum(axis=2) <= noise[:, 0].double().numpy()[:, :, None]).sum(axis=2)
        unknown = ids == MASK
        sampled = np.where(unknown, sampled, ids)
        ratio = np.float32(step + 1) / np.float32(steps)
        mask_len = np.array(
            [
                np.floor(np.float32(n) * mask_ratio(schedule, ratio, int(n))) if n else 0.0
                for n in start_unknown
            ]
        )
        chosen = np.take_along_axis(probs, sampled[:, :, None], axis=2)[:, :, 0]
        mask_len = np.maximum(1, np.minimum(unknown.sum(axis=1) - 1, mask_len)).astype(int)
        confidence = np.log(np.where(unknown, chosen, np.inf))
        if not greedy:
            confidence += choice_temperature * (1 - ratio) * gumbel(noise[:, 1]).double().numpy()
        cut_off = np.take_along_axis(np.sort(confidence, axis=1), mask_len[:, None], axis=1)
        ids = np.where(confidence < cut_off, MASK, sampled)
    return torch.from_numpy(sampled)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 3, 8, 40])
def test_the_official_loop_gives_the_same_tokens(model, schedule, steps):
    labels = torch.arange(12) % CLASSES
    everything = torch.full((12, N), MASK)
    expected = official(model, labels, everything, steps, schedule)
    assert torch.equal(generate(model, labels, steps=steps, schedule=schedule), expected)


@pytest.mark.parametrize(("start", "choice_temperature"), [(0, 4.5), (2, 0.0), (5, 20.0)])
def test_the_official_loop_on_partly_known_tokens(model, start, choice_temperature):
    labels, tokens = torch.arange(20) % CLASSES, partly_known(20, seed=1)
    extra = {"start": start, "choice_temperature": choice_temperature}
    expected = official(model, labels, tokens, 6, "cosine", **extra)
    assert torch.equal(generate(model, labels, steps=6, tokens=tokens, **extra), expected)


def test_the_official_loop_without_noise(model):
    labels, tokens = torch.arange(20) % CLASSES, partly_known(20, seed=2)
    expected = official(model, labels, tokens, 7, "cosine", greedy=True)
    cold = {"choice_temperature": 0.0, "sampling_temperature": 1e-8}
    assert torch.equal(generate(model, labels, steps=7, tokens=tokens, **cold), expected)


def test_masked_after_each_iteration_as_in_the_golden_counts():
    golden = json.loads((GOLDEN / "mask_counts.json").read_text())["counts"]
    model = build(TransformerConfig(CODES, CLASSES, 64, width=16, layers=1, heads=2, mlp=16))
    for steps in (4, 8, 12, 16):
        trace = generate(model, torch.arange(3), steps=steps, trace=True)
        expected = golden[f"cosine/N=64/T={steps}"]
        assert trace.masked.sum(dim=2).tolist() == [[count] * 3 for count in expected]


def test_masked_after_each_iteration_depends_on_each_images_own_unknown_tokens(model):
    tokens = partly_known(10, seed=4)
    trace = generate(model, torch.zeros(10, dtype=int), steps=8, start=2, tokens=tokens, trace=True)
    for image, row in enumerate(tokens):
        expected = mask_counts("cosine", 8, int((row == MASK).sum()), 2)
        assert trace.masked[:, image].sum(dim=1).tolist() == expected


def test_trace_shows_every_iteration(model):
    labels, tokens = torch.arange(9) % CLASSES, partly_known(9, seed=5)
    arguments = {"steps": 20, "start": 3, "tokens": tokens, "schedule": "logarithmic"}
    trace = generate(model, labels, trace=True, **arguments)
    assert isinstance(trace, Trace)
    assert trace.tokens.shape == trace.masked.shape == trace.confidence.shape == (17, 9, N)
    assert torch.equal(trace.tokens[-1], generate(model, labels, **arguments))
    unknown = tokens == MASK
    for sample, masked, confidence in zip(
        trace.tokens, trace.masked, trace.confidence, strict=True
    ):
        assert torch.equal(confidence.isinf(), ~unknown)
        assert not (masked & ~unknown).any()
        # What is masked again is less confident than what is kept.
        worst_kept = torch.where(masked, math.inf, confidence).amin(dim=1, keepdim=True)
        assert (~masked | (confidence < worst_kept)).all()
        assert torch.equal(sample[~unknown & (tokens != MASK)], tokens[~unknown & (tokens != MASK)])
        unknown = masked


@pytest.fixture(scope="module")
def wide_model():
    """The shapes of the embedded benchmark, where equal bits are not a matter of course."""
    return build(TransformerConfig(512, 10, 64, width=128, layers=2, heads=4, mlp=512), sharpen=4.0)


@pytest.fixture(scope="module")
def wide_tokens(wide_model):
    return generate(wide_model, torch.arange(64) % 10, steps=4)


@pytest.mark.parametrize(("batch_size", "images"), [(1, 8), (7, 14), (64, 64)])
def test_batch_size_changes_no_token(wide_model, wide_tokens, batch_size, images):
    labels = torch.arange(images) % 10
    actual = generate(wide_model, labels, steps=4, batch_size=batch_size)
    assert torch.equal(actual, wide_tokens[:images])


def test_two_threads_change_no_token(wide_model, wide_tokens):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for batch_size, images in ((1, 2), (7, 7), (64, 64)):
            labels = torch.arange(images) % 10
            actual = generate(wide_model, labels, steps=4, batch_size=batch_size)
            assert torch.equal(actual, wide_tokens[:images])
    finally:
        torch.set_num_threads(before)


def test_calls_of_any_size_change_no_token(wide_model, wide_tokens):
    for size in (1, 7):
        for ids in (torch.arange(size), torch.arange(20, 20 + size)):
            part = generate(wide_model, ids % 10, steps=4, sample_ids=ids)
            assert torch.equal(part, wide_tokens[ids])


def test_sharing_the_first_iteration_changes_no_token(wide_model):
    labels, tokens = torch.arange(30) % 10, torch.full((30, 64), 522)
    tokens[::7, :5] = 3  # some images are not fully masked and take the other way
    shared = generate(wide_model, labels, steps=3, tokens=tokens)
    alone = generate(wide_model, labels, steps=3, tokens=tokens, share_first=False)
    assert torch.equal(shared, alone)


@pytest.fixture
def forwards(monkeypatch):
    """Grows by one entry, the number of images, with every forward."""
    images = []
    hidden = Transformer.hidden

    def counting(self, tokens, positions=None):
        images.append(len(tokens))
        return hidden(self, tokens, positions)

    monkeypatch.setattr(Transformer, "hidden", counting)
    return images


def test_sharing_computes_the_first_forward_once_per_class(model, forwards):
    labels = torch.arange(100) % 4
    generate(model, labels, steps=1)
    assert forwards == [4]
    forwards.clear()
    generate(model, labels, steps=1, share_first=False)
    assert sum(forwards) == 100


def test_iterations_that_repeat_a_state_are_left_out(model, forwards):
    labels = torch.zeros(8, dtype=torch.int64)
    skipped = generate(model, labels, steps=10 * N)
    # One token at least is revealed per iteration; then only the last one remains.
    assert len(forwards) <= N
    assert torch.equal(generate(model, labels, steps=10 * N, trace=True).tokens[-1], skipped)


requests = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 12),
        "schedule": st.sampled_from((*SCHEDULES, "pow1.5")),
        "choice_temperature": st.sampled_from([0.0, 1.0, 4.5]),
        "sampling_temperature": st.sampled_from([0.5, 1.0, 2.0]),
        "seed": st.integers(0, 2**32 - 1),
    }
)


@settings(max_examples=15, deadline=None)
@given(request=requests, seed=st.integers(0, 1000), data=st.data())
def test_known_tokens_stay_and_new_ones_are_codes(model, request, seed, data):
    tokens = partly_known(5, seed)
    start = data.draw(st.integers(0, request["steps"] - 1))
    result = generate(model, torch.arange(5), tokens=tokens, start=start, **request)
    known = tokens != MASK
    assert torch.equal(result[known], tokens[known])
    assert result.dtype == torch.int64
    assert 0 <= int(result.min()) <= int(result.max()) < CODES


@settings(max_examples=15, deadline=None)
@given(request=requests, seed=st.integers(0, 1000), order=st.permutations(range(6)))
def test_order_and_company_do_not_matter(model, request, seed, order):
    labels, tokens = torch.arange(6) % CLASSES, partly_known(6, seed)
    tokens[0] = MASK
    ids = torch.tensor([3, 2**32 - 1, 0, 77, 12, 5])
    together = generate(model, labels, tokens=tokens, sample_ids=ids, **request)
    order = torch.tensor(order)
    some = order[: 1 + seed % 6]
    few = generate(model, labels[some], tokens=tokens[some], sample_ids=ids[some], **request)
    assert torch.equal(few, together[some])


def test_seeds_and_sample_ids_name_different_noise(model):
    labels = torch.zeros(2, dtype=torch.int64)
    first = generate(model, labels, steps=4, seed=0)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, generate(model, labels, steps=4, seed=1))
    assert torch.equal(first.flip(0), generate(model, labels, steps=4, sample_ids=[1, 0]))


@pytest.mark.parametrize("share_first", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_tokens_follow_the_softmax(share_first, temperature):
    model = build(TransformerConfig(6, 2, 2, width=16, layers=1, heads=2, mlp=16), sharpen=10.0)
    draws = 6000
    labels = torch.ones(draws, dtype=torch.int64)
    variant = {"share_first": share_first, "sampling_temperature": temperature}
    result = generate(model, labels, steps=1, **variant)
    with torch.no_grad():
        logits = model(torch.tensor([[7, 8, 8]]))[0, 1:, :6]
    for position in range(2):
        expected = torch.softmax(logits[position] / temperature, dim=0) * draws
        counts = torch.bincount(result[:, position], minlength=6)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < 20.5  # 5 degrees of freedom: p = 0.001


def test_draws_at_the_ends_have_a_probability():
    """Tokens of probability zero come first and last; no draw of [0, 1) may pick one."""
    logits = torch.full((3, 40), -200.0)
    logits[0, 5:35] = torch.linspace(-3, 3, 30)
    logits[1, 7] = 0.0
    logits[2, 1:39] = 0.1
    edges = torch.tensor([0.0, 2**-23, 0.5, 1 - 2**-23, 1 - 2**-24])
    for temperature in (1.0, 0.3):
        tokens, log_p = _sample(logits, edges.expand(3, 5).contiguous(), temperature)
        assert (logits.gather(1, tokens) > -100).all()
        exact = torch.log_softmax(logits.double(), dim=1).gather(1, tokens)
        torch.testing.assert_close(log_p.double(), exact, rtol=1e-6, atol=1e-6)
    assert tokens[1].unique().tolist() == [7]
    assert tokens[2, 0] == 1
    assert tokens[2, -1] == 38


def test_equal_confidences_at_the_cut_are_kept():
    inf = math.inf
    confidence = torch.tensor(
        [
            [-1.0, -2.0, -3.0, inf],
            [-1.0, -1.0, -3.0, inf],
            [-1.0, -1.0, -1.0, -1.0],
            [-5.0, inf, inf, inf],
            [inf, inf, inf, inf],
            [-1.0, -2.0, -3.0, -4.0],
        ]
    )
    masked = mask_least_confident(confidence, torch.tensor([2, 2, 2, 4, 1, 0]))
    assert masked.int().tolist() == [
        [0, 1, 1, 0],
        [0, 0, 1, 0],  # the second of the sorted is one of two equal ones
        [0, 0, 0, 0],
        [1, 0, 0, 0],  # at most the unknown less one, but at least one
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]


def test_a_grid_of_one_position(model):
    single = build(TransformerConfig(CODES, CLASSES, 1, width=16, layers=1, heads=2, mlp=16))
    one = generate(single, torch.arange(5), steps=1)
    # The official loop finds no cut-off above the only value, and keeps its first sample.
    for share_first in (True, False):
        more = generate(single, torch.arange(5), steps=3, share_first=share_first)
        assert torch.equal(more, one)


def test_nothing_unknown_and_no_images(model):
    tokens = torch.arange(2 * N).view(2, N) % CODES
    labels = torch.zeros(2, dtype=torch.int64)
    assert torch.equal(generate(model, labels, steps=4, tokens=tokens), tokens)
    trace = generate(model, labels, steps=4, tokens=tokens, trace=True)
    assert torch.equal(trace.tokens, tokens.expand(4, 2, N))
    assert not trace.masked.any()
    assert generate(model, labels[:0], steps=4).shape == (0, N)


def test_the_callers_tokens_and_the_models_mode_are_left_alone(model):
    tokens = partly_known(4, seed=8)
    before = tokens.clone()
    expected = generate(model, torch.arange(4), steps=3, tokens=tokens)
    assert torch.equal(tokens, before)
    model.train()
    try:
        assert torch.equal(generate(model, torch.arange(4), steps=3, tokens=tokens), expected)
        assert model.training
    finally:
        model.eval()


def test_damaged_weights_are_an_error():
    damaged = build(TransformerConfig(CODES, CLASSES, N, width=16, layers=1, heads=2, mlp=16))
    with torch.no_grad():
        damaged.head_bias[3] = math.nan
    with pytest.raises(UsageError, match="not finite"):
        generate(damaged, torch.arange(2), steps=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, CLASSES])}, "labels 5: expected integers from 0 to 4"),
        ({"labels": torch.tensor([-1, 0])}, "labels -1: expected integers from 0 to 4"),
        ({"labels": torch.zeros(2)}, "expected integers of shape"),
        ({"labels": torch.zeros(1, 2, dtype=int)}, r"labels \(1, 2\) torch.int64: expected"),
        ({"steps": 0}, "steps 0: expected an integer >= 1"),
        ({"steps": 2.0}, "steps 2.0: expected an integer >= 1"),
        ({"steps": True}, "steps True: expected an integer >= 1"),
        ({"start": 4}, "start 4: expected an integer from 0 to 3"),
        ({"start": -1}, "start -1: expected an integer from 0 to 3"),
        ({"schedule": "cosin"}, "cosin"),
        ({"choice_temperature": -0.1}, "choice_temperature -0.1: expected a number >= 0"),
        ({"choice_temperature": math.nan}, "choice_temperature nan: expected a number >= 0"),
        ({"choice_temperature": "hot"}, "choice_temperature 'hot': expected a number >= 0"),
        ({"sampling_temperature": 0}, "sampling_temperature 0: expected a number > 0"),
        ({"sampling_temperature": math.inf}, "sampling_temperature inf: expected a number > 0"),
        ({"seed": -1}, "seed -1: expected an integer from 0"),
        ({"sample_ids": torch.tensor([0, 2**32])}, "sample_ids 4294967296: expected integers"),
        ({"sample_ids": torch.arange(3)}, r"sample_ids \(3,\) torch.int64: expected"),
        ({"batch_size": 0}, "batch_size 0: expected an integer >= 1"),
        ({"tokens": torch.zeros(2, N + 1, dtype=int)}, r"tokens \(2, 17\) torch.int64: expected"),
        ({"tokens": torch.full((2, N), CODES)}, r"tokens 24: .* 0 to 23, or 29 \(the mask\)"),
    ],
)
def test_arguments_out_of_range_are_one_line(model, change, message):
    arguments = {"labels": torch.arange(2), "steps": 4, **change}
    with pytest.raises(UsageError, match=message) as caught:
        generate(model, arguments.pop("labels"), **arguments)
    assert "\n" not in str(caught.value)
