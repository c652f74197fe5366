"""PSNR and SSIM against closed forms, a plain restatement, and scikit-image's numbers."""

import json

import numpy as np
import pytest
import torch
import torchvision.models
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics.lpips_distance import LPIPS, NETS
from eval.metrics.reconstruction import (
    CHUNK,
    PSNR,
    SSIM,
    TOKEN_AGREEMENT,
    psnr,
    reconstruction,
    ssim,
    summarize,
    token_agreement,
)
from eval.weights.files import SOURCES
from maskgit.common.errors import UsageError
from tests.paths import GOLDEN

RECONSTRUCTION = GOLDEN / "reconstruction.json"


def pairs(count, height, width, channels, seed=0, strength=25):
    """Smooth patterns and the same with noise; no random generator, so that other programs can
    make them too."""
    n, y, x, c = np.ogrid[:count, :height, :width, :channels]
    wave = np.sin(0.3 * x + 0.7 * n) * np.cos(0.2 * y + c) + np.sin(0.05 * x * y + seed)
    original = np.round(127.5 + 60 * wave)
    noise = ((n * 7919 + y * 104729 + x * 1299709 + c * 15485863 + seed) % 1009) / 1008 - 0.5
    rebuilt = np.clip(np.round(0.9 * original + 10 + 2 * strength * noise), 0, 255)
    return original.astype(np.uint8), rebuilt.astype(np.uint8)


def slow_ssim(x, y):
    """The definition, window by window: one pair (H, W) in [0, 1]."""
    at = np.arange(11) - 5
    kernel = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (kernel * a).sum(), (kernel * b).sum()
            va, vb = (kernel * (a - ma) ** 2).sum(), (kernel * (b - mb) ** 2).sum()
            cov = (kernel * (a - ma) * (b - mb)).sum()
            values.append(
                (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2)
                / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))
            )  # fmt: skip
    return np.mean(values)


def test_the_numbers_are_scikit_images():
    golden = json.loads(RECONSTRUCTION.read_text())
    assert len(golden["cases"]) == 4
    for case in golden["cases"]:
        images = pairs(*case["shape"], seed=case["seed"], strength=case["strength"])
        np.testing.assert_allclose(psnr(*images), case["psnr"], rtol=1e-12)
        np.testing.assert_allclose(ssim(*images), case["ssim"], rtol=1e-10)


@pytest.mark.parametrize("shape", [(2, 11, 11, 1), (2, 17, 13, 3), (1, 32, 32, 1)])
def test_ssim_is_the_mean_over_whole_windows_and_channels(shape):
    first, second = pairs(*shape)
    got = ssim(first, second)
    for a, b, value in zip(first / 255, second / 255, got, strict=True):
        wanted = np.mean([slow_ssim(a[..., c], b[..., c]) for c in range(shape[3])])
        assert value == pytest.approx(wanted, rel=1e-10)


def test_psnr_of_a_known_error():
    black = np.zeros((2, 4, 4, 3), np.uint8)
    np.testing.assert_allclose(psnr(black, black + 255), [0, 0])
    np.testing.assert_allclose(psnr(black, black + 1), 20 * np.log10(255))
    one = black.copy()
    one[1, 0, 0, 0] = 255  # 1 of 48 values is wrong by all there is
    np.testing.assert_allclose(psnr(black, one), [np.inf, 10 * np.log10(48)])


def test_equal_images_are_perfect_and_counted():
    image, _ = pairs(3, 16, 16, 1)
    assert (psnr(image, image) == np.inf).all()
    np.testing.assert_allclose(ssim(image, image), 1, rtol=1e-12)
    assert summarize(np.array([20.0, np.inf, 24.0])) == {
        "n": 3, "mean": 22.0, "deviation": pytest.approx(8**0.5), "infinite": 1,
    }  # fmt: skip
    assert summarize(np.array([np.inf]))["mean"] == np.inf
    for bad in (np.array([]), np.array([np.nan]), np.zeros((2, 2))):
        with pytest.raises(UsageError, match="one number for each image"):
            summarize(bad)


@given(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(0, 99), st.integers(1, 60))
def test_both_are_symmetric_bounded_and_by_image(count, channels, seed, strength):
    first, second = pairs(count, 12, 14, channels, seed, strength)
    values = reconstruction(first, second)
    for name, back in reconstruction(second, first).items():
        np.testing.assert_allclose(back, values[name], rtol=1e-9)
        assert back.shape == (count,)
        assert back.dtype == np.float64
    assert (np.abs(values["ssim"]) <= 1 + 1e-12).all()
    assert (values["psnr"] > 0).all()
    last = reconstruction(first[-1:], second[-1:])
    for name, value in last.items():
        np.testing.assert_array_equal(value, values[name][-1:])


def test_grey_is_the_same_as_three_equal_channels_and_floats_as_bytes():
    first, second = pairs(2, 16, 20, 1)
    grey = reconstruction(first, second)
    colour = reconstruction(first.repeat(3, 3), second.repeat(3, 3))
    floats = reconstruction(first / 255, (second / 255))
    for name, value in grey.items():
        np.testing.assert_allclose(colour[name], value, rtol=1e-10)
        np.testing.assert_allclose(floats[name], value, rtol=1e-10)


def test_long_sets_come_in_parts_without_a_seam():
    first, second = pairs(CHUNK + 3, 11, 11, 1)
    for measure in (psnr, ssim):
        whole = measure(first, second)
        np.testing.assert_array_equal(
            whole[CHUNK - 1 :], measure(first[CHUNK - 1 :], second[CHUNK - 1 :])
        )


def test_lpips_comes_with_a_loaded_network(tmp_path):
    name, constructor = NETS["squeeze"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = getattr(torchvision.models, constructor)().state_dict()
    torch.save(state, tmp_path / SOURCES[name].file)
    lpips = LPIPS("squeeze", tmp_path)
    first, second = pairs(2, 32, 32, 1)
    values = reconstruction(first, second, lpips)
    assert list(values) == ["psnr", "ssim", "lpips"]
    np.testing.assert_array_equal(values["lpips"], lpips.distances(first, second))
    floats = reconstruction((first / 255).astype(np.float32), second / np.float32(255), lpips)
    np.testing.assert_allclose(floats["lpips"], values["lpips"], rtol=1e-4)
    ids = [metric.id() for metric in (PSNR, SSIM, TOKEN_AGREEMENT)]
    assert ids == ["psnr.v1", "ssim.gaussian-11.v1", "token-agreement.v1"]


def test_token_agreement_is_the_share_of_equal_tokens():
    first = np.arange(24).reshape(2, 3, 4)
    second = first.copy()
    second[0, 0, :3] += 1
    np.testing.assert_array_equal(token_agreement(first, second), [0.75, 1])
    np.testing.assert_array_equal(
        token_agreement(first.reshape(2, 12), second.reshape(2, 12)), [0.75, 1]
    )
    for a, b, says in (
        (first, second[:1], "expected twice"),
        (first[0, 0], second[0, 0], "expected twice"),
        (first[:0], second[:0], "expected twice"),
        (first / 2, second, "expected integers"),
    ):
        with pytest.raises(UsageError, match=says):
            token_agreement(a, b)


def test_what_does_not_fit_is_refused():
    first, second = pairs(2, 12, 12, 1)
    for a, b, says in (
        (first, second[:1], "shapes must be equal"),
        (first[0], second[0], r"original images: expected uint8 or floats \(n, H, W, C\)"),
        (first, second.astype(np.int32), "reconstructed images: expected uint8 or floats"),
        (first, second.astype(float), r"expected values in \[0, 1\], got"),
        (first, np.full(first.shape, np.nan), r"expected values in \[0, 1\]"),
        (first[:0], second[:0], "original images: an empty array"),
    ):
        with pytest.raises(UsageError, match=says):
            reconstruction(a, b)
    with pytest.raises(UsageError, match="SSIM takes images from 11x11, got 12x10"):
        ssim(first[:, :10], second[:, :10])
