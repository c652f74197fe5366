"""The JAX networks against the official numbers and against torch; errors of the loaders."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import maskgit.jax
from maskgit import checkpoints
from maskgit.checkpoints import zoo_path
from maskgit.common.errors import UsageError
from maskgit.sampling.noise import gumbel, position_uniforms
from tests.paths import GOLDEN

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.jax

TRANSFORMER = GOLDEN / "maskgit_tiny_checkpoint"
words = st.integers(0, 2**32 - 1)


@pytest.fixture(params=[True, False], ids=["partitionable", "original"])
def partitionable(request):
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", request.param)
    yield
    jax.config.update("jax_threefry_partitionable", before)


def test_noise_has_the_bits_of_torch_in_either_layout_of_jax(partitionable):
    from maskgit.jax import noise

    draw = jax.jit(noise.position_uniforms, static_argnums=3)

    @settings(deadline=None, max_examples=30)
    @given(seed=words, ids=st.lists(words, min_size=3, max_size=3), step=words)
    def check(seed, ids, step):
        theirs = draw(np.uint32(seed), np.array(ids, np.uint32), np.uint32(step), 37)
        ours = position_uniforms(seed, torch.tensor(ids), step, 37)
        assert theirs.dtype == np.float32
        np.testing.assert_array_equal(theirs, ours)

    check()


def test_gumbel_noise_is_that_of_torch_also_at_the_ends():
    from maskgit.jax import noise

    u = np.concatenate([[0.0, 1.0, 2.0**-23, 1 - 2.0**-23], np.linspace(0, 1, 10001)])
    u = u.astype(np.float32)
    ours = gumbel(torch.from_numpy(u)).numpy()
    theirs = np.asarray(jax.jit(noise.gumbel)(u))
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-6)


def test_official_transformer_gives_the_official_logits():
    golden = np.load(GOLDEN / "maskgit_tiny.npz")
    model = maskgit.jax.load_transformer(TRANSFORMER, num_codes=32)
    assert (golden["input_ids"] == -1).any()
    np.testing.assert_allclose(model(golden["input_ids"]), golden["logits"], atol=1e-4, rtol=0)


def test_official_tokenizer_gives_the_official_outputs(tokenizer_file):
    from maskgit.jax.tokenizer import features

    golden = np.load(GOLDEN / "tokenizer_tiny.npz")
    model = maskgit.jax.load_tokenizer(tokenizer_file)
    images = golden["image"].transpose(0, 3, 1, 2)
    encoded = features(model.config, model.parameters, images)
    np.testing.assert_allclose(encoded, golden["encoder_output"], atol=1e-4, rtol=0)
    indices = model.encode(images)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, golden["indices"])
    images = model.decode(golden["indices"])
    assert images.dtype == np.float32
    images = images.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(images, golden["reconstruction"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("schedule", ["cosine", "logarithmic"])
def test_embedded_logits_are_those_of_torch(schedule):
    path = zoo_path(f"transformer-{schedule}")
    ours, theirs = checkpoints.load_transformer(path), maskgit.jax.load_transformer(path)
    assert theirs.config == ours.config
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, ours.config.num_codes, (6, 1 + ours.config.num_tokens))
    tokens[:, 0] = ours.config.num_codes + generator.integers(0, 10, 6)
    tokens[:, 1:][generator.random((6, ours.config.num_tokens)) < 0.6] = ours.config.mask_id
    with torch.inference_mode():
        expected = ours(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(theirs(tokens), expected, atol=1e-4, rtol=0)


def test_embedded_tokenizer_is_that_of_torch():
    ours = checkpoints.load_tokenizer(zoo_path("tokenizer"))
    theirs = maskgit.jax.load_tokenizer(zoo_path("tokenizer"))
    indices = torch.randint(0, 512, (5, 8, 8), generator=torch.Generator().manual_seed(0))
    images = ours.decode(indices)
    np.testing.assert_allclose(theirs.decode(indices.numpy()), images, atol=1e-4, rtol=0)
    clipped = images.clamp(0, 1)
    np.testing.assert_array_equal(theirs.encode(clipped.numpy()), ours.encode(clipped))


def test_tokenizer_splits_many_images_into_batches(monkeypatch):
    from maskgit.jax import tokenizer as module

    model = maskgit.jax.load_tokenizer(zoo_path("tokenizer"))
    indices = np.random.default_rng(0).integers(0, 512, (7, 8, 8))
    whole = model.decode(indices)
    monkeypatch.setattr(module, "PIXELS", 3 * 32 * 32)
    np.testing.assert_allclose(model.decode(indices), whole, atol=1e-5, rtol=0)
    assert model.decode(indices[:0]).shape == (0, 1, 32, 32)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("decode", np.zeros((2, 8), int), r"indices of shape \(2, 8\)"),
        ("decode", np.zeros((1, 8, 8)), "float64: expected integers"),
        ("decode", np.full((1, 8, 8), 512), r"512\.\.512: expected 0\.\.511"),
        ("decode", np.full((1, 8, 8), -1), r"-1\.\.-1: expected 0\.\.511"),
        ("encode", np.zeros((2, 3, 32, 32)), r"expected \(B, 1, H, W\)"),
        ("encode", np.zeros((2, 1, 32, 30)), "multiples of 4"),
    ],
)
def test_tokenizer_names_what_is_wrong_with_its_input(method, given, message):
    model = maskgit.jax.load_tokenizer(zoo_path("tokenizer"))
    with pytest.raises(UsageError, match=message):
        getattr(model, method)(given)


def test_transformer_names_a_sequence_of_the_wrong_length():
    model = maskgit.jax.load_transformer(TRANSFORMER, num_codes=32)
    with pytest.raises(UsageError, match=r"must have shape \(B, 5\).*got \(1, 4\)"):
        model(np.zeros((1, 4), int))


def test_parameters_are_copies():
    ours = checkpoints.load_transformer(TRANSFORMER, num_codes=32)
    theirs = maskgit.jax.transformer.from_torch(ours)
    tokens = np.array([[32, 1, 2, 3, -1]])
    before = np.array(theirs(tokens))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(theirs(tokens), before)


def test_loaders_raise_the_errors_of_the_torch_loaders(tmp_path, tokenizer_file):
    cases = [
        ("load_transformer", (tmp_path / "nothing",)),
        ("load_transformer", (tokenizer_file,)),
        ("load_transformer", (TRANSFORMER, 1000)),
        ("load_tokenizer", (TRANSFORMER,)),
    ]
    for name, arguments in cases:
        with pytest.raises(UsageError) as ours:
            getattr(checkpoints, name)(*arguments)
        with pytest.raises(UsageError) as theirs:
            getattr(maskgit.jax, name)(*arguments)
        assert str(theirs.value) == str(ours.value)


def test_without_jax_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    for name in maskgit.jax.__all__:
        with pytest.raises(UsageError, match=r"pip install 'maskgit-bench\[jax\]'") as raised:
            getattr(maskgit.jax, name)
        assert "\n" not in str(raised.value)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskgit.jax.nothing  # noqa: B018
