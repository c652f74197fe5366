"""How many images one forward takes, from the memory of a row as torch's profiler counts it."""

from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from maskgit import decoding
from maskgit.decoding import bytes_of_a_row, generate
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer

CONFIGS = {
    "embedded": TransformerConfig(512, 10, 64, width=128, layers=2, heads=4, mlp=512),
    "paper's proportions": TransformerConfig(1024, 10, 256, width=256, layers=2, heads=8, mlp=1024),
}


def peak_bytes(model, images):
    """Most bytes of tensors alive at once in two iterations of one batch."""
    labels = torch.arange(images) % model.config.num_classes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        generate(model, labels, steps=2, batch_size=images, share_first=False)
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_row_takes_no_more_and_not_much_less_than_counted(config):
    torch.manual_seed(0)
    model = Transformer(config).eval()
    few, many = (peak_bytes(model, images) for images in (4, 12))
    a_row = (many - few) / (8 * (1 + config.num_tokens))
    assert 0.5 * bytes_of_a_row(config) < a_row <= bytes_of_a_row(config)


@pytest.mark.parametrize(("free", "rows"), [(80 * 2**30, 65536), (2**28, 8192)])
def test_a_gpus_rows_fit_into_half_of_what_is_free(monkeypatch, free, rows):
    """Of 3/8 GiB that torch holds and does not use, half counts too: 40 KiB a row."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7 * 2**27)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4 * 2**27)
    weight = SimpleNamespace(device=torch.device("cuda"))
    config = TransformerConfig(1024, 1000, 256)
    model = SimpleNamespace(config=config, word_embeddings=SimpleNamespace(weight=weight))
    assert bytes_of_a_row(config) == 40 * 2**10
    assert decoding._rows_of_a_forward(model) == rows
