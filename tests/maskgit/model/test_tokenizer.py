"""The tokenizer's own parts; equality with the official code is in test_checkpoints."""

import pytest
import torch
from torch import nn

from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig
from maskgit.model.discriminator import BlurDown, Discriminator
from maskgit.model.tokenizer import CodeUsage, ResBlock, Tokenizer, VectorQuantizer
from maskgit.training.stage1 import TokenizerPass

TINY = TokenizerConfig(1, 8, (1, 1, 2), 1, 16, 4, 4)


def test_official_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        tokenizer = Tokenizer(TokenizerConfig())
    assert sum(p.numel() for p in tokenizer.parameters()) == 54_515_587


def test_grid_and_range():
    tokenizer = Tokenizer(TINY)
    indices = tokenizer.encode(torch.rand(2, 1, 16, 24))
    assert indices.shape == (2, 4, 6)
    images = tokenizer.decode(indices)
    assert images.shape == (2, 1, 16, 24)
    with torch.inference_mode():
        codes = tokenizer.quantizer.codebook[indices].permute(0, 3, 1, 2)
        assert torch.equal(images, tokenizer.decoder(codes.contiguous()))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 18, 16), (1, 16, 16)])
def test_images_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(UsageError, match=r"expected|multiples"):
        Tokenizer(TINY).encode(torch.rand(shape))


def test_codes_outside_the_codebook_are_refused():
    with pytest.raises(UsageError, match=r"expected 0\.\.15"):
        Tokenizer(TINY).decode(torch.full((1, 4, 4), 16))


def test_shortcut_follows_the_second_convolution():
    block = ResBlock(4, 8, 4)
    seen = {}
    block.conv2.register_forward_hook(lambda m, i, o: seen.update(h=o))
    x = torch.rand(1, 4, 5, 5)
    assert torch.allclose(block(x), seen["h"] + block.shortcut(seen["h"]))


def test_nearest_code_equals_a_direct_search():
    quantizer = VectorQuantizer(16, 4)
    x = torch.randn(50, 4)
    direct = torch.cdist(x.double(), quantizer.codebook.double()).argmin(1)
    assert torch.equal(quantizer.distances(x).argmin(1), direct)


def test_quantiser_losses_equal_their_definitions():
    torch.manual_seed(0)
    tokenizer = Tokenizer(TINY)
    tokenizer.quantizer.codebook.data.mul_(0.2)  # several codes within reach of 0.01
    images = torch.rand(3, 1, 16, 16)
    out = TokenizerPass(tokenizer)(images)
    x = out["rows"]
    distances = torch.cdist(x.double(), tokenizer.quantizer.codebook.double()).square()
    assert torch.equal(out["indices"].flatten(), distances.argmin(1))
    chosen = tokenizer.quantizer.codebook[distances.argmin(1)]
    gap = (x - chosen).square().mean().item()
    assert out["commitment"].item() == pytest.approx(gap, rel=1e-5)
    assert out["codebook"].item() == pytest.approx(gap, rel=1e-5)
    p = (-distances / 0.01).softmax(-1)
    entropy = torch.distributions.Categorical(p).entropy().mean().item()
    assert out["sample_entropy"].item() == pytest.approx(entropy, abs=2e-3)
    assert torch.allclose(out["mean_p"].double(), p.mean(0), atol=1e-4)
    book, encoder = tokenizer.quantizer.codebook, tokenizer.encoder.conv_in.weight
    for term, reaches in (("commitment", encoder), ("codebook", book)):
        for parameter in (book, encoder):
            (gradient,) = torch.autograd.grad(
                out[term], parameter, retain_graph=True, allow_unused=True
            )
            assert (gradient is not None) is (parameter is reaches), term


def test_gradient_passes_straight_through_the_quantiser():
    tokenizer = Tokenizer(TINY)
    out = TokenizerPass(tokenizer)(torch.rand(2, 1, 16, 16))
    out["reconstruction"].square().mean().backward()
    gradient = tokenizer.encoder.conv_in.weight.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0


def test_dead_codes_move_onto_encoder_outputs():
    usage, book = CodeUsage(4, threshold=0.1), torch.zeros(4, 2)
    usage.counts += torch.tensor([50, 0, 50, 0])
    rows = torch.arange(1.0, 9.0).view(4, 2)
    assert usage.revive(book, rows, torch.Generator().manual_seed(0)) == 2
    assert torch.equal(book[[0, 2]], torch.zeros(2, 2))
    for code in (1, 3):
        assert any(torch.equal(book[code], row) for row in rows)
    assert int(usage.counts.sum()) == 0
    assert usage.revive(book, rows, torch.Generator()) == 4  # an empty window: all are dead


def test_blur_keeps_a_constant_and_halves():
    out = BlurDown()(torch.full((1, 3, 8, 8), 2.0))
    assert out.shape == (1, 3, 4, 4)
    assert torch.allclose(out[:, :, 1:-1, 1:-1], torch.tensor(2.0))


def test_discriminator_separates_two_easy_sets():
    torch.manual_seed(0)
    net = Discriminator(1, 8, width=8)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(40):
        real, fake = 0.7 + 0.1 * torch.rand(16, 1, 8, 8), 0.2 * torch.rand(16, 1, 8, 8)
        loss = nn.functional.softplus(net(fake)).mean() + nn.functional.softplus(-net(real)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(net(real).min()) > float(net(fake).max())


@pytest.mark.parametrize("size", [0, 2, -4, (64, 3)])
def test_discriminator_refuses_less_than_four_pixels(size):
    with pytest.raises(UsageError, match="expected at least 4 pixels"):
        Discriminator(1, size)


@pytest.mark.parametrize("size", [(64, 96), (28, 28), (96, 96), (192, 224)])
def test_discriminator_takes_other_sizes_than_powers_of_two(size):
    net = Discriminator(3, size, width=2, max_width=4)
    images = torch.rand(2, 3, *size, requires_grad=True)
    logits = net(images)
    assert logits.shape == (2, 1)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert (gradient[:, :, -1] != 0).any()  # what is rounded off is less than all
    assert Discriminator(3, 256).dense.in_features == 16 * 512
