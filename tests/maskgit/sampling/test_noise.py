"""The noise against jax.random (bits), the published known answers, and its own promises."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit.common.errors import UsageError
from maskgit.sampling import noise

words = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def jax():
    jax = pytest.importorskip("jax")
    if not jax.config.jax_threefry_partitionable:
        pytest.skip("jax_threefry_partitionable is off: the layout of JAX before 0.5")
    return jax


def jax_key(jax, seed, sample_id, step):
    key = jax.random.fold_in(jax.random.PRNGKey(seed), sample_id)
    return jax.random.fold_in(key, step)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers_of_its_authors(key, counter, expected):
    # Random123 1.14, tests/kat_vectors, threefry2x32 with 20 rounds.
    words = noise.threefry2x32(torch.tensor(key), torch.tensor(counter))
    assert words.dtype == torch.int64
    assert tuple(words.tolist()) == expected


def test_threefry_broadcasts_keys_over_counters():
    keys, counters = torch.tensor([[1, 2], [3, 4]]), torch.arange(6).view(3, 1, 2)
    block = noise.threefry2x32(keys, counters)
    assert block.shape == (3, 2, 2)
    for i in range(3):
        for j in range(2):
            assert torch.equal(block[i, j], noise.threefry2x32(keys[j], counters[i, 0]))


@pytest.mark.jax
@settings(deadline=None, max_examples=25)
@given(seed=words, data=words)
def test_keys_are_those_of_jax(jax, seed, data):
    key = jax.random.PRNGKey(seed)
    assert noise.prng_key(seed).tolist() == np.asarray(key).tolist()
    theirs = np.asarray(jax.random.fold_in(key, data))
    assert noise.fold_in(noise.prng_key(seed), data).tolist() == theirs.tolist()


@pytest.mark.jax
@pytest.mark.parametrize("shape", [(1,), (7,), (2, 64), (3, 5, 17)])
def test_bits_and_uniforms_are_those_of_jax(jax, shape):
    for seed in (0, 1, 2**31, 2**32 - 1):
        ours, theirs = noise.prng_key(seed), jax.random.PRNGKey(seed)
        count = int(np.prod(shape))
        bits = noise._widen(noise._random_words(noise._narrow(ours), count)).view(shape).numpy()
        np.testing.assert_array_equal(bits, jax.random.bits(theirs, shape))
        uniforms = noise.uniform(ours, count).view(shape).numpy()
        assert uniforms.dtype == np.float32
        np.testing.assert_array_equal(uniforms, jax.random.uniform(theirs, shape))


@pytest.mark.jax
@settings(deadline=None, max_examples=25)
@given(
    seed=words,
    ids=st.lists(words, min_size=1, max_size=4),
    step=words,
    positions=st.integers(1, 70),
)
def test_the_noise_of_decoding_is_the_documented_jax_expression(jax, seed, ids, step, positions):
    ours = noise.position_uniforms(seed, torch.tensor(ids), step, positions)
    assert ours.shape == (len(ids), 2, positions)
    for row, sample_id in zip(ours, ids, strict=True):
        theirs = jax.random.uniform(jax_key(jax, seed, sample_id, step), (2, positions))
        np.testing.assert_array_equal(row.numpy(), theirs)


def test_the_noise_of_decoding_never_changes():
    # The bits that JAX 0.10 draws; published numbers of the benchmark depend on them.
    u = noise.position_uniforms(2024, torch.tensor([0, 1, 70_000]), 11, 64)
    digest = hashlib.sha256(u.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "0489982576d354093e3ca102de4ae567e3eddeb3747234268fea8b3cd98dcdf9"


@pytest.mark.jax
def test_the_recorded_noise_is_that_of_jax(jax):
    rows = [jax.random.uniform(jax_key(jax, 2024, i, 11), (2, 64)) for i in (0, 1, 70_000)]
    digest = hashlib.sha256(np.stack(rows).astype("<f4").tobytes()).hexdigest()
    assert digest == "0489982576d354093e3ca102de4ae567e3eddeb3747234268fea8b3cd98dcdf9"


@settings(deadline=None, max_examples=30)
@given(ids=st.permutations(range(9)), split=st.integers(0, 9), step=st.integers(0, 60))
def test_a_sample_has_its_noise_in_any_batch_and_order(ids, split, step):
    whole = noise.position_uniforms(3, torch.arange(9), step, 16)
    parts = [
        noise.position_uniforms(3, torch.tensor(p), step, 16)
        for p in (ids[:split], ids[split:])
        if p
    ]
    assert torch.equal(torch.cat(parts), whole[ids])


def test_seed_sample_and_step_each_change_all_the_noise():
    def draw(seed, sample, step):
        return noise.position_uniforms(seed, torch.tensor([sample]), step, 256)[0]

    draws = [
        draw(0, 0, 0),
        draw(1, 0, 0),
        draw(0, 1, 0),
        draw(0, 0, 1),
        draw(1, 1, 0),
        draw(1, 0, 1),
    ]
    draws += [draw(0, 1, 1)]
    rows = torch.stack(draws).flatten(0, 1)
    equal = (rows[:, None] == rows[None]).float().mean(-1) - torch.eye(len(rows))
    # Two independent draws of 23 bits coincide with probability 1e-7.
    assert equal.max() < 0.01


def test_uniforms_are_uniform_and_the_two_draws_independent():
    u = noise.position_uniforms(5, torch.arange(200), 3, 256).double()
    assert u.min() >= 0
    assert u.max() < 1
    n = u.numel()
    # Five standard errors: of the mean, of the mean square, of the correlation.
    assert abs(u.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
    assert abs((u**2).mean() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5
    first, second = u[:, 0].flatten(), u[:, 1].flatten()
    correlation = torch.corrcoef(torch.stack((first, second)))[0, 1]
    assert abs(correlation) < 5 / len(first) ** 0.5


def test_gumbel_is_minus_log_minus_log():
    u = torch.tensor([0.1, 0.5, 0.9])
    expected = -np.log(-np.log(u.double().numpy()))
    np.testing.assert_allclose(noise.gumbel(u).numpy(), expected, rtol=1e-6)


def test_gumbel_is_finite_at_the_ends_and_rises():
    noises = noise.gumbel(torch.tensor([0.0, 2**-23, 0.5, 1 - 2**-23, 1.0]))
    assert noises.dtype == torch.float32
    assert torch.isfinite(noises).all()
    assert (noises.diff() > 0).all()
    assert noises[0] == pytest.approx(-4.4698, abs=1e-3)
    assert noises[-1] == pytest.approx(16.6355, abs=1e-3)


@pytest.mark.jax
def test_gumbel_is_that_of_jax(jax):
    key = jax_key(jax, 1, 2, 3)
    u = noise.position_uniforms(1, torch.tensor([2]), 3, 500)[0]
    theirs = np.asarray(jax.random.gumbel(key, (2, 500)))
    # Same uniforms; the logarithms of torch and XLA may differ in the last bits.
    np.testing.assert_allclose(noise.gumbel(u).numpy(), theirs, rtol=2e-6, atol=2e-7)


def test_an_empty_batch_has_no_noise():
    empty = torch.empty(0, dtype=torch.int64)
    assert noise.position_uniforms(0, empty, 0, 64).shape == (0, 2, 64)


def test_int32_ids_are_taken():
    ids = torch.tensor([0, 5])
    expected = noise.position_uniforms(0, ids, 1, 8)
    assert torch.equal(noise.position_uniforms(0, ids.int(), 1, 8, "cpu"), expected)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "3"])
def test_a_seed_jax_would_alter_is_refused(seed):
    with pytest.raises(UsageError, match=r"^--seed .*: expected an integer from 0 to 4294967295$"):
        noise.position_uniforms(seed, torch.tensor([0]), 0, 4)


@pytest.mark.parametrize(
    ("ids", "step", "message"),
    [
        ([0, -7], 0, "sample_ids -7: expected integers from 0"),
        ([2**32], 0, "sample_ids 4294967296: expected integers from 0"),
        ([[0]], 0, r"sample_ids \(1, 1\) torch.int64: expected one dimension"),
        ([0.5], 0, r"sample_ids \(1,\) torch.float32: expected one dimension"),
        ([0], -1, "step -1: expected an integer from 0"),
    ],
)
def test_bad_ids_and_steps_are_named(ids, step, message):
    with pytest.raises(UsageError, match="^" + message):
        noise.position_uniforms(0, torch.tensor(ids), step, 4)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_bits():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ids = torch.tensor([0, 1, 2**31, 2**32 - 1])
    on_cpu = noise.position_uniforms(2**32 - 1, ids, 59, 1024)
    assert torch.equal(noise.position_uniforms(2**32 - 1, ids, 59, 1024, "cuda").cpu(), on_cpu)
    assert torch.equal(noise.position_uniforms(2**32 - 1, ids.cuda(), 59, 1024).cpu(), on_cpu)
