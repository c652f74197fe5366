"""Compiled sampling: the tokens of the eager path but for roundings, by few programs."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from maskgit.common.errors import UsageError
from maskgit.decoding import generate
from maskgit.model.causal import Autoregressive
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.sampling.autoregressive import (
    PositionProgram,
    _complete,
    compile_positions,
    draw_position,
    generate_autoregressive,
)
from maskgit.sampling.compiled import MODES, compile_for_sampling
from tests.maskgit.sampling.launches import Launches, pretended_gpu

CODES, CLASSES, N = 24, 5, 16
MASK = CODES + CLASSES
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


def build(network=Transformer):
    """The same network at every call, large enough that tokens differ between positions."""
    torch.manual_seed(3)
    model = network(TransformerConfig(CODES, CLASSES, N, 32, layers=2, heads=4, mlp=48)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model


def build_autoregressive():
    return build(Autoregressive)


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


def test_batches_of_all_sizes_share_the_programs_of_the_powers_of_two(monkeypatch):
    """Else each of the sizes would be compiled, and torch would give up behind the eighth."""
    sizes = set()

    def counting(function, **settings):
        assert settings == {"mode": "reduce-overhead", "dynamic": False, "fullgraph": True}

        def program(transformer, inputs, *others):
            sizes.add(len(inputs))
            return function(transformer, inputs, *others)

        return program

    monkeypatch.setattr("maskgit.sampling.compiled.shutil.which", lambda name: name)
    monkeypatch.setattr(torch, "compile", counting)
    model, plain = compile_for_sampling(build(), "graphs"), build()
    for images in (1, 2, 3, 5, 8, 9, 17):
        labels = torch.arange(images) % CLASSES
        found = generate(model, labels, steps=3, share_first=False, batch_size=images)
        assert torch.equal(found, generate(plain, labels, steps=3, share_first=False))
    assert sizes == {1, 2, 4, 8, 16, 32}


@needs_compiler
@pytest.mark.parametrize("mode", [pytest.param("compiled", marks=pytest.mark.slow), "graphs"])
def test_one_program_draws_every_position_of_the_autoregressive_model(mode):
    """For each power of two of images; the second call finds the cache full of other images."""
    plain = build_autoregressive()
    model = compile_positions(build_autoregressive(), mode)
    tokens = torch.randint(0, CODES, (7, N), generator=torch.Generator().manual_seed(0))
    tokens[:, 5:] = -1
    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    labels = torch.tensor([0, 3, 3, 1, 4, 2, 0])
    for settings in ({"seed": 1}, {"tokens": tokens}):
        expected = generate_autoregressive(plain, labels, **settings)
        assert torch.equal(generate_autoregressive(model, labels, **settings), expected)
    assert counters["stats"]["unique_graphs"] - before == 1
    torch.compiler.reset()


def test_the_fixed_cache_gives_the_tokens_of_the_growing_one():
    plain, model = build_autoregressive(), build_autoregressive()
    model.program = PositionProgram(draw_position)
    for images in (1, 7, 8):
        labels = torch.arange(images) % CLASSES
        for settings in ({}, {"trace": True}, {"sampling_temperature": 0.8, "batch_size": 3}):
            found = generate_autoregressive(model, labels, **settings)
            expected = generate_autoregressive(plain, labels, **settings)
            if settings.get("trace"):
                assert torch.equal(found.masked, expected.masked)
                torch.testing.assert_close(found.confidence, expected.confidence)
                found, expected = found.tokens, expected.tokens
            assert torch.equal(found, expected)


def test_no_position_of_the_autoregressive_model_waits_for_a_gpu():
    """With its program, and without one. Attention is seven launches here and one on a real GPU,
    so a position of 24 layers takes less than 24 times 25."""
    config = TransformerConfig(1024, 1000, 256)
    with pretended_gpu(lambda: Autoregressive(config)) as model:
        counts = {}
        for program in (None, PositionProgram(draw_position)):
            for positions in (1, 3):
                model.program = program
                grid = torch.full((4, positions), config.mask_id, device="cuda")
                picks, labels = torch.zeros((4, positions), device="cuda"), grid[:, 0] * 0
                images = torch.arange(4, device="cuda")
                with Launches() as launches:
                    _complete(model, labels, grid, picks, images, None, 1.0)
                assert launches.waits == []
                counts[program is None, positions] = len(launches)
        for plain in (True, False):
            assert counts[plain, 3] - counts[plain, 1] < 2 * 24 * 25


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
    assert compile_positions(build_autoregressive(), "eager").program is None


def test_a_mode_that_there_is_not(monkeypatch):
    with pytest.raises(UsageError, match=f"expected one of {', '.join(MODES)}"):
        compile_for_sampling(build(), "fast")
    monkeypatch.setattr("maskgit.sampling.compiled.shutil.which", lambda name: None)
    compile_for_sampling(build(), "eager")
    with pytest.raises(UsageError, match=r"mode graphs: needs a C\+\+ compiler"):
        compile_for_sampling(build(), "graphs")
    with pytest.raises(UsageError, match=r"mode compiled: needs a C\+\+ compiler"):
        compile_positions(build_autoregressive(), "compiled")
