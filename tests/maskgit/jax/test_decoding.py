"""Decoding in JAX: the tokens of torch, programs and devices."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import maskgit.jax
from maskgit import checkpoints
from maskgit.checkpoints import zoo_path
from maskgit.common.errors import UsageError
from maskgit.decoding import generate
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.presets import PAPER_SCHEDULES
from tests.paths import ROOT

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.jax

CODES, CLASSES, N = 24, 5, 16
MASK = CODES + CLASSES


def build(num_tokens=N, layers=2):
    """Random weights, large enough that tokens and confidences differ between positions."""
    torch.manual_seed(3)
    config = TransformerConfig(CODES, CLASSES, num_tokens, 32, layers, heads=4, mlp=48)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model


@pytest.fixture(scope="module")
def models():
    from maskgit.jax.transformer import from_torch

    model = build()
    return model, from_torch(model)


def labels_of(images):
    return torch.arange(images) % CLASSES


def partly_known(images):
    """(images, N) tokens; the number of unknown ones goes from none to all."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, CODES, (images, N), generator=generator)
    for i, row in enumerate(tokens):
        row[torch.randperm(N, generator=generator)[: i % (N + 1)]] = MASK
    return tokens


@pytest.mark.parametrize("schedule", PAPER_SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_tokens_are_those_of_torch(models, schedule, steps):
    ours, theirs = models
    settings = {"steps": steps, "schedule": schedule, "seed": 11}
    expected = generate(ours, labels_of(16), **settings)
    tokens = maskgit.jax.generate(theirs, labels_of(16).numpy(), **settings)
    assert tokens.dtype == np.int64
    assert tokens.shape == (16, N)
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"sampling_temperature": 0.5},
        {"sampling_temperature": 1.3, "choice_temperature": 0.0},
        {"choice_temperature": 20},
        {"seed": 2**32 - 1},
        {"sample_ids": torch.tensor([2**32 - 1, 7, 0, 2**31, 7, *range(29)])},
        {"tokens": partly_known(34)},
        {"tokens": partly_known(34), "start": 2},
        {"tokens": partly_known(34), "start": 5, "sampling_temperature": 2.0},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_setting_means_what_it_means_in_torch(models, settings):
    ours, theirs = models
    expected = generate(ours, labels_of(34), steps=6, **settings)
    arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in settings.items()}
    tokens = maskgit.jax.generate(theirs, labels_of(34), steps=6, **arrays)
    np.testing.assert_array_equal(tokens, expected)
    if "tokens" in settings:
        known = arrays["tokens"] != MASK
        np.testing.assert_array_equal(tokens[known], arrays["tokens"][known])


@pytest.mark.parametrize("codes", [1, 31, 32, 512, 1024])
def test_the_edges_between_tokens_are_those_of_float64_sums(codes):
    """torch adds in float64 and rounds each sum; plain float32 sums are off by several units."""
    from maskgit.jax.decoding import _cumulative

    generator = np.random.default_rng(codes)
    logits = 3 * generator.standard_normal((200, codes), dtype=np.float32)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    sums = np.asarray(_cumulative(weights))
    exact = weights.astype(np.float64).cumsum(axis=1)
    assert sums.shape == exact.shape
    totals = exact[:, -1:].astype(np.float32)
    assert np.all(np.abs(sums - exact) <= 0.6 * np.spacing(totals))


def test_a_grid_of_one_token():
    from maskgit.jax.transformer import from_torch

    ours = build(num_tokens=1, layers=1)
    expected = generate(ours, labels_of(40), steps=3)
    assert len(expected.unique()) > 1
    tokens = maskgit.jax.generate(from_torch(ours), labels_of(40), steps=3)
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batch_size_changes_no_token(models, batch_size):
    _, theirs = models
    tokens = partly_known(10)
    expected = maskgit.jax.generate(theirs, labels_of(10), steps=5, tokens=tokens)
    some = maskgit.jax.generate(
        theirs, labels_of(10), steps=5, tokens=tokens, batch_size=batch_size
    )
    np.testing.assert_array_equal(some, expected)


def test_no_images(models):
    _, theirs = models
    assert maskgit.jax.generate(theirs, np.zeros(0, int), steps=3).shape == (0, N)


def test_a_sweep_over_steps_schedules_and_seeds_is_one_program(models, monkeypatch):
    from maskgit.jax import decoding

    _, theirs = models
    traced = []
    network = decoding.hidden
    monkeypatch.setattr(decoding, "hidden", lambda *x: traced.append(x) or network(*x))

    def sample(images, **settings):
        maskgit.jax.generate(theirs, labels_of(images), batch_size=6, **settings)

    sample(6, steps=4)
    first = len(traced)
    assert first > 0
    for steps in range(4, 61):
        sample(6, steps=steps)
    sample(13, steps=8, schedule="sqrt", seed=9, choice_temperature=1.0)  # the last batch has one
    sample(5, steps=8, start=3, sample_ids=[9, 8, 7, 6, 5], tokens=partly_known(5))
    assert len(traced) == first


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"steps": 2.0},
        {"steps": 4, "start": 4},
        {"steps": 4, "start": -1},
        {"steps": 4, "schedule": "cosin"},
        {"steps": 4, "choice_temperature": -1.0},
        {"steps": 4, "choice_temperature": float("nan")},
        {"steps": 4, "sampling_temperature": 0.0},
        {"steps": 4, "seed": -1},
        {"steps": 4, "seed": 2**32},
        {"steps": 4, "batch_size": 0},
        {"steps": 4, "sample_ids": torch.tensor([0, 1])},
        {"steps": 4, "sample_ids": torch.tensor([0, 1, -1])},
        {"steps": 4, "tokens": torch.zeros(3, N + 1, dtype=torch.int64)},
        {"steps": 4, "tokens": torch.full((3, N), CODES)},
        {"steps": 4, "tokens": torch.zeros(3, N)},
        {"steps": 4, "labels": torch.tensor([0, CLASSES, 0])},
        {"steps": 4, "labels": torch.tensor([0.0, 1.0, 2.0])},
        {"steps": 4, "labels": torch.tensor([[0]])},
    ],
    ids=lambda bad: "-".join(f"{k}" for k in bad),
)
def test_bad_arguments_raise_the_errors_of_torch(models, bad):
    arguments = {"labels": labels_of(3)} | bad
    with pytest.raises(UsageError) as ours:
        generate(models[0], arguments.pop("labels"), **arguments)
    arguments = {"labels": labels_of(3)} | bad
    with pytest.raises(UsageError) as theirs:
        maskgit.jax.generate(models[1], arguments.pop("labels"), **arguments)
    assert str(theirs.value) == str(ours.value)


def test_damaged_weights_are_an_error():
    from maskgit.jax.transformer import from_torch

    model = build()
    with torch.no_grad():
        model.head_bias[3] = float("nan")
    with pytest.raises(UsageError, match="not finite: its weights are damaged"):
        maskgit.jax.generate(from_torch(model), labels_of(2), steps=2)
    # Where nothing is unknown nothing is drawn, as in torch.
    known = torch.zeros(2, N, dtype=torch.int64)
    done = maskgit.jax.generate(from_torch(model), labels_of(2), steps=2, tokens=known)
    np.testing.assert_array_equal(done, known)


TWO_DEVICES = """
import re, sys
import jax, numpy as np
import maskgit.jax
from maskgit.checkpoints import zoo_path
from maskgit.jax import decoding

def checked(*arguments):
    program = function.lower(*arguments).compile()
    found = re.findall("all-reduce|all-gather|all-to-all|collective-permute", program.as_text())
    assert not found, found
    final, finite = program(*arguments[2:])  # the first two are static
    shapes = {(shard.device.id, shard.data.shape) for shard in final.addressable_shards}
    assert shapes == {(0, (4, 64)), (1, (4, 64))}, shapes
    return final, finite

assert len(jax.local_devices()) == 2
function, decoding._decode = decoding._decode, checked
transformer = maskgit.jax.load_transformer(zoo_path("transformer-cosine"))
labels = np.arange(15) % 10
tokens = maskgit.jax.generate(transformer, labels, steps=5, seed=4, batch_size=7)
images = maskgit.jax.load_tokenizer(zoo_path("tokenizer")).decode(tokens.reshape(-1, 8, 8))
np.savez(sys.argv[1], tokens=tokens, images=images)
"""


def test_two_devices_share_a_batch_and_give_the_tokens_of_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO_DEVICES, str(tmp_path / "two.npz")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = np.load(tmp_path / "two.npz")
    transformer = maskgit.jax.load_transformer(zoo_path("transformer-cosine"))
    tokens = maskgit.jax.generate(transformer, np.arange(15) % 10, steps=5, seed=4)
    np.testing.assert_array_equal(two["tokens"], tokens)
    images = maskgit.jax.load_tokenizer(zoo_path("tokenizer")).decode(tokens.reshape(-1, 8, 8))
    np.testing.assert_allclose(two["images"], images, atol=1e-5, rtol=0)


def test_images_are_those_of_torch():
    ours = checkpoints.load_transformer(zoo_path("transformer-cosine"))
    theirs = maskgit.jax.load_transformer(zoo_path("transformer-cosine"))
    tokens = generate(ours, torch.arange(10), steps=4)
    same = maskgit.jax.generate(theirs, np.arange(10), steps=4)
    images = checkpoints.load_tokenizer(zoo_path("tokenizer")).decode(tokens.view(-1, 8, 8))
    others = maskgit.jax.load_tokenizer(zoo_path("tokenizer")).decode(same.reshape(-1, 8, 8))
    np.testing.assert_allclose(others, images, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", PAPER_SCHEDULES)
def test_of_embedded_images_999_tokens_in_1000_are_those_of_torch(schedule):
    """Of 1,000 images too: docs/jax.md has the command."""
    from maskgit.jax.agreement import compare

    path = zoo_path(f"transformer-{schedule}")
    ours, theirs = checkpoints.load_transformer(path), maskgit.jax.load_transformer(path)
    for steps in (8, 12):
        found = compare(ours, theirs, steps=steps, schedule=schedule, images=300)
        assert found.tokens == 19_200
        assert found.share >= 0.999, (steps, found)
        assert found.logits <= 1e-4


def test_agreement_command_prints_the_share(capsys):
    from maskgit.jax.agreement import Options, run

    assert run(Options(schedules="cosine", T="2,3", images=12)) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["schedule", "T", "images", "different", "share", "logits"]
    assert [row.split()[:5] for row in rows] == [
        ["cosine", "2", "12", "0", "100.0000%"],
        ["cosine", "3", "12", "0", "100.0000%"],
    ]
    assert run(Options(schedules="cosine", T="2", images=4, at_least=1.5)) == 1


def test_agreement_counts_the_tokens_that_differ(models):
    from maskgit.jax.agreement import compare
    from maskgit.jax.transformer import from_torch

    other = build()
    with torch.no_grad():
        other.head_bias[0] += 20.0  # code 0 everywhere
    found = compare(models[0], from_torch(other), steps=2, schedule="cosine", images=6)
    expected = (generate(models[0], labels_of(6), steps=2) == 0).sum()
    assert found.equal == expected < found.tokens == 6 * N
    assert found.images_different == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--T", "4..60"], "--T 4..60: expected integers"),
        (["--T", "0"], "--T 0: expected 1 or more"),
        (["--images", "0"], "--images 0: expected 1 or more"),
        (["--schedules", "cosin"], "cosin"),
        (["--weights", "/nowhere"], "/nowhere/transformer-exponential: no such"),
    ],
)
def test_agreement_command_names_a_bad_flag(flags, message, monkeypatch, capsys):
    from maskgit.jax import agreement

    monkeypatch.setattr(sys, "argv", ["agreement", *flags])
    with pytest.raises(SystemExit) as stopped:
        agreement.main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_and_the_import_of_the_package_leave_jax_alone():
    code = """
import runpy, sys
import maskgit.jax, maskgit.decoding, maskgit.checkpoints
assert "jax" not in sys.modules
sys.argv = ["x", "--help"]
try:
    runpy.run_module("maskgit.jax.agreement", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
assert "jax" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
