"""Decoding at fixed shapes: the tokens of the exact loop, and nothing that makes a GPU wait."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from maskgit.common.errors import UsageError
from maskgit.decoding import generate
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.sampling import fixed, noise
from maskgit.sampling.arguments import Settings, begin
from maskgit.sampling.fixed import Batch, iterate, loop
from maskgit.sampling.noise import loop_uniforms, position_uniforms
from tests.maskgit.sampling.launches import Launches, pretended_gpu

CODES, CLASSES, N = 24, 5, 16
MASK = CODES + CLASSES
SMALL = TransformerConfig(CODES, CLASSES, N, width=32, layers=2, heads=4, mlp=48)
IDS = torch.tensor([0, 5, 70_000, 2**31, 2**32 - 1])
# Launches of an iteration that are not the network's: the draw, the masking, the next sequence.
AROUND_THE_NETWORK = 28
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


def build(config=SMALL, sharpen=6.0):
    """Random weights, large enough that tokens and confidences differ between positions."""
    torch.manual_seed(3)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(sharpen)
    return model


@pytest.fixture(scope="module")
def exact():
    return build()


@pytest.fixture(scope="module")
def fixed_model():
    """The same network, sent through the fixed loop as one with a program is."""
    model = build()
    model.program = iterate
    return model


def partly_known(images, least=0):
    """(images, N) tokens of which each image has its own number unknown, from `least` to N."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, CODES, (images, N), generator=generator)
    for image, row in enumerate(tokens):
        unknown = least + image % (N + 1 - least)
        row[torch.randperm(N, generator=generator)[:unknown]] = MASK
    return tokens


@pytest.mark.parametrize("share_first", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 8, 40])
@pytest.mark.parametrize("images", [1, 7, 32])
def test_the_tokens_are_those_of_the_exact_loop(exact, fixed_model, images, steps, share_first):
    labels = torch.arange(images) * 3 % CLASSES
    settings = {"steps": steps, "share_first": share_first, "seed": 2**32 - 1}
    expected = generate(exact, labels, **settings)
    assert torch.equal(generate(fixed_model, labels, **settings), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"start": 3},
        {"choice_temperature": 0.0},
        {"choice_temperature": 20.0, "schedule": "logarithmic"},
        {"sampling_temperature": 0.7, "batch_size": 5},
        {"sample_ids": torch.arange(20) * 214_000_000, "batch_size": 1},
    ],
)
def test_known_tokens_and_settings_are_those_of_the_exact_loop(exact, fixed_model, settings):
    """From none unknown to all of them; with one left the exact loop leaves iterations out."""
    labels, tokens = torch.arange(20) % CLASSES, partly_known(20)
    settings = {"steps": 8, "tokens": tokens, **settings}
    expected = generate(exact, labels, **settings)
    assert torch.equal(generate(fixed_model, labels, **settings), expected)


def test_the_trace_is_that_of_the_exact_loop(exact, fixed_model):
    labels, tokens = torch.arange(9) % CLASSES, partly_known(9, least=8)
    for known in (None, tokens):
        settings = {"steps": 12, "start": 2, "tokens": known, "batch_size": 4, "trace": True}
        expected, found = (
            generate(exact, labels, **settings),
            generate(fixed_model, labels, **settings),
        )
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.masked, expected.masked)
        torch.testing.assert_close(found.confidence, expected.confidence, rtol=1e-4, atol=1e-4)


def test_a_grid_of_one_position(monkeypatch):
    config = TransformerConfig(CODES, CLASSES, 1, width=16, layers=1, heads=2, mlp=16)
    model, labels = build(config), torch.arange(40) % CLASSES
    expected = generate(model, labels, steps=4)
    model.program = iterate
    assert torch.equal(generate(model, labels, steps=4), expected)
    assert generate(model, labels[:0], steps=4).shape == (0, 1)


def test_at_the_sizes_of_the_embedded_benchmark_the_tokens_are_the_same():
    config = TransformerConfig(512, 10, 64, width=128, layers=2, heads=4, mlp=512)
    model, labels = build(config, sharpen=4.0), torch.arange(24) % 10
    expected = generate(model, labels, steps=6)
    model.program = iterate
    assert torch.equal(generate(model, labels, steps=6), expected)


@pytest.mark.parametrize(
    ("labels", "batch_size", "forwards"),
    [
        ([0, 0, 0, 1, 1, 1, 0], 7, [2, 8, 8]),  # two classes; seven images fill up to eight
        ([0, 1, 2, 3, 4], 5, [8, 8, 8]),  # five classes fill up to eight, which would save nothing
        ([2] * 6, 4, [1, 4, 4, 1, 2, 2]),
    ],
)
def test_the_first_forward_is_one_for_all_classes_of_a_batch(
    fixed_model, monkeypatch, labels, batch_size, forwards
):
    sizes, forward = [], fixed_model.forward_codes
    monkeypatch.setattr(
        fixed_model, "forward_codes", lambda inputs: sizes.append(len(inputs)) or forward(inputs)
    )
    generate(fixed_model, torch.tensor(labels), steps=3, batch_size=batch_size)
    assert sizes == forwards


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_named_at_the_end(value):
    model = build()
    model.program = iterate
    with torch.no_grad():
        model.head_bias[3] = value
    with pytest.raises(UsageError, match="logits are not finite: its weights are damaged"):
        generate(model, torch.tensor([0, 1, 2]), steps=3)


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, needs_compiler])]
)
def test_all_iterations_are_one_program_without_a_break(exact, backend):
    """What `fullgraph` can trace has no read of a number in it: it could be one CUDA graph."""
    settings = Settings(3, 0, 4.5, 1.0, seed=0, trace=False)
    labels = torch.arange(6) % CLASSES
    with torch.inference_mode():
        state = begin(SMALL, torch.device("cpu"), settings, "cosine", labels, None, None)
        classes = fixed._classes(exact, state, 8)[0]
        annealed = torch.tensor([settings.annealed(step) for step in range(3)])
        batch = fixed._prepare(exact, settings, state, 0, 6, annealed, classes)
        expected, total = loop(exact, batch, 1.0)
        torch.compiler.reset()
        whole = torch.compile(loop, backend=backend, fullgraph=True, dynamic=False)
        tokens, total_of_program = whole(exact, batch, 1.0)
        torch.compiler.reset()
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(total_of_program, total)


# What is counted: see launches.py.


def batch_on(device, config, images, iterations, classes=None):
    """A batch whose numbers do not matter."""
    shape = (iterations, images, config.num_tokens)
    batch = Batch(
        0,
        images,
        torch.zeros((images, 1 + config.num_tokens), dtype=torch.int64, device=device),
        torch.zeros(shape, device=device),
        torch.zeros(shape, device=device),
        torch.ones(shape[:2], dtype=torch.int64, device=device),
    )
    if classes is None:
        return batch
    sequence = torch.zeros((classes, 1 + config.num_tokens), dtype=torch.int64, device=device)
    which = torch.zeros(images, dtype=torch.int64, device=device)
    return replace(batch, class_sequence=sequence, which=which)


def test_on_a_gpu_the_loop_never_waits_and_adds_few_launches_to_the_network():
    """The paper's network; 24 layers of at least eight launches each."""
    config, iterations = TransformerConfig(1024, 1000, 256), 5
    with pretended_gpu(lambda: Transformer(config)) as model:
        batch = batch_on("cuda", config, 4, iterations, classes=2)
        with Launches() as network:
            model.forward_codes(batch.sequence)
        with Launches() as launches:
            tokens, total = loop(model, batch, 1.0)
        assert tokens.device.type == total.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            bool(total)  # what a wait would do here
    assert launches.waits == []
    assert len(network) > 24 * 8
    assert len(launches) <= iterations * (len(network) + AROUND_THE_NETWORK)


@pytest.mark.parametrize("temperature", [1.0, 0.9])
def test_on_the_cpu_the_fixed_loop_never_waits_and_the_exact_one_does(exact, temperature):
    batch = batch_on("cpu", SMALL, 4, 3)
    with torch.no_grad(), Launches() as network:
        exact.forward_codes(batch.sequence)
    with torch.no_grad(), Launches() as launches:
        loop(exact, batch, temperature)
    assert launches.waits == []
    assert len(launches) <= 3 * (len(network) + AROUND_THE_NETWORK + 2)
    with Launches() as of_the_exact_loop:
        generate(exact, torch.arange(4), steps=3)
    assert {"nonzero", "item", "index"} <= set(of_the_exact_loop.waits)


def test_a_second_batch_of_a_call_needs_no_wait_before_it(exact):
    """All that waits is asked for once, before the first batch: `_prepare` is not."""
    settings = Settings(3, 0, 4.5, 1.0, seed=0, trace=False)
    state = begin(SMALL, torch.device("cpu"), settings, "cosine", torch.arange(8) % 2, None, None)
    shares = fixed._classes(exact, state, 4)
    with Launches() as launches:
        fixed._prepare(exact, settings, state, 4, 8, torch.ones(3), shares[4])
    assert launches.waits == []


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
@pytest.mark.parametrize(("start", "steps", "positions"), [(0, 1, 1), (3, 9, 150)])
def test_the_noise_of_the_loop_is_that_of_its_iterations(seed, start, steps, positions):
    drawn = loop_uniforms(seed, IDS, start, steps, positions)
    assert drawn.shape == (2, steps - start, len(IDS), positions)
    for i, step in enumerate(range(start, steps)):
        expected = position_uniforms(seed, IDS, step, positions)
        assert torch.equal(drawn[:, i].movedim(0, 1), expected)


def test_without_triton_noise_costs_the_launches_of_one_iteration():
    """They are as many for 12 iterations as for one, so 39 for each of 12."""
    counts = []
    for steps in (1, 12):
        with Launches() as launches:
            loop_uniforms(0, IDS, 0, steps, 64)
        assert launches.waits == []
        counts.append(len(launches))
    assert counts[0] == counts[1] <= 470


@pytest.mark.slow
@needs_compiler
def test_compiled_noise_has_the_same_bits():
    torch.compiler.reset()
    compiled = torch.compile(noise.loop_uniforms, fullgraph=True)
    assert torch.equal(compiled(9, IDS, 1, 4, 40), loop_uniforms(9, IDS, 1, 4, 40))
    torch.compiler.reset()
