"""Compiled sampling: the tokens of the eager path but for roundings, by few programs."""

import shutil

import pytest
import torch

from maskgit.common.errors import UsageError
from maskgit.decoding import generate
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.sampling.compiled import MODES, compile_for_sampling

CODES, CLASSES, N = 24, 5, 16
MASK = CODES + CLASSES
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


def build():
    """The same network at every call, large enough that tokens differ between positions."""
    torch.manual_seed(3)
    model = Transformer(TransformerConfig(CODES, CLASSES, N, 32, layers=2, heads=4, mlp=48)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model


@pytest.fixture(params=["compiled", "graphs"])
def compiled(request):
    torch.compiler.reset()
    yield compile_for_sampling(build(), request.param)
    torch.compiler.reset()


@needs_compiler
@pytest.mark.parametrize("steps", [1, 6])
def test_tokens_are_those_of_the_eager_path(compiled, steps):
    """float32 roundings move no token of such a small network; seven images fill up to eight."""
    labels = torch.tensor([0, 3, 3, 1, 4, 2, 0])
    tokens = torch.randint(0, CODES, (7, N), generator=torch.Generator().manual_seed(0))
    tokens[:, ::2] = MASK
    with torch.inference_mode():
        for known in (None, tokens):
            settings = {"steps": steps, "tokens": known, "batch_size": 7}
            found = generate(compiled, labels, **settings)
            assert torch.equal(found, generate(build(), labels, **settings))


@needs_compiler
def test_logits_of_a_program_are_those_at_the_positions():
    model = compile_for_sampling(build(), "graphs")
    inputs = torch.randint(0, MASK + 1, (3, 1 + N), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([0, 5, N, 3 * N - 1])
    with torch.inference_mode():
        found = model.program(inputs, positions)
        expected = build().forward_codes(inputs, positions)
    assert found.shape == (4, CODES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_batches_of_all_sizes_share_the_programs_of_the_powers_of_two(monkeypatch):
    """Else each of the sizes would be compiled, and torch would give up behind the eighth."""
    sizes = []

    def counting(function, **settings):
        assert settings == {"mode": "reduce-overhead", "dynamic": False, "fullgraph": True}
        return lambda inputs: sizes.append(len(inputs)) or function(inputs)

    monkeypatch.setattr("maskgit.sampling.compiled.shutil.which", lambda name: name)
    monkeypatch.setattr(torch, "compile", counting)
    model, plain = compile_for_sampling(build(), "graphs"), build()
    for images in (1, 2, 3, 5, 8, 9, 17):
        labels = torch.arange(images) % CLASSES
        found = generate(model, labels, steps=3, share_first=False, batch_size=images)
        assert torch.equal(found, generate(plain, labels, steps=3, share_first=False))
    assert set(sizes) == {1, 2, 4, 8, 16, 32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mode", MODES[1:])
def test_a_gpu_draws_the_eager_tokens(mode):
    """A CUDA graph returns memory that its next run overwrites: sizes in turns would show it."""
    plain = build().cuda()
    model = compile_for_sampling(build().cuda(), mode)
    with torch.inference_mode():
        for images in (5, 2, 5, 8):
            labels = torch.arange(images, device="cuda") % CLASSES
            found = generate(model, labels, steps=6, share_first=False)
            expected = generate(plain, labels, steps=6, share_first=False)
            assert (found == expected).double().mean() > 0.9


def test_eager_is_the_network_as_it_was():
    model = compile_for_sampling(build(), "eager")
    assert model.program is None
    assert "hidden" not in vars(model)


def test_a_mode_that_there_is_not(monkeypatch):
    with pytest.raises(UsageError, match=f"expected one of {', '.join(MODES)}"):
        compile_for_sampling(build(), "fast")
    monkeypatch.setattr("maskgit.sampling.compiled.shutil.which", lambda name: None)
    compile_for_sampling(build(), "eager")
    with pytest.raises(UsageError, match=r"mode graphs: needs a C\+\+ compiler"):
        compile_for_sampling(build(), "graphs")
