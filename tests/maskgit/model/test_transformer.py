"""The transformer: the paper's sizes, the parts that decoding and training use, its start.

That it computes what the official code computes is in test_checkpoints.py (golden logits).
"""

import pytest
import torch

from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer

SMALL = TransformerConfig(24, 5, 9, width=32, layers=2, heads=4, mlp=48)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return Transformer(SMALL).eval()


def random_tokens(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 24, (batch, 10), generator=generator)
    tokens[:, 0] = 24 + torch.arange(batch) % 5
    tokens[:, 3:7] = SMALL.mask_id
    return tokens


@pytest.mark.parametrize(("num_tokens", "parameters"), [(256, 172_457_193), (1024, 173_047_017)])
def test_parameters_of_the_papers_models(num_tokens, parameters):
    with torch.device("meta"):
        model = Transformer(TransformerConfig(1024, 1000, num_tokens))
    assert model.config.vocab_size == 2025
    assert model.config.mask_id == 2024
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_weights_start_from_a_cut_normal_and_biases_from_zero():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(512, 10, 64, width=128, layers=2, heads=4, mlp=512))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert parameter.abs().max() <= 0.04, name
            # A normal cut at two standard deviations keeps 0.8796 of its own.
            assert parameter.std().item() == pytest.approx(0.02 * 0.8796, rel=0.03), name


def test_minus_one_stands_for_the_mask(model):
    tokens = random_tokens(3)
    official = tokens.masked_fill(tokens == SMALL.mask_id, -1)
    assert torch.equal(model(tokens), model(official))


def test_every_position_sees_every_other(model):
    tokens = random_tokens(1)
    before = model.hidden(tokens)
    for position in range(10):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % 24
        difference = (model.hidden(changed) - before).abs().amax(dim=2)
        assert (difference > 1e-6).all(), position


def test_code_logits_are_the_first_columns(model):
    tokens = random_tokens(4)
    logits = model(tokens)
    assert logits.shape == (4, 10, SMALL.vocab_size)
    torch.testing.assert_close(model.forward_codes(tokens), logits[:, 1:, :24])


@pytest.mark.parametrize("as_indices", [False, True])
def test_wanted_positions_only(model, as_indices):
    tokens = random_tokens(4)
    wanted = torch.rand(4, 9, generator=torch.Generator().manual_seed(2)) < 0.4
    positions = wanted.view(-1).nonzero().squeeze(1) if as_indices else wanted
    hidden = model.hidden(tokens)[:, 1:][wanted]
    torch.testing.assert_close(model.hidden(tokens, positions), hidden)
    torch.testing.assert_close(model.forward_codes(tokens, positions), model.code_logits(hidden))


def test_gradients_are_the_same_through_wanted_positions(model):
    tokens = random_tokens(4)
    wanted = tokens[:, 1:] == SMALL.mask_id
    targets = torch.arange(int(wanted.sum())) % 24

    def gradients(logits):
        loss = torch.nn.functional.cross_entropy(logits, targets)
        return torch.autograd.grad(loss, list(model.parameters()))

    everywhere = gradients(model(tokens)[:, 1:][wanted])
    there = gradients(model.logits(model.hidden(tokens, wanted)))
    for one, other in zip(everywhere, there, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_dropout_only_in_training(model):
    tokens = random_tokens(2)
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    try:
        assert not torch.equal(model(tokens), model(tokens))
    finally:
        model.eval()


def test_attention_probabilities_are_dropped_too():
    torch.manual_seed(0)
    model = Transformer(SMALL).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tokens = random_tokens(2)
    assert not torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("shape", [(2, 9), (2, 11), (10,)])
def test_wrong_length_is_an_error(model, shape):
    with pytest.raises(UsageError, match=r"tokens must have shape \(B, 10\)"):
        model(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads must divide the width 32, got heads=5"),
        ({"layers": 0}, "layers must be an integer >= 1, got 0"),
        ({"num_codes": 2.5}, "num_codes must be an integer >= 1, got 2.5"),
        ({"mlp": True}, "mlp must be an integer >= 1, got True"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": "0.1"}, "dropout must be a number, got '0.1'"),
    ],
)
def test_impossible_sizes_are_errors(change, message):
    sizes = {"num_codes": 24, "num_classes": 5, "num_tokens": 9, "width": 32, **change}
    with pytest.raises(UsageError, match=message):
        TransformerConfig(**{"heads": 4, **sizes})
