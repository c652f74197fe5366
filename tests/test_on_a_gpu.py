"""What a GPU gives beside what the processor gives, and a training on it that goes on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.features.registry import get_extractor
from experiments.engine.run.execute import execute
from experiments.engine.store.lease import Leases
from experiments.engine.store.store import Store
from experiments.studies.ablate_schedule.experiment import Options, build
from maskgit.checkpoints import load_autoregressive, load_tokenizer, load_transformer, zoo_path
from maskgit.data.fashion_mnist import load_split
from maskgit.data.source import ArrayImages
from maskgit.decoding import generate
from maskgit.sampling.autoregressive import generate_autoregressive
from maskgit.training.commands import make_accelerator
from maskgit.training.tokenize import encode_images
from tests.maskgit.training import training_doubles

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = "cuda"
IMAGES = 64
CLOSE = {"rtol": 0, "atol": 5e-3}  # convolutions take TF32 on a GPU


def equal_share(on_gpu, on_cpu):
    return (on_gpu.cpu() == on_cpu).double().mean().item()


@pytest.mark.parametrize("schedule", ["cosine", "cubic"])
def test_tokens_are_those_of_the_processor_but_for_roundings(schedule):
    model, labels = load_transformer(zoo_path(f"transformer-{schedule}")), torch.arange(IMAGES) % 10
    expected = generate(model, labels, steps=8, schedule=schedule)
    found = generate(model.to(DEVICE), labels.to(DEVICE), steps=8, schedule=schedule)
    assert equal_share(found, expected) > 0.9


@pytest.mark.parametrize("sampler", [generate, generate_autoregressive])
def test_a_sample_does_not_depend_on_the_others_but_for_roundings(sampler):
    name, load, more = "autoregressive", load_autoregressive, {}
    if sampler is generate:
        name, load, more = "transformer-cosine", load_transformer, {"steps": 8}
    model, labels = load(zoo_path(name)).to(DEVICE), (torch.arange(IMAGES) % 10).to(DEVICE)
    whole = sampler(model, labels, **more)
    assert equal_share(sampler(model, labels, batch_size=24, **more), whole.cpu()) > 0.9


def test_the_baselines_tokens_are_those_of_the_processor_but_for_roundings():
    model, labels = load_autoregressive(zoo_path("autoregressive")), torch.arange(IMAGES) % 10
    expected = generate_autoregressive(model, labels)
    found = generate_autoregressive(model.to(DEVICE), labels.to(DEVICE))
    assert equal_share(found, expected) > 0.9


def test_images_become_the_codes_and_pixels_of_the_processor():
    tokenizer, (images, labels) = load_tokenizer(zoo_path("tokenizer")), load_split("test")
    source, rows = ArrayImages(images[:IMAGES], labels[:IMAGES]), np.arange(IMAGES)
    expected = encode_images(tokenizer, source, rows)
    codes = torch.from_numpy(expected.astype(np.int64)).view(IMAGES, 8, 8)
    with torch.inference_mode():
        pixels = tokenizer.decode(codes)
        tokenizer.to(DEVICE)
        assert (encode_images(tokenizer, source, rows) == expected).mean() > 0.99
        torch.testing.assert_close(tokenizer.decode(codes.to(DEVICE)).cpu(), pixels, **CLOSE)


def test_features_are_those_of_the_processor_but_for_roundings():
    images = load_split("test")[0][:IMAGES]
    expected = get_extractor("fashion-resnet").extract_batches([images])
    found = get_extractor("fashion-resnet", device=DEVICE).extract_batches([images])
    for name in ("features", "logits"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert np.linalg.norm(ours - theirs) < 5e-3 * np.linalg.norm(theirs)


def test_a_cell_of_an_experiment_measures_the_same_but_for_roundings(tmp_path):
    fid = {}
    for device in ("cpu", DEVICE):
        cells = {"T": "4", "schedules": "cosine", "num_samples": 100, "metrics": "fid,precision"}
        made = build(Options(**cells, device=device))
        store, leases = Store(tmp_path / device), Leases()
        store.prepare()
        made.computer.run = store.root
        made.computer.start(0, 1)
        reply = execute(made.tasks[0], made.computer, store, leases)
        assert reply.kind == "done", reply.error
        cell = store.cell(made.tasks[0].key)
        fid[device] = json.loads((cell / "result.json").read_text())["metrics"]["fid"]["value"]
    assert fid[DEVICE] == pytest.approx(fid["cpu"], rel=0.1)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_training_learns_and_goes_on_where_it_was_stopped(monkeypatch, tmp_path, precision):
    from accelerate.state import AcceleratorState

    def fresh(**_):
        AcceleratorState._reset_state(reset_partial_state=True)
        return make_accelerator(precision)

    monkeypatch.setattr(training_doubles, "Accelerator", fresh)
    preset = training_doubles.tiny_preset(dropout=0.0)
    preset = replace(preset, label_smoothing=0.0)
    whole, weights, _ = training_doubles.recorded(
        "transformer", tmp_path / "whole", preset, precision=precision
    )
    training_doubles.recorded(
        "transformer", tmp_path / "cut", preset, precision=precision, stop_at=5
    )
    rest, resumed, _ = training_doubles.recorded(
        "transformer", tmp_path / "cut", preset, precision=precision
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    assert whole[7]["loss"] < whole[0]["loss"]
    assert 0 not in rest
    assert rest[7]["loss"] == pytest.approx(whole[7]["loss"], rel=1e-2)
    for name, value in weights.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=2e-3)
