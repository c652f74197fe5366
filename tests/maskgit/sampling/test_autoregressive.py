"""The autoregressive baseline: its model against torch's own layers and the axioms of probability,
its sampling against a naive loop, and that no batch, thread or cache changes a token."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from maskgit.common.errors import UsageError
from maskgit.decoding import Trace
from maskgit.model.causal import Cache
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.sampling.autoregressive import Autoregressive, generate_autoregressive
from maskgit.sampling.draw import draw
from maskgit.sampling.noise import position_uniforms

CODES, CLASSES, N = 24, 5, 16
MASK = CODES + CLASSES


def build(config, sharpen=6.0):
    """Random weights, large enough that the distributions differ between positions."""
    torch.manual_seed(3)
    model = Autoregressive(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(sharpen)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return build(TransformerConfig(CODES, CLASSES, N, width=32, layers=2, heads=4, mlp=48))


@pytest.fixture(scope="module")
def tiny():
    """Few enough images that all of them can be listed: 3 codes at 4 positions."""
    return build(TransformerConfig(3, 2, 4, width=16, layers=2, heads=2, mlp=24), sharpen=12.0)


@pytest.fixture(scope="module")
def wide_model():
    """The sizes of the embedded benchmark, where equal bits are not a matter of course."""
    config = TransformerConfig(512, 10, 64, width=128, layers=2, heads=4, mlp=512)
    return build(config, sharpen=4.0)


@pytest.fixture(scope="module")
def wide_tokens(wide_model):
    return generate_autoregressive(wide_model, torch.arange(64) % 10)


def random_grids(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.arange(images) % CLASSES, torch.randint(CODES, (images, N), generator=generator)


def every_image():
    """All 81 images of the tiny model."""
    return torch.tensor(list(product(range(3), repeat=4)))


@pytest.mark.parametrize(("num_tokens", "parameters"), [(256, 172_454_656), (1024, 173_044_480)])
def test_parameters_at_the_papers_sizes(num_tokens, parameters):
    """Without the mask, one position, and the biases of what is never predicted."""
    with torch.device("meta"):
        config = TransformerConfig(1024, 1000, num_tokens)
        ours, masked = Autoregressive(config), Transformer(config)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (ours, masked)]
    assert sizes == [parameters, parameters + 2 * 768 + 1001]


def test_torchs_own_layers_give_the_same_logits(model):
    """torch.nn.TransformerEncoderLayer with a causal mask, in float64, with the same weights."""
    labels, tokens = random_grids(5)
    config = model.config
    x = model.word_embeddings.weight[torch.cat((CODES + labels[:, None], tokens[:, :-1]), 1)]
    x = model.embeddings_norm(x + model.position_embeddings.weight).double()
    for layer in model.layers:
        peer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            config.mlp,
            dropout=0.0,
            activation=lambda x: nn.functional.gelu(x, approximate="tanh"),
            layer_norm_eps=1e-12,
            batch_first=True,
        )
        names = {
            "self_attn.in_proj_": layer.attention.qkv,
            "self_attn.out_proj.": layer.attention.out,
            "linear1.": layer.mlp_in,
            "linear2.": layer.mlp_out,
            "norm1.": layer.attention_norm,
            "norm2.": layer.mlp_norm,
        }
        peer.load_state_dict(
            {
                f"{k}{part}": getattr(m, part)
                for k, m in names.items()
                for part in ("weight", "bias")
            }
        )
        x = peer.double()(x, src_mask=nn.Transformer.generate_square_subsequent_mask(N).double())
    dense = nn.functional.linear(
        x, model.head_dense.weight.double(), model.head_dense.bias.double()
    )
    head = nn.functional.gelu(dense, approximate="tanh")
    head = nn.functional.layer_norm(
        head, (32,), model.head_norm.weight.double(), model.head_norm.bias.double(), 1e-12
    )
    expected = head @ model.word_embeddings.weight[:CODES].double().T + model.head_bias.double()
    actual = model(labels, tokens[:, :-1]).double()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_position_sees_itself_and_those_before_it(model):
    labels, tokens = random_grids(1)
    before = model(labels, tokens[:, :-1])
    for position in range(N - 1):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % CODES
        difference = (model(labels, changed[:, :-1]) - before).abs().amax(dim=2)[0]
        assert (difference[: position + 1] == 0).all(), position
        assert (difference[position + 1 :] > 1e-6).all(), position
    assert (model(labels + 1, tokens[:, :-1]) != before).any(dim=2).all()


def log_likelihood(model, labels, tokens):
    """log p (B, N) in nats of each token of whole grids `tokens (B, N)` given those before."""
    log_p = model(labels, tokens[:, :-1]).float().log_softmax(dim=-1)
    return log_p.gather(2, tokens[:, :, None]).squeeze(2)


def test_probabilities_of_all_images_add_up_to_one(tiny):
    images = every_image()
    for label in range(2):
        log_p = log_likelihood(tiny, torch.full((81,), label), images)
        assert log_p.shape == (81, 4)
        assert log_p.double().sum(dim=1).exp().sum().item() == pytest.approx(1.0, abs=1e-5)
        assert log_p.sum(dim=1).std() > 0.5  # far from uniform, so the sum says something


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_images_come_as_often_as_they_are_probable(tiny, temperature):
    count = 4000
    labels = torch.zeros(count, dtype=torch.int64)
    tokens = generate_autoregressive(tiny, labels, sampling_temperature=temperature, seed=1)
    rows, images = (tokens * torch.tensor([27, 9, 3, 1])).sum(dim=1), every_image()
    logits = tiny(labels[:81], images[:, :-1]).double() / temperature
    log_p = logits.log_softmax(dim=2).gather(2, images[:, :, None]).sum(dim=(1, 2))
    expected = (log_p.exp() * count).detach().numpy()
    seen = np.bincount(rows.numpy(), minlength=81).astype(float)
    often = expected > 5  # the rest in one class, as the test wants it
    if not often.all():
        seen = np.append(seen[often], seen[~often].sum())
        expected = np.append(expected[often], count - expected[often].sum())
    assert chisquare(seen, expected).pvalue > 0.01


def naive(model, labels, seed=0, temperature=1.0):
    """The whole sequence anew for each token, in float64, and the token by counting."""
    tokens = torch.zeros((len(labels), N), dtype=torch.int64)
    uniforms = position_uniforms(seed, torch.arange(len(labels)), 0, N)[:, 0].double()
    for position in range(N):
        with torch.no_grad():
            logits = model(labels, tokens[:, :-1])[:, position].double() / temperature
        cumulative = logits.softmax(dim=1).cumsum(dim=1)
        tokens[:, position] = (cumulative <= uniforms[:, position, None]).sum(dim=1)
    return tokens


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_naive_loop_gives_the_same_tokens(model, temperature):
    labels = torch.arange(30) % CLASSES
    actual = generate_autoregressive(model, labels, seed=5, sampling_temperature=temperature)
    assert torch.equal(actual, naive(model, labels, 5, temperature))
    assert len(actual.unique()) == CODES


def test_without_the_cache_the_tokens_are_the_same(wide_model, wide_tokens):
    """The two ways add the same numbers in another order, so their logits differ in the last bits
    (next test), and a token differs where its uniform falls between two such sums. That is rare,
    and in these 20 images it does not happen."""
    tokens = wide_tokens[:20]
    with torch.no_grad():
        logits = wide_model(torch.arange(20) % 10, tokens[:, :-1])
    picks = position_uniforms(0, torch.arange(20), 0, tokens.shape[1])[:, 0]
    drawn = draw(logits.flatten(0, 1), picks.reshape(-1, 1), 1.0)[0]
    assert torch.equal(drawn.view_as(tokens), tokens)


def test_steps_through_the_cache_give_the_logits_of_one_forward(wide_model, wide_tokens):
    labels = torch.arange(64) % 10
    with torch.no_grad():
        whole = wide_model(labels, wide_tokens[:, :-1])
        cache = Cache(wide_model.config, 64, whole)
        for position in range(64):
            entries = wide_tokens[:, position - 1] if position else 512 + labels
            logits = wide_model.logits(wide_model.step(entries, cache))
            torch.testing.assert_close(logits, whole[:, position], rtol=1e-4, atol=1e-4)
    assert cache.length == 64
    with pytest.raises(UsageError, match="the cache is full: 64 positions"):
        wide_model.step(entries, cache)


def test_the_cache_is_allocated_once_and_each_position_read_once(model, monkeypatch):
    steps, caches = [], []
    step, init = Autoregressive.step, Cache.__init__
    monkeypatch.setattr(
        Autoregressive, "step", lambda *a: steps.append((a[2].length, id(a[2].keys))) or step(*a)
    )
    monkeypatch.setattr(Cache, "__init__", lambda *a: init(*a) or caches.append(a[0]))
    monkeypatch.setattr(Autoregressive, "hidden", None)  # no way through the whole sequence
    generate_autoregressive(model, torch.arange(3))
    (cache,) = caches
    assert steps == [(i, id(cache.keys)) for i in range(N)]
    assert cache.keys.shape == cache.values.shape == (2, 3, 4, N, 8)
    assert 3 * Cache.bytes_an_image(model.config) == 2 * cache.keys.nbytes


@pytest.mark.parametrize(("batch_size", "images"), [(1, 4), (7, 14), (64, 64)])
def test_batch_size_changes_no_token(wide_model, wide_tokens, batch_size, images):
    labels = torch.arange(images) % 10
    actual = generate_autoregressive(wide_model, labels, batch_size=batch_size)
    assert torch.equal(actual, wide_tokens[:images])


def test_two_threads_change_no_token():
    sizes = {"width": 128, "layers": 1, "heads": 4, "mlp": 512}
    short_model = build(TransformerConfig(512, 10, 6, **sizes), sharpen=4.0)
    labels = torch.arange(64) % 10
    expected = generate_autoregressive(short_model, labels)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for batch_size, images in ((1, 2), (7, 7), (64, 64)):
            actual = generate_autoregressive(short_model, labels[:images], batch_size=batch_size)
            assert torch.equal(actual, expected[:images])
    finally:
        torch.set_num_threads(before)


def test_calls_of_any_size_change_no_token(wide_model, wide_tokens):
    for ids in (torch.tensor([63]), torch.tensor([20, 3, 41])):
        part = generate_autoregressive(wide_model, ids % 10, sample_ids=ids)
        assert torch.equal(part, wide_tokens[ids])


def test_seed_sample_and_class_change_the_tokens(model):
    labels = torch.zeros(4, dtype=torch.int64)
    tokens = generate_autoregressive(model, labels)
    assert len(tokens.unique(dim=0)) == 4
    assert not torch.equal(tokens, generate_autoregressive(model, labels, seed=1))
    assert not torch.equal(tokens, generate_autoregressive(model, labels + 1))


@settings(max_examples=8, deadline=None)
@given(known=st.lists(st.integers(0, N), min_size=6, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_the_upper_part_of_a_sample_is_completed_to_that_sample(model, known, seed):
    """Each image with its own number of known tokens, which reads 0 as well as all of them."""
    labels = torch.arange(6) % CLASSES
    whole = generate_autoregressive(model, labels, seed=seed)
    for unknown in (MASK, -1):
        tokens = whole.clone()
        for row, length in zip(tokens, known, strict=True):
            row[length:] = unknown
        assert torch.equal(generate_autoregressive(model, labels, seed=seed, tokens=tokens), whole)


def test_known_tokens_stay_wherever_they_are_and_change_what_follows(model):
    labels, tokens = random_grids(12, seed=4)
    known = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    known[:, 0] = True
    given_tokens = tokens.masked_fill(~known, MASK)
    kept = given_tokens.clone()
    actual = generate_autoregressive(model, labels, tokens=given_tokens)
    assert torch.equal(given_tokens, kept)
    assert torch.equal(actual[known], tokens[known])
    assert ((actual >= 0) & (actual < CODES)).all()
    other = given_tokens.clone()
    other[:, 0] = (other[:, 0] + 1) % CODES
    changed = generate_autoregressive(model, labels, tokens=other) != actual
    assert (changed[:, 1:] & ~known[:, 1:]).any()


def test_trace_shows_what_is_known_after_each_step(model):
    labels, tokens = random_grids(9, seed=6)
    known = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    tokens = tokens.masked_fill(~known, MASK)
    final = generate_autoregressive(model, labels, tokens=tokens)
    trace = generate_autoregressive(model, labels, tokens=tokens, trace=True, batch_size=4)
    assert isinstance(trace, Trace)
    assert trace.tokens.shape == trace.masked.shape == trace.confidence.shape == (N, 9, N)
    assert torch.equal(trace.tokens[-1], final)
    log_p = log_likelihood(model, labels, final)
    for step in range(N):
        reached = known | (torch.arange(N) <= step)
        assert torch.equal(trace.masked[step], ~reached)
        assert torch.equal(trace.tokens[step], final.masked_fill(~reached, MASK))
        confidence = trace.confidence[step]
        assert (confidence[~reached] == -math.inf).all()
        drawn = ~known[:, step]
        here = confidence[:, step]
        torch.testing.assert_close(here[drawn], log_p[drawn, step], rtol=1e-4, atol=1e-4)
        earlier = reached.clone()
        earlier[drawn, step] = False
        assert (confidence[earlier] == math.inf).all()


def test_dropout_is_off_and_the_mode_comes_back(wide_model, wide_tokens):
    wide_model.train()
    try:
        actual = generate_autoregressive(wide_model, torch.arange(2))
        assert wide_model.training
        assert torch.equal(actual, wide_tokens[:2])
    finally:
        wide_model.eval()


def test_no_images(model):
    assert generate_autoregressive(model, torch.arange(0)).shape == (0, N)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, CLASSES])}, "labels 5: expected integers from 0 to 4"),
        ({"labels": torch.tensor([0.5, 1.0])}, "labels .*: expected integers of shape"),
        ({"sampling_temperature": 0}, "sampling_temperature 0: expected a number > 0"),
        ({"sampling_temperature": math.inf}, "sampling_temperature inf: expected a number > 0"),
        ({"sampling_temperature": True}, "sampling_temperature True: expected a number > 0"),
        ({"seed": -1}, "seed -1: expected an integer from 0"),
        ({"sample_ids": torch.tensor([1])}, r"sample_ids .*: expected integers of shape \(2,\)"),
        ({"sample_ids": torch.tensor([1, 2**32])}, "sample_ids 4294967296: expected integers"),
        ({"batch_size": 0}, "batch_size 0: expected an integer >= 1"),
        ({"tokens": torch.zeros(2, 3, dtype=int)}, r"tokens .*: expected integers of shape \(2, "),
        ({"tokens": torch.full((2, N), CODES)}, "tokens 24: expected integers from 0 to 23, or 29"),
    ],
)
def test_bad_arguments_are_named(model, change, message):
    arguments = {"labels": torch.tensor([0, 1])} | change
    with pytest.raises(UsageError, match=message):
        generate_autoregressive(model, arguments.pop("labels"), **arguments)


def test_wrong_shapes_are_an_error(model):
    with pytest.raises(UsageError, match=r"shapes \(B,\) and \(B, L <= 15\); got \(2,\) and"):
        model(torch.zeros(2, dtype=int), torch.zeros((2, N), dtype=int))
    with pytest.raises(UsageError, match="labels and tokens must have shapes"):
        model(torch.zeros(3, dtype=int), torch.zeros((2, 4), dtype=int))


def test_damaged_weights_are_an_error(tiny):
    broken = build(tiny.config)
    broken.head_bias.data[1] = math.nan
    with pytest.raises(UsageError, match="logits are not finite"):
        generate_autoregressive(broken, torch.tensor([0]))
