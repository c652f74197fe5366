"""Training: closed forms, exact resume, and that both stages learn something."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from maskgit.errors import UsageError
from maskgit.presets import Optimisation, TokenizerLoss, TransformerShape, get_preset
from maskgit.tokenizer import Tokenizer, TokenizerConfig
from maskgit.training.loop import Average, DataOrder, RunOptions, Trainer, learning_rate
from maskgit.training.stage1 import TokenizerStage
from maskgit.training.stage2 import MaskedLoss, TransformerStage
from maskgit.training.tokens import load_tokens, save_tokens
from maskgit.transformer import Transformer, TransformerConfig


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_preset(**loss):
    base = get_preset("embedded")
    return replace(
        base,
        num_classes=3,
        image_size=8,
        tokenizer=TokenizerConfig(1, 8, (1, 1), 1, 16, 4, 4),
        tokenizer_loss=TokenizerLoss(perceptual=0.0, **({"adversarial": 0.0} | loss)),
        tokenizer_training=Optimisation(8, 6, 3e-3, warmup_steps=2, ema=0.9),
        transformer=TransformerShape(16, 2, 2, 32, dropout=0.1),
        transformer_training=Optimisation(8, 6, 3e-3, warmup_steps=2, ema=0.9, decay="cosine"),
    )


def images(count=20):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), np.uint8)


def tokenizer_stage(preset, run_dir):
    accelerator = Accelerator(cpu=True)
    options = RunOptions(run_dir=run_dir, log_every=1, checkpoint_every=3, validate_every=8)
    return TokenizerStage(preset, images(), images(10), accelerator, options), options


def transformer_stage(preset, run_dir):
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 16, (20, 16)).astype(np.uint16)
    labels = rng.integers(0, 3, 20)
    options = RunOptions(run_dir=run_dir, log_every=1, checkpoint_every=3, validate_every=8)
    torch.manual_seed(5)
    tokenizer = Tokenizer(preset.tokenizer).eval()
    stage = TransformerStage(
        preset,
        "cosine",
        (tokens, labels),
        (images(10), labels[:10]),
        tokenizer,
        Accelerator(cpu=True),
        options,
    )
    return stage, options


STAGES = {"tokenizer": tokenizer_stage, "transformer": transformer_stage}


def recorded(kind, run_dir, stop_at=None, **loss):
    """Train (or go on) and return the losses by step, and the averaged weights."""
    preset = tiny_preset(**loss)
    stage, options = STAGES[kind](preset, run_dir)
    losses = {}
    inner = stage.step

    def step(number):
        losses[number] = {k: float(v) for k, v in inner(number).items()}
        return {k: torch.tensor(v) for k, v in losses[number].items()}

    stage.step = step
    budget = getattr(preset, f"{kind}_training")
    trainer = Trainer(stage, budget, replace(options, stop_at=stop_at), {"kind": kind})
    trainer.fit()
    return losses, trainer.average.values


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("tokenizer", {"revive_every": 2}),
        ("tokenizer", {"adversarial": 0.1}),
        ("transformer", {}),
    ],
)
def test_resumed_run_has_the_losses_of_one_that_was_not_interrupted(tmp_path, kind, loss):
    whole, weights = recorded(kind, tmp_path / "whole", **loss)
    # A kill after step 4: the checkpoint is that of step 3, so step 3 (from 0) is done again.
    before, _ = recorded(kind, tmp_path / "cut", stop_at=4, **loss)
    after, resumed = recorded(kind, tmp_path / "cut", **loss)
    assert min(after) == 3
    assert max(after) == 7
    assert before == {k: whole[k] for k in range(4)}
    assert after == {k: whole[k] for k in range(3, 8)}
    for name, value in weights.items():
        assert torch.equal(value, resumed[name]), name


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    recorded("transformer", tmp_path, stop_at=4)
    stage, options = transformer_stage(tiny_preset(), tmp_path)
    trainer = Trainer(stage, tiny_preset().transformer_training, options, {"kind": "other"})
    with pytest.raises(UsageError, match="another configuration"):
        trainer.fit()


def test_truncated_checkpoint_is_refused(tmp_path):
    recorded("transformer", tmp_path, stop_at=4)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        recorded("transformer", tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    stage, options = transformer_stage(tiny_preset(), tmp_path)
    inner = stage.step
    stage.step = lambda n: {"loss": torch.tensor(float("nan"))} if n == 4 else inner(n)
    trainer = Trainer(stage, tiny_preset().transformer_training, options, {})
    with pytest.raises(UsageError, match=r"step 5: loss is nan.*checkpoint\.pt"):
        trainer.fit()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["next_step"] == 3
    assert all(bool(v.isfinite().all()) for v in saved["average"].values())


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
    stream = np.concatenate([order.batch(i) for i in range(steps)])
    for epoch in range(3):
        part = stream[epoch * samples : (epoch + 1) * samples]
        assert sorted(part) == list(range(samples))
    # A batch does not depend on which batches were asked for before it.
    assert np.array_equal(DataOrder(samples, batch, seed).batch(steps - 1), order.batch(steps - 1))


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
    tokens, labels = torch.randint(0, 11, (4, 6)), torch.tensor([0, 1, 2, 0])
    mask = torch.rand(4, 6) < 0.5
    mask[:, 0] = True
    loss = MaskedLoss(transformer, 0.1)(labels, tokens, mask)
    shown = torch.where(mask, config.mask_id, tokens)
    log_p = transformer(torch.cat([11 + labels[:, None], shown], 1))[:, 1:].log_softmax(-1)
    expected = torch.zeros(())
    for i in range(4):
        here = [
            0.9 * log_p[i, j, tokens[i, j]] + 0.1 * log_p[i, j].mean()
            for j in range(6)
            if mask[i, j]
        ]
        expected -= sum(here) / len(here) / 4
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_transformer_learns_a_rule(tmp_path):
    """Tokens that equal the class: after some steps the held-out NLL is far below log(16)."""
    preset = tiny_preset()
    budget = replace(preset.transformer_training, steps=120, batch_size=16, learning_rate=1e-2)
    preset = replace(preset, transformer_training=budget)
    stage, options = transformer_stage(preset, tmp_path)
    stage.tokens = stage.labels[:, None].expand(-1, 16).clone()
    stage.test_tokens = stage.test_labels[:, None].expand(-1, 16).clone()
    trainer = Trainer(stage, budget, replace(options, validate_every=120, log_every=60), {})
    assert trainer.fit()["validation_nll"] < 0.5 * np.log(16)
    assert (Path(tmp_path) / "samples" / "0000120.png").is_file()


def test_tokenizer_learns_to_reconstruct(tmp_path):
    preset = tiny_preset(revive_every=20, entropy=0.01)
    budget = replace(preset.tokenizer_training, steps=150, batch_size=10, learning_rate=1e-2)
    preset = replace(preset, tokenizer_training=budget)
    stage, options = tokenizer_stage(preset, tmp_path)
    rows = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None, None] * 12, 8, 1)
    stage.train = np.repeat(rows, 8, 2)
    stage.test = stage.train
    trainer = Trainer(stage, budget, replace(options, validate_every=150, log_every=150), {})
    results = trainer.fit()
    variance = (stage.train / 255.0).var()
    assert results["test_psnr"] > -10 * np.log10(variance / 4)
    assert results["codes_used"] > 4


def test_token_file_of_another_tokenizer_is_refused(tmp_path):
    path = tmp_path / "train.npz"
    tokens, labels = np.arange(8, dtype=np.uint16).reshape(2, 4), np.array([0, 1])
    save_tokens(path, tokens, labels, "abc")
    assert np.array_equal(load_tokens(path, "abc")[0], tokens)
    with pytest.raises(UsageError, match="made with tokenizer abc"):
        load_tokens(path, "def")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match="not a token file"):
        load_tokens(path, "abc")
    with pytest.raises(UsageError, match="no such file"):
        load_tokens(tmp_path / "none.npz", "abc")
