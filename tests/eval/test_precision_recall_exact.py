"""The bounds behind precision and recall: never wrong, whatever the data, the directions and the
blocks; every answer that of float64 differences of all pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import neighbours, projection
from eval.precision_recall import Manifold, precision_recall
from eval.projection import EPS32, Frame, Side, choose_basis

KINDS = {
    "decaying": lambda rng, x: x,
    "far from 0": lambda rng, x: x + 1000,
    "whole numbers, many ties": lambda rng, x: np.round(2 * x),
    "tiny": lambda rng, x: x * 1e-18,
    "huge": lambda rng, x: x * 1e17,
    "repeated": lambda rng, x: x[rng.integers(0, max(1, len(x) // 8), len(x))],
    "tight clusters": lambda rng, x: x[rng.integers(0, 4, len(x))] + 1e-6 * x,
    "one far outlier": lambda rng, x: np.concatenate([x[:-1], 1e4 + x[-1:]]),
}


def cloud(seed: int, n: int, dim: int, kind: str, decay: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return KINDS[kind](rng, rng.normal(size=(n, dim)) * np.arange(1, dim + 1) ** -decay)


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All squared distances from float64 differences."""
    a, b = torch.from_numpy(a).double(), torch.from_numpy(b).double()
    return torch.stack([(b - row).square().sum(dim=1) for row in a]).numpy()


def by_all_pairs(real: np.ndarray, generated: np.ndarray, k: int):
    """Radii of both, who is inside of whom, and how many each real ball holds (rim left out)."""
    radii = []
    for points in (real, generated):
        within = squared(points, points)
        np.fill_diagonal(within, np.inf)
        radii.append(np.sort(within, axis=1)[:, k - 1])
    across = squared(real, generated)
    in_real, in_generated = across <= radii[0][:, None], across <= radii[1]
    counts = (across < radii[0][:, None]).sum(axis=1)
    return *radii, in_real.any(axis=0), in_generated.any(axis=1), counts


def assert_exact(real: np.ndarray, generated: np.ndarray, k: int) -> None:
    radii, fake_radii, precise, recalled, counts = by_all_pairs(real, generated, k)
    manifold = Manifold(real, k)
    for fake in (Manifold(generated, k), Manifold(generated, k, like=manifold)):
        np.testing.assert_array_equal(manifold.radii, radii)
        np.testing.assert_array_equal(fake.radii, fake_radii)
        for asked in (generated, fake):
            np.testing.assert_array_equal(manifold.contains(asked), precise)
            np.testing.assert_array_equal(manifold.counts(asked), counts)
        np.testing.assert_array_equal(fake.contains(manifold), recalled)


def with_basis(monkeypatch, width: int | None) -> None:
    """Any directions, good or bad, instead of chosen ones."""

    def basis(side: Side, k: int) -> torch.Tensor | None:
        if width is None:
            return None
        dim = side.inner.shape[1]
        random = torch.randn(dim, min(width, dim), dtype=torch.float64)
        return torch.linalg.qr(random).Q.float()

    monkeypatch.setattr(neighbours, "choose_basis", basis)


@pytest.mark.parametrize("crowded", [0.0, 0.03, 2.0], ids=["all in float64", "default", "never"])
@pytest.mark.parametrize("width", [None, 1, 7, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_all_pairs(monkeypatch, kind, width, crowded):
    with_basis(monkeypatch, width)
    monkeypatch.setattr(neighbours, "CROWDED", crowded)
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 4 * 160 * 50)  # several blocks
    real = cloud(1, 150, 40, kind).astype(np.float32)
    generated = cloud(2, 97, 40, kind).astype(np.float32)
    generated[:30] = real[40:70]
    assert_exact(real, generated, 3)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(7, 120),
    m=st.integers(7, 120),
    dim=st.integers(1, 60),
    k=st.integers(1, 6),
    kind=st.sampled_from(sorted(KINDS)),
    types=st.sampled_from([("f4", "f4"), ("f8", "f8"), ("f4", "f8"), ("f8", "f4"), ("f4", "f2")]),
)
def test_equal_to_all_pairs_for_any_sizes_and_types(seed, n, m, dim, k, kind, types):
    if "f2" in types and kind == "huge":
        kind = "decaying"  # float16 ends at 65504
    real, generated = cloud(seed, n, dim, kind), cloud(seed + 1, m, dim, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "FEWEST", 0)  # let it choose directions
        patch.setattr(projection, "WIDTHS", (1, 2, 4, 8, 16, 256))
        assert_exact(real.astype(types[0]), generated.astype(types[1]), k)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("kind", ["decaying", "far from 0", "one far outlier"])
def test_closeness_is_never_below_the_truth_nor_far_above(kind, scale):
    points = cloud(3, 400, 300, kind) * scale
    tensor = torch.from_numpy(points.astype(np.float32 if scale == 1 else np.float64))
    frame = Frame.around(tensor)
    truth = -torch.from_numpy(squared(tensor.numpy(), tensor.numpy())) / (2 * frame.scale**2)
    rows = torch.arange(400)
    full = Side.full(tensor, frame)
    sides = [
        full,
        *(
            full.narrow(projection._leading_directions(full.inner, width, None))
            for width in (2, 17, 128)
        ),
    ]
    for side in sides:
        excess = (side.left(rows) @ side.right(rows).T)[:, :400].double() - truth
        assert excess.min() >= 0
    excess = (full.left(rows) @ full.right(rows).T)[:, :400].double() - truth
    assert (excess <= 1.5 * (full.slack[:, None] + full.slack)).all()
    assert full.slack.max() < 300 * 20 * EPS32 * full.norms.max()


def test_directions_are_chosen_where_they_help_and_only_there():
    rng = np.random.default_rng(0)
    for decay, expected in ((1.5, True), (0.0, False)):
        points = torch.from_numpy(
            (rng.normal(size=(1500, 512)) * np.arange(1, 513) ** -decay).astype(np.float32)
        )
        basis = choose_basis(Side.full(points, Frame.around(points)), 3)
        assert (basis is not None) is expected
        if basis is not None:
            torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]))
            # The spectrum falls along the axes: the leading ones are among the directions.
            assert basis[:8].square().sum(dim=1).min() > 0.9


def test_another_clouds_directions_are_taken_only_if_they_suit():
    rng = np.random.default_rng(1)
    falling = np.arange(1, 257) ** -1.5
    first = Manifold((rng.normal(size=(1200, 256)) * falling).astype(np.float32))
    alike = Manifold((rng.normal(size=(1200, 256)) * falling).astype(np.float32), like=first)
    turned = Manifold((rng.normal(size=(1200, 256)) * falling[::-1]).astype(np.float32), like=first)
    far = Manifold((50 + rng.normal(size=(1200, 256)) * falling).astype(np.float32), like=first)
    assert first._cloud._basis is not None
    assert alike._cloud.frame is first._cloud.frame
    assert turned._cloud.frame is not first._cloud.frame
    assert far._cloud.frame is not first._cloud.frame
    assert first.contains(alike).any()
    assert not first.contains(far).any()


def test_a_decaying_spectrum_spares_most_pairs(monkeypatch):
    """What makes it fast: pairs looked at on their own are few."""
    looked_at = []
    products = neighbours._products
    monkeypatch.setattr(
        neighbours,
        "_products",
        lambda left, row, *rest: looked_at.append(len(row)) or products(left, row, *rest),
    )
    rng = np.random.default_rng(2)
    sides = [
        (rng.normal(size=(1500, 256)) * np.arange(1, 257) ** -1.2).astype(np.float32)
        for _ in range(2)
    ]
    precision_recall(*sides)
    assert sum(looked_at) < 0.02 * 4 * 1500**2


def test_points_beyond_any_float32_are_outside():
    manifold = Manifold(cloud(4, 60, 5, "decaying"))
    far = np.array([[1e30] * 5, [1e100] * 5, [-1e25, 0, 0, 0, 0]])
    assert not manifold.contains(far).any()


def test_lower_precision_of_products_elsewhere_changes_nothing_and_is_put_back():
    real, generated = cloud(5, 200, 30, "decaying"), cloud(6, 200, 30, "decaying")
    before = torch.get_float32_matmul_precision()
    expected = precision_recall(real, generated)
    torch.set_float32_matmul_precision("medium")
    try:
        assert precision_recall(real, generated) == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_read_only_and_strided_features_are_taken_and_left_alone():
    real = cloud(7, 90, 12, "decaying").astype(np.float32)
    real.setflags(write=False)
    copy = real.copy()
    assert precision_recall(real, real[::-1]) == (1.0, 1.0)
    assert precision_recall(real[:, ::2], real[:, ::2]) == (1.0, 1.0)
    np.testing.assert_array_equal(real, copy)
