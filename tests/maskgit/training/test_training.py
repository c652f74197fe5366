"""Training: closed forms, exact resume, and that both stages learn something."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from maskgit.common.errors import UsageError
from maskgit.data.source import ArrayImages
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.training.loop import Average, DataOrder, Trainer, learning_rate
from maskgit.training.settings import Optimisation
from maskgit.training.stage2 import ROW_COUNTS, MaskedLoss, masked_positions
from maskgit.training.tokens import ArrayTokens, load_tokens, save_tokens
from tests.maskgit.training.training_doubles import (
    STEPS,
    images,
    make_stage,
    recorded,
    run_options,
    tiny_preset,
    tokens,
)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("tokenizer", {"revive_every": 2}),
        ("tokenizer", {"adversarial": 0.1}),
        ("transformer", {}),
    ],
)
def test_resumed_run_has_the_losses_of_one_that_was_not_interrupted(tmp_path, kind, loss):
    preset = tiny_preset(**loss)
    whole, weights, _ = recorded(kind, tmp_path / "whole", preset)
    # A kill after step 4: the checkpoint is that of step 3, so step 3 (from 0) is done again.
    before, *_ = recorded(kind, tmp_path / "cut", preset, stop_at=4)
    after, resumed, _ = recorded(kind, tmp_path / "cut", preset)
    assert min(after) == 3
    assert max(after) == 7
    assert before == {k: whole[k] for k in range(4)}
    assert after == {k: whole[k] for k in range(3, 8)}
    for name, value in weights.items():
        assert torch.equal(value, resumed[name]), name


def trainer_of(kind, run_dir, config=None, **options):
    preset, options = tiny_preset(), run_options(run_dir, **options)
    stage = make_stage(kind, preset, options)
    budget = getattr(preset, f"{kind}_training")
    return stage, Trainer(stage, budget, options, config or {"kind": kind})


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    recorded("transformer", tmp_path, stop_at=4)
    _, trainer = trainer_of("transformer", tmp_path, {"kind": "other"})
    with pytest.raises(UsageError, match="another configuration"):
        trainer.fit()


def test_a_log_without_a_terminal_has_a_line_a_minute(tmp_path, monkeypatch, capsys):
    recorded("transformer", tmp_path / "short")
    assert "images/s" not in capsys.readouterr().err
    monkeypatch.setattr("maskgit.training.loop.LINE_SECONDS", 0.0)
    recorded("transformer", tmp_path / "long")
    lines = [line for line in capsys.readouterr().err.splitlines() if "images/s" in line]
    assert len(lines) == STEPS
    for number, line in enumerate(lines, 1):
        expected = rf"step {number}/{STEPS}: loss \d\.\d{{4}}, \d+ images/s, \d+ min left"
        assert re.fullmatch(expected, line), line


def test_memory_does_not_grow_with_the_steps(tmp_path):
    """oneDNN keeps memory for every shape of a product: some hundred steps have few of them."""

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            if "mkldnn" in str(function) or "mm" in str(function):
                shapes = (tuple(x.shape) for x in arguments if isinstance(x, torch.Tensor))
                seen.add((str(function), *shapes))
            return function(*arguments, **(named or {}))

    stage = make_stage("transformer", tiny_preset(), run_options(tmp_path))
    rows = [len(stage.arguments(*stage.inputs(step))[0]) for step in range(300)]
    assert 8 < len(set(rows)) <= ROW_COUNTS
    # Nothing else of a step's products depends on the step: equal rows, equal shapes.
    products = {}
    for step in range(16):
        seen = set()
        with Record():
            stage.step(step)
        assert len(seen) > 10
        assert products.setdefault(rows[step], seen) == seen
    assert len(products) < 16, "no number of rows came twice, so this test saw nothing"


def test_truncated_checkpoint_is_refused(tmp_path):
    recorded("transformer", tmp_path, stop_at=4)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        recorded("transformer", tmp_path)


def saved_weights_are_finite(run_dir, next_step):
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert saved["next_step"] == next_step
    states = [saved["average"], *saved["modules"].values()]
    return all(bool(v.isfinite().all()) for state in states for v in state.values())


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    stage, trainer = trainer_of("transformer", tmp_path)
    inner = stage.step
    stage.step = lambda n: {"loss": torch.tensor(float("nan"))} if n == 4 else inner(n)
    with pytest.raises(UsageError, match=r"step 5: loss is nan.*checkpoint\.pt"):
        trainer.fit()
    assert saved_weights_are_finite(tmp_path, 3)


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, kind):
    """The loss of the step is fine; only its backward pass breaks."""
    stage, trainer = trainer_of(kind, tmp_path)
    parameter = next(stage.modules[kind].parameters())
    calls = []
    parameter.register_hook(lambda g: g * float("inf") if len(calls) == 4 else g)
    inner = stage.step
    stage.step = lambda n: (calls.append(n) if n else None, inner(n))[1]
    with pytest.raises(UsageError, match=r"step 5: gradient_norm is (nan|inf)"):
        trainer.fit()
    assert saved_weights_are_finite(tmp_path, 3)


def test_a_checkpoint_is_never_overwritten_with_weights_that_are_not_finite(tmp_path):
    """Also where loss and gradient are finite, here: a value that appears in the weights."""
    stage, trainer = trainer_of("transformer", tmp_path)
    inner = stage.step

    def step(number):
        scalars = inner(number)
        if number == 5:
            stage.model.head_bias.data[3] = float("inf")
        return scalars

    stage.step = step
    with pytest.raises(UsageError, match="step 6: the weights of transformer are not finite"):
        trainer.fit()
    assert saved_weights_are_finite(tmp_path, 3)


def test_a_run_without_a_reading_of_the_loss_still_names_the_first_bad_step(tmp_path):
    """On a GPU values are read every log_every steps only; the guard remembers."""
    from maskgit.training.loop import FiniteGuard

    guard = FiniteGuard()
    for step, loss in enumerate([1.0, 2.0, float("inf"), 3.0, float("nan")]):
        guard.watch({"loss": torch.tensor(loss), "gradient_norm": torch.tensor(1.0)}, step)
    with pytest.raises(UsageError, match="step 3: loss is inf"):
        guard.check(tmp_path)


def test_learning_rate_warms_up_and_decays():
    budget = Optimisation(steps=100, learning_rate=2.0, warmup_steps=10, decay="cosine")
    rates = [learning_rate(budget, i) for i in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] < 0.01
    constant = replace(budget, decay="constant")
    assert {learning_rate(constant, i) for i in range(10, 100)} == {2.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 5))
def test_every_epoch_shows_every_sample_once(samples, batch, seed):
    order = DataOrder(samples, batch, seed)
    steps = -(-3 * samples // batch)
    stream = np.concatenate([order.located(i)[0] for i in range(steps)])
    for epoch in range(3):
        part = stream[epoch * samples : (epoch + 1) * samples]
        assert sorted(part) == list(range(samples))
    # A batch does not depend on which batches were asked for before it.
    assert np.array_equal(
        DataOrder(samples, batch, seed).located(steps - 1)[0], order.located(steps - 1)[0]
    )


def test_average_is_the_exponential_moving_average():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = Average(module, decay=0.5)
    expected = 0.0
    for step in range(6):
        module.weight.data.fill_(float(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        average.update(module, step)
    assert float(average.values["weight"]) == pytest.approx(expected)
    with average.swapped(module) as swapped:
        assert swapped.weight.item() == pytest.approx(expected)
        assert not swapped.training
    assert module.weight.item() == 5.0
    assert module.training


def test_masked_loss_equals_its_definition():
    torch.manual_seed(0)
    config = TransformerConfig(11, 3, 6, width=8, layers=1, heads=2, mlp=16, dropout=0.0)
    transformer = Transformer(config).eval()
    tokens, labels = torch.randint(0, 11, (12, 6)), torch.arange(12) % 3
    mask = torch.rand(12, 6) < 0.5
    mask[3, 4] = ~mask[3, 4]
    mask[:, 0], mask[:, 1] = False, True  # rows are added to masks, and must not add a mask
    arguments = masked_positions(mask)
    assert len(arguments[0]) > mask.sum()
    loss = MaskedLoss(transformer, 0.1)(labels, tokens, *arguments)
    shown = torch.where(mask, config.mask_id, tokens)
    log_p = transformer(torch.cat([11 + labels[:, None], shown], 1))[:, 1:].log_softmax(-1)
    expected = torch.zeros(())
    for i in range(12):
        here = [
            0.9 * log_p[i, j, tokens[i, j]] + 0.1 * log_p[i, j].mean()
            for j in range(6)
            if mask[i, j]
        ]
        expected -= sum(here) / len(here) / 12
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_transformer_learns_a_rule(tmp_path):
    """Tokens that equal the class: after some steps the held-out NLL is far below log(16)."""
    preset = tiny_preset()
    budget = replace(preset.transformer_training, steps=120, batch_size=16, learning_rate=5e-3)
    preset = replace(preset, transformer_training=budget)
    options = run_options(tmp_path, validate_every=120, log_every=60)
    stage = make_stage("transformer", preset, options)
    for source in (stage.train, stage.held_out):
        source.tokens = np.broadcast_to(source.labels[:, None, None], source.tokens.shape)
    trainer = Trainer(stage, budget, options, {})
    assert trainer.fit()["validation_nll"] < 0.5 * np.log(16)
    assert (Path(tmp_path) / "samples" / "0000120.png").is_file()


def test_tokenizer_learns_to_reconstruct(tmp_path):
    preset = tiny_preset(revive_every=20, entropy=0.01)
    budget = replace(preset.tokenizer_training, steps=150, batch_size=10, learning_rate=1e-2)
    preset = replace(preset, tokenizer_training=budget)
    options = run_options(tmp_path, validate_every=150, log_every=150)
    stage = make_stage("tokenizer", preset, options)
    rows = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None, None] * 12, 8, 1)
    stage.feed.source = stage.test = ArrayImages(np.repeat(rows, 8, 2))
    results = Trainer(stage, budget, options, {}).fit()
    variance = (stage.test.images / 255.0).var()
    assert results["test_psnr"] > -10 * np.log10(variance / 4)
    assert results["codes_used"] > 4


def test_losses_of_slices_are_those_of_the_whole_batch(tmp_path):
    """TokenizerPass and negative_mean_entropy in four slices against one, values and gradients."""
    from maskgit.training.images import to_tensor
    from maskgit.training.stage1 import TokenizerPass, negative_mean_entropy

    torch.manual_seed(0)
    tokenizer = make_stage("tokenizer", tiny_preset(), run_options(tmp_path)).tokenizer
    tokenizer.quantizer.codebook.data.mul_(0.2)  # several codes within reach of 0.01
    batch = to_tensor(images(6))
    module = TokenizerPass(tokenizer)
    whole = module(batch)
    of_mean = (whole["mean_p"] * (whole["mean_p"] + 1e-5).log()).sum()
    entropy = whole["sample_entropy"] + of_mean
    (entropy + whole["reconstruction"].square().mean()).backward()
    expected = {k: p.grad.clone() for k, p in tokenizer.named_parameters()}
    tokenizer.zero_grad()
    slices = [batch[0::4], batch[1::4], batch[2::4], batch[3::4]]
    shares = [len(x) / 6 for x in slices]
    mean_p = sum(module.mean_p(x) * s for x, s in zip(slices, shares, strict=True))
    total = 0.0
    for part, share in zip(slices, shares, strict=True):
        out = module(part)
        terms = out["sample_entropy"] * share
        terms = terms + negative_mean_entropy(mean_p, out["mean_p"], share, len(slices))
        (terms + out["reconstruction"].square().mean() * share).backward()
        total += terms.item()
    assert total == pytest.approx(entropy.item(), rel=1e-5)
    for name, parameter in tokenizer.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-3, atol=1e-6), name


def test_token_file_of_another_tokenizer_is_refused(tmp_path):
    path = tmp_path / "train.npz"
    rows, labels = np.arange(8, dtype=np.uint16).reshape(2, 4), np.array([0, 1])
    save_tokens(path, rows, labels, "abc")
    assert np.array_equal(load_tokens(path, "abc")[0], rows)
    assert np.array_equal(load_tokens(path, None)[0], rows)
    with pytest.raises(UsageError, match="made with tokenizer abc"):
        load_tokens(path, "def")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match="not a token file"):
        load_tokens(path, "abc")
    with pytest.raises(UsageError, match="no such file"):
        load_tokens(tmp_path / "none.npz", "abc")


def test_epoch_picks_the_crop():
    source = tokens(5, crops=3)
    picked = np.array([4, 0, 4])
    rows, labels = source.batch(picked, np.array([0, 2, 7]))
    expected = source.tokens[[4, 0, 4], [0, 2, 1]]
    assert np.array_equal(rows.numpy(), expected)
    assert rows.dtype == labels.dtype == torch.int64
    assert labels.tolist() == source.labels[picked].tolist()


def test_token_arrays_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"tokens \(4, 3\) and labels \(5,\)"):
        ArrayTokens(np.zeros((4, 3), np.uint16), np.zeros(5, int))
