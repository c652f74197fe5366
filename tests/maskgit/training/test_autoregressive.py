"""Training of the autoregressive baseline: its loss, exact resume, and that it learns a rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from maskgit.model.causal import Autoregressive
from maskgit.model.config import TokenizerConfig, TransformerConfig, TransformerShape
from maskgit.model.tokenizer import Tokenizer
from maskgit.presets import load_preset
from maskgit.training.__main__ import main
from maskgit.training.autoregressive import AutoregressiveLoss, AutoregressiveStage
from maskgit.training.loop import Trainer
from maskgit.training.settings import Optimisation, RunOptions
from maskgit.training.tokens import ArrayTokens
from tests.maskgit.sampling.test_autoregressive import log_likelihood


def tiny_preset(**budget):
    defaults = {"steps": 8, "batch_size": 6, "learning_rate": 3e-3, "warmup_steps": 2, "ema": 0.9}
    return replace(
        load_preset("embedded"),
        num_classes=3,
        image_size=8,
        tokenizer=TokenizerConfig(1, 8, (1, 1), 1, 16, 4, 4),
        transformer=TransformerShape(16, 2, 2, 32, dropout=0.1),
        transformer_training=Optimisation(decay="cosine", **(defaults | budget)),
    )


def random_tokens(count=20):
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 16, (count, 16)).astype(np.uint16)
    return ArrayTokens(tokens, rng.integers(0, 3, count))


def counting_tokens(count=30):
    """Token p of class c is c + p: what comes next follows from what is there."""
    labels = np.arange(count) % 3
    tokens = (labels[:, None] + np.arange(16)) % 16
    return ArrayTokens(tokens.astype(np.uint16), labels)


def make_stage(preset, run_dir, train, **options):
    torch.manual_seed(5)
    tokenizer = Tokenizer(preset.tokenizer).eval()
    run = RunOptions(run_dir, log_every=1, checkpoint_every=3, validate_every=8)
    run = replace(run, **options)
    accelerator = Accelerator(cpu=True)
    return AutoregressiveStage(preset, train, train, tokenizer, accelerator, run), run


def recorded(run_dir, stop_at=None, **options):
    """Train (or go on) and return the losses by step, and the averaged weights."""
    preset, losses = tiny_preset(), {}
    stage, run = make_stage(preset, run_dir, random_tokens(), stop_at=stop_at, **options)
    inner = stage.step

    def step(number):
        scalars = inner(number)
        losses[number] = float(scalars["loss"])
        return scalars

    stage.step = step
    trainer = Trainer(stage, preset.transformer_training, run, {})
    trainer.fit()
    return losses, trainer.average.values


def test_resumed_run_has_the_losses_of_one_that_was_not_interrupted(tmp_path):
    whole, weights = recorded(tmp_path / "whole")
    # A kill after step 4: the checkpoint is that of step 3, so step 3 (from 0) is done again.
    before, _ = recorded(tmp_path / "cut", stop_at=4)
    after, resumed = recorded(tmp_path / "cut")
    assert before == {k: whole[k] for k in range(4)}
    assert after == {k: whole[k] for k in range(3, 8)}
    for name, value in weights.items():
        assert torch.equal(value, resumed[name]), name


def test_recomputed_activations_change_nothing(tmp_path):
    plain, weights = recorded(tmp_path / "plain")
    again, recomputed = recorded(tmp_path / "again", checkpoint_activations=True)
    assert again == pytest.approx(plain, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(value, recomputed[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_its_definition(smoothing):
    torch.manual_seed(0)
    model = Autoregressive(TransformerConfig(11, 3, 6, width=8, layers=1, heads=2, mlp=16)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(5.0)
    tokens, labels = torch.randint(0, 11, (4, 6)), torch.tensor([0, 1, 2, 0])
    loss = AutoregressiveLoss(model, smoothing)(labels, tokens)
    expected = 0.0
    for image, label in zip(tokens, labels, strict=True):
        for position, token in enumerate(image):
            seen = torch.cat((image[:position], torch.zeros(5 - position, dtype=torch.int64)))
            log_p = model(label[None], seen[None])[0, position].log_softmax(0)
            expected -= ((1 - smoothing) * log_p[token] + smoothing * log_p.mean()) / 24
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_learns_a_rule(tmp_path):
    preset = tiny_preset(steps=120, batch_size=16, learning_rate=1e-2)
    stage, run = make_stage(preset, tmp_path, counting_tokens(), log_every=60, validate_every=120)
    trainer = Trainer(stage, preset.transformer_training, run, {})
    results = trainer.fit()
    assert results["validation_nll"] < 0.1 * np.log(16)
    assert (tmp_path / "samples" / "0000120.png").is_file()
    tokens, labels = counting_tokens().batch(np.arange(30), 0)
    with trainer.average.swapped(stage.model) as model, torch.no_grad():
        expected = -log_likelihood(model, labels, tokens).mean()
    assert results["validation_nll"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [("1", "a number in"), ("-0.1", "a number in"), ("nan", "a finite number")],
)
def test_label_smoothing_out_of_range_is_refused(monkeypatch, capsys, smoothing, expected):
    flag = f"--label-smoothing={smoothing}"
    monkeypatch.setattr("sys.argv", ["maskgit.training", "autoregressive", flag])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --label-smoothing {float(smoothing)}: expected {expected}")
