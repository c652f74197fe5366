"""Schedules against the official numbers: golden files, the official formulas in JAX, properties.

The oracle is the official code's arithmetic, rewritten here in the same JAX operations and run one
operation at a time, as the golden files were. The complete sweep is marked slow.
"""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit import schedules
from maskgit.common.errors import UsageError
from maskgit.model import float32
from maskgit.schedules import FORMULAS, mask_counts, mask_ratio, validate
from tests.paths import GOLDEN

GAMMA = json.loads((GOLDEN / "gamma.json").read_text())
COUNTS = json.loads((GOLDEN / "mask_counts.json").read_text())["counts"]
EXPONENTS = {"square": 2.0, "cubic": 3.0, "sqrt": 0.5, "pow2.5": 2.5}
OFFICIAL = ("cosine", "linear", "square", "cubic", "sqrt", "logarithmic", "exponential")
EVERY = (*FORMULAS, "pow1.5", "pow0.1", "pow.7", "pow9")


def golden_case(name: str) -> tuple[str, int, int, int]:
    schedule, *fields = name.split("/")
    values = {key: int(value) for key, value in (field.split("=") for field in fields)}
    return schedule, values["T"], values["N"], values.get("start", 0)


def official_ratio(schedule, ratio, total):
    """The official gamma; `ratio` a float32 JAX array, `total` an int or an array of them."""
    from jax import lax
    from jax import numpy as jnp

    if schedule in EXPONENTS:
        gamma = 1.0 - ratio ** EXPONENTS[schedule]
    else:
        gamma = {
            "linear": lambda: 1.0 - ratio,
            "cosine": lambda: lax.cos(math.pi / 2.0 * ratio),
            "logarithmic": lambda: -jnp.log2(ratio) / jnp.log2(total),
            "exponential": lambda: 1 - jnp.exp2(-jnp.log2(total) * (1 - ratio)),
        }[schedule]()
    return jnp.clip(gamma, 1e-6, 1.0)


def official_counts(schedule, steps, totals, start=0):
    """(steps - start, len(totals)) tokens masked after each iteration of the official loop."""
    from jax import numpy as jnp

    totals = jnp.asarray(totals, jnp.int32)
    unknown, counts = totals, []
    for step in range(start, steps):
        ratio = 1.0 * (jnp.asarray(step) + 1) / steps
        wanted = jnp.floor(totals * official_ratio(schedule, ratio, totals))
        # fmax: a single token on the logarithmic schedule gives 0 / 0 at the very end.
        unknown = jnp.fmax(1, jnp.minimum(unknown - 1, wanted)).astype(jnp.int32)
        counts.append(np.asarray(unknown))
    return np.array(counts)


@pytest.fixture(scope="module")
def oracle():
    """JAX, if it rounds as it did for the golden files: other releases may use other cosines."""
    jax = pytest.importorskip("jax")
    r = jax.numpy.asarray(np.float32(GAMMA["r"]))
    for schedule in OFFICIAL:
        for tokens, values in GAMMA[schedule].items():
            if not np.array_equal(official_ratio(schedule, r, int(tokens)), np.float32(values)):
                pytest.skip(f"this JAX rounds {schedule} differently from golden/gamma.json")
    return jax


@pytest.mark.parametrize("name", COUNTS)
def test_counts_equal_the_golden_file(name):
    assert mask_counts(*golden_case(name)) == COUNTS[name]


@pytest.mark.parametrize("schedule", OFFICIAL)
@pytest.mark.parametrize("tokens", [64, 256])
def test_ratios_equal_the_golden_file_bit_for_bit(schedule, tokens):
    ours = mask_ratio(schedule, np.float32(GAMMA["r"]), tokens)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, np.float32(GAMMA[schedule][str(tokens)]))


@pytest.mark.jax
@pytest.mark.parametrize("schedule", [*OFFICIAL, "pow2.5"])
def test_ratios_equal_jax_for_arrays_and_for_scalars(oracle, schedule):
    r = np.random.default_rng(0).random(3000, np.float32)
    r[:3] = 0, 1, 2 / 3
    for tokens in (1, 2, 30, 64, 1000):
        theirs = np.asarray(official_ratio(schedule, oracle.numpy.asarray(r), tokens))
        # 0 / 0 there, defined as the end of the schedule here.
        theirs = np.where(np.isnan(theirs), np.float32(1e-6), theirs)
        np.testing.assert_array_equal(mask_ratio(schedule, r, tokens), theirs)
    for value in r[1:40]:
        theirs = official_ratio(schedule, oracle.numpy.asarray(value), 100)
        assert mask_ratio(schedule, value, 100) == np.float32(theirs)


@pytest.mark.jax
@pytest.mark.parametrize("schedule", [*OFFICIAL, "pow2.5"])
def test_counts_equal_the_official_loop_for_every_number_of_tokens(oracle, schedule):
    tokens = np.arange(1, 1025)
    for steps in (1, 2, 3, 5, 7, 9, 12, 25, 60):
        theirs = official_counts(schedule, steps, tokens)
        chosen = tokens[:: 1 if steps < 10 else 9]
        for n in chosen.tolist():
            assert mask_counts(schedule, steps, n) == theirs[:, n - 1].tolist(), (steps, n)


@pytest.mark.jax
@pytest.mark.parametrize("schedule", OFFICIAL)
def test_counts_equal_the_official_loop_with_known_tokens_and_a_late_start(oracle, schedule):
    rng = np.random.default_rng(1)
    for steps, start in ((12, 2), (9, 8), (30, 17), (100, 60)):
        tokens = np.unique(np.r_[1, 2, rng.integers(1, 1025, 60)])
        theirs = official_counts(schedule, steps, tokens, start)
        for column, n in enumerate(tokens.tolist()):
            assert mask_counts(schedule, steps, n, start) == theirs[:, column].tolist()


@pytest.mark.slow
@pytest.mark.jax
def test_every_share_of_steps_up_to_4096_has_the_bits_of_jax(oracle):
    # Equal bits of gamma at all distinct float32 (t+1)/T mean equal counts for all N, T <= 4096 and
    # t: what remains of the loop is one exact product, floor and integers.
    jnp = oracle.numpy
    r = np.unique(
        np.concatenate(
            [np.arange(1, t + 1, dtype=np.float32) / np.float32(t) for t in range(1, 4097)]
        )
    )
    for schedule in ("cosine", "linear", "square", "cubic", "sqrt"):
        theirs = official_ratio(schedule, jnp.asarray(r), 256)
        np.testing.assert_array_equal(mask_ratio(schedule, r, 256), theirs)
    # Logarithmic: numerators and denominators; exponential: the same, and 2**x in the next test.
    np.testing.assert_array_equal(schedules._log2(r), jnp.log2(jnp.asarray(r)))
    n = np.arange(1, 1025)
    theirs = jnp.log2(jnp.asarray(n, jnp.int32))
    np.testing.assert_array_equal(schedules._log2(n.astype(np.float32)), theirs)


@pytest.mark.slow
@pytest.mark.jax
def test_every_power_of_two_in_the_exponential_schedule_has_the_bits_of_jax(oracle):
    # -log2(N) (1 - r) is 0 or between -10 and -1/4096 (N = 2, T = 4096): all float32 in between.
    first, last = (int(np.float32(x).view(np.int32)) for x in (2.4e-4, 10.0))
    for begin in range(first, last + 1, 1 << 21):
        bits = np.arange(begin, min(begin + (1 << 21), last + 1), dtype=np.int32)
        x = -bits.view(np.float32)
        theirs = np.asarray(oracle.numpy.exp2(oracle.numpy.asarray(x)))
        assert np.array_equal(float32.exp(x * schedules._LN2), theirs), (x[0], x[-1])


@pytest.mark.slow
@pytest.mark.jax
@pytest.mark.parametrize("schedule", OFFICIAL)
def test_counts_equal_the_official_loop_for_many_iterations(oracle, schedule):
    rng = np.random.default_rng(2)
    for steps in rng.integers(61, 4097, 3).tolist():
        tokens = rng.choice(np.arange(-(-steps // 4), 1025), 25)
        theirs = official_counts(schedule, steps, tokens)
        for column, n in enumerate(tokens.tolist()):
            assert mask_counts(schedule, steps, n) == theirs[:, column].tolist(), (steps, n)


ratios = st.floats(0, 1, width=32)


@settings(deadline=None)
@given(st.sampled_from(EVERY), st.lists(ratios, min_size=2, max_size=20), st.integers(1, 5000))
def test_gamma_stays_in_its_bounds_and_never_rises(schedule, r, tokens):
    values = mask_ratio(schedule, np.sort(np.float32(r)), tokens)
    assert values.dtype == np.float32
    assert values.min() >= np.float32(1e-6)
    assert values.max() <= 1
    # The polynomials' last bits are not monotone: two units in the last place of 1 are allowed.
    assert np.diff(values).max() <= 2**-22


@settings(deadline=None)
@given(st.sampled_from(EVERY), st.integers(1, 5000))
def test_gamma_starts_at_all_and_ends_at_nothing(schedule, tokens):
    start, end = mask_ratio(schedule, [0.0, 1.0], tokens)
    # Exponential: 1 - 1/N; for one token it is 0 everywhere.
    expected = 1 - 1 / tokens if schedule == "exponential" else 1
    assert start == pytest.approx(max(expected, 1e-6), abs=1e-6)
    assert end == np.float32(1e-6)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(EVERY), st.integers(1, 200), st.integers(1, 1024), st.integers(0, 199))
def test_counts_fall_by_one_at_least_until_one_is_left(schedule, steps, tokens, start):
    start %= steps
    counts = mask_counts(schedule, steps, tokens, start)
    assert len(counts) == steps - start
    for before, after in zip([tokens, *counts], counts, strict=False):
        assert after == 1 if before == 1 else 1 <= after < before
    assert counts[-1] == 1
    # A later start leaves the same mask where the clamp of the skipped iterations does not bind.
    whole = mask_counts(schedule, steps, tokens)[start:]
    assert all(late >= full for late, full in zip(counts, whole, strict=True))


@settings(deadline=None)
@given(st.sampled_from(EVERY), st.floats(2**-20, 1), st.integers(2, 1024))
def test_gamma_is_the_papers_formula(schedule, r, tokens):
    r = float(np.float32(r))
    log_n = math.log2(tokens)
    named = {
        "cosine": math.cos(math.pi / 2 * r),
        "linear": 1 - r,
        "arccos": 2 / math.pi * math.acos(r),
        "logarithmic": -math.log2(r) / log_n,
        "exponential": 1 - 2 ** (-log_n * (1 - r)),
    }
    exponent = {"square": 2, "cubic": 3, "sqrt": 0.5}.get(schedule)
    if schedule.startswith("pow"):
        exponent = float(schedule[3:])
    formula = named[schedule] if exponent is None else 1 - r**exponent
    expected = min(max(formula, 1e-6), 1)
    assert mask_ratio(schedule, r, tokens) == pytest.approx(expected, rel=2e-6, abs=5e-7)


def test_named_powers_are_the_powers():
    for name, power in (("square", "pow2"), ("cubic", "pow3.0"), ("sqrt", "pow.5")):
        for steps in (5, 12, 60):
            assert mask_counts(name, steps, 256) == mask_counts(power, steps, 256)
    r = np.linspace(0, 1, 101, dtype=np.float32)
    np.testing.assert_array_equal(mask_ratio("pow1", r, 9), mask_ratio("linear", r, 9))


def test_nothing_masked_means_nothing_to_do():
    assert mask_counts("cosine", 12, 0, start=2) == [0] * 10


def test_more_iterations_than_tokens_repeat_the_last_one():
    assert mask_counts("linear", 6, 3) == [2, 1, 1, 1, 1, 1]
    assert mask_counts("logarithmic", 4, 1) == [1, 1, 1, 1]


def test_the_counts_returned_may_be_changed_by_the_caller():
    mask_counts("cosine", 8, 64).clear()
    assert len(mask_counts("cosine", 8, 64)) == 8


def test_ratio_has_the_shape_of_r():
    assert mask_ratio("cosine", 0.5, 64).shape == ()
    assert isinstance(mask_ratio("cosine", 0.5, 64), np.ndarray)
    assert mask_ratio("exponential", np.full((2, 3), 0.5), 64).shape == (2, 3)
    assert mask_ratio("logarithmic", [], 64).shape == (0,)


@pytest.mark.parametrize("name", [*FORMULAS, "pow1.5", "pow2", "pow.5", "pow3."])
def test_valid_names_are_returned(name):
    assert validate(name) == name


@pytest.mark.parametrize(
    "name",
    ["cosin", "", "Cosine", "pow", "pow0", "pow0.0", "pow-1", "powx", "pow1e3", "pow" + "9" * 60],
)
def test_an_unknown_name_is_one_line_with_flag_value_and_names(name):
    with pytest.raises(UsageError) as error:
        validate(name)
    message = str(error.value)
    assert message.startswith(f"--schedules {name!r}: ")
    assert "\n" not in message
    assert all(word in message for word in (*FORMULAS, "pow<x>"))


def test_a_near_miss_is_named():
    with pytest.raises(UsageError, match=r"^--schedule 'cosin': .*did you mean cosine\?"):
        validate("cosin", "--schedule")
    with pytest.raises(UsageError, match=r"'zzz': unknown schedule; accepted"):
        validate("zzz")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mask_counts("cosine", 0, 64), "--T 0: expected at least one iteration"),
        (lambda: mask_counts("cosine", -3, 64), "--T -3: expected at least one iteration"),
        (lambda: mask_counts("cosine", 8, -1), "num_unknown -1: expected"),
        (lambda: mask_counts("cosine", 8, 64, 8), "start 8: expected an iteration from 0 to 7"),
        (lambda: mask_counts("cosine", 8, 64, -1), "start -1: expected an iteration from 0 to 7"),
        (lambda: mask_counts("cosin", 8, 64), "--schedules 'cosin'"),
        (lambda: mask_ratio("cosine", 0.5, 0), "num_tokens 0: expected"),
        (lambda: mask_ratio("cosine", [0.5, 1.5], 64), "r 1.5: expected"),
        (lambda: mask_ratio("cosine", math.nan, 64), "r nan: expected"),
    ],
)
def test_values_out_of_range_are_named(call, message):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(message)


def test_a_fraction_of_an_iteration_is_refused():
    with pytest.raises(TypeError):
        mask_counts("cosine", 7.5, 64)


def test_schedules_do_not_import_torch():
    code = "import sys, maskgit.schedules; sys.exit('torch' in sys.modules or 'jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
