"""benchmarks/work.py counts what torch's own counter sees."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import work
from maskgit.decoding import generate
from maskgit.model import linear
from maskgit.model.causal import Autoregressive
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.presets import load_preset
from maskgit.sampling.autoregressive import generate_autoregressive

ONEDNN = linear._ONEDNN
BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
SMALL = TransformerConfig(
    num_codes=24, num_classes=5, num_tokens=16, width=32, layers=3, heads=2, mlp=48, dropout=0.0
)


@pytest.fixture
def counter(monkeypatch):
    """torch's counter; oneDNN's product and the fused attention are unknown to it."""
    monkeypatch.setattr(linear, "_ONEDNN", False)
    with sdpa_kernel(SDPBackend.MATH):
        yield FlopCounterMode(display=False)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [2, 2, 2], [4]])
def test_counted_decoding_is_the_same_through_onednn_and_through_torch(counter, labels):
    """The fixture leaves oneDNN and the fused attention out; without it both are used."""
    torch.manual_seed(0)
    model = Transformer(SMALL)

    def decode():
        generate(model, torch.tensor(labels), steps=5)

    with counter:
        decode()
    with pytest.MonkeyPatch.context() as patch, sdpa_kernel(list(BACKENDS)):
        patch.setattr(linear, "_ONEDNN", ONEDNN)
        flops, forwards = work.counted(model, decode)
    assert flops == counter.get_total_flops()
    assert forwards == 5 * 4  # fewer images are filled up to 64 rows, four images of 17


def test_counting_leaves_the_transformer_as_it_was():
    model = Transformer(SMALL)
    before = generate(model, torch.tensor([0, 1]), steps=3)
    work.counted(model, lambda: generate(model, torch.tensor([0, 1]), steps=3))
    assert not model.layers[0]._forward_hooks
    assert torch.equal(before, generate(model, torch.tensor([0, 1]), steps=3))


def test_full_work_is_whole_forwards_with_the_whole_vocabulary(counter):
    with torch.device("meta"):
        model = Transformer(SMALL)
        tokens = torch.zeros(3, 17, dtype=torch.int64)
    with counter:
        model(tokens)
    assert work.full_flops(SMALL, 3, 7) == 7 * counter.get_total_flops()


def test_a_forward_at_the_papers_size():
    """93.4 GFLOP, as counted by hand when the official code was measured."""
    config = load_preset("imagenet256").transformer_config
    assert work.full_flops(config, 1, 1) / 1e9 == pytest.approx(93.4, rel=0.002)


@pytest.mark.parametrize("images", [1, 3, 20])
def test_the_baselines_steps_equal_torchs_counter(counter, images):
    torch.manual_seed(0)
    model = Autoregressive(SMALL)
    with counter:
        generate_autoregressive(model, torch.arange(images) % 5, batch_size=images)
    rows = 64  # as maskgit.sampling.autoregressive fills them up on a CPU
    assert work.autoregressive_flops(SMALL, images, rows) == counter.get_total_flops()


def test_jax_computes_every_position_of_a_power_of_two_of_images(counter):
    pytest.importorskip("jax")
    with torch.device("meta"):
        model = Transformer(SMALL)
        tokens = torch.zeros(4, 17, dtype=torch.int64)
    with counter:
        model.forward_codes(tokens)
    assert work.jax_flops(SMALL, 3, 5) == 5 * counter.get_total_flops()


def test_sampling_work_of_the_ablation_equals_what_decoding_does(monkeypatch):
    for name in ("MIN_ROWS", "ROW_MULTIPLE"):  # rows that only fill up are not counted there
        monkeypatch.setattr(f"maskgit.decoding.{name}", 1)
    torch.manual_seed(0)
    model = Transformer(SMALL)
    for schedule, steps in (("cosine", 6), ("logarithmic", 20), ("linear", 1)):
        labels = torch.arange(10) % 5

        def decode(labels=labels, steps=steps, schedule=schedule):
            generate(model, labels, steps=steps, schedule=schedule, batch_size=4)

        expected = work.sampling_flops(SMALL, schedule, steps, images=10, classes=5)
        assert work.counted(model, decode)[0] == expected
