"""The bounds behind precision and recall: never wrong, whatever the data, the grid and the
blocks; every answer that of float64 differences of all pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics import precision_recall as balls
from eval.metrics.precision_recall import Manifold, precision_recall
from eval.neighbours import codes
from eval.neighbours import search as neighbours
from eval.neighbours.codes import Codes, Columns, Grid, Reach, fast_bytes
from eval.neighbours.dense import DenseCloud
from eval.neighbours.projection import EPS32, Frame, Projected, products

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


def inside(manifold: Manifold, points: np.ndarray | Manifold) -> np.ndarray:
    """Whether each point lies in any ball of a manifold, the rim included."""
    if isinstance(points, Manifold):
        other = points._cloud
    else:
        other = balls.make_cloud(points, manifold._cloud, manifold.device)
    radii = torch.zeros(len(other.points), dtype=torch.float64)
    return manifold._cloud.inside_each(other, manifold.radii, radii)[0].numpy()


def assert_exact(real: np.ndarray, generated: np.ndarray, k: int) -> None:
    radii, fake_radii, precise, recalled, counts = by_all_pairs(real, generated, k)
    manifold = Manifold(real, k)
    for fake in (Manifold(generated, k), Manifold(generated, k, like=manifold)):
        np.testing.assert_array_equal(manifold.radii, radii)
        np.testing.assert_array_equal(fake.radii, fake_radii)
        for asked in (generated, fake):
            np.testing.assert_array_equal(inside(manifold, asked), precise)
            np.testing.assert_array_equal(manifold.counts(asked), counts)
        np.testing.assert_array_equal(inside(fake, manifold), recalled)
        shares = precise.mean(), recalled.mean()
        assert precision_recall(manifold, generated, k) == pytest.approx(shares, abs=1e-15)


def with_grid(monkeypatch, coarseness: float | None) -> None:
    """Any grid, good or bad, instead of a chosen one; points without one stay as they are."""
    chosen = Grid.for_points

    def grid(full: Projected) -> Grid:
        best = chosen(full)
        mixers = codes._mixers(-(-full.inner.shape[1] // 32) * 32)
        if coarseness is None or best.largest == 0:
            return best
        return Grid(best.step * coarseness, mixers, best.largest)

    monkeypatch.setattr(Grid, "for_points", grid)


@pytest.fixture(params=[True, False], ids=["bytes", "floats"])
def products_in(request, monkeypatch):
    """Both ways to multiply whole numbers, where the machine has both."""
    if request.param and not fast_bytes():
        pytest.skip("no fast exact products of bytes here")
    monkeypatch.setattr(codes, "fast_bytes", lambda: request.param)


@pytest.mark.parametrize("crowded", [0.0, 0.03, 2.0], ids=["all in float64", "default", "never"])
@pytest.mark.parametrize("coarseness", [None, 0.1, 8.0, 300.0])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_all_pairs(monkeypatch, products_in, kind, coarseness, crowded):
    with_grid(monkeypatch, coarseness)
    monkeypatch.setattr(codes, "CROWDED", crowded)
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 4 * 160 * 50)  # several blocks
    real = cloud(1, 150, 40, kind).astype(np.float32)
    generated = cloud(2, 97, 40, kind).astype(np.float32)
    generated[:30] = real[40:70]
    assert_exact(real, generated, 3)


@pytest.fixture
def dense(monkeypatch):
    """Every manifold is searched as on a GPU, in several blocks."""
    monkeypatch.setattr(
        "eval.metrics.precision_recall.make_cloud",
        lambda features, like, device: DenseCloud(features, device),
    )
    monkeypatch.setattr("eval.neighbours.dense.BLOCK_PAIRS", 5000)
    monkeypatch.setattr("eval.neighbours.dense.COLUMNS", 64)


@pytest.mark.parametrize("crowded", [-1.0, 0.01, 2.0], ids=["all in float64", "default", "never"])
@pytest.mark.parametrize("types", [("f4", "f4"), ("f8", "f4")])
@pytest.mark.parametrize("kind", KINDS)
def test_all_pairs_on_a_device_give_the_same(monkeypatch, dense, kind, types, crowded):
    monkeypatch.setattr("eval.neighbours.dense.CROWDED", crowded)
    real, generated = cloud(1, 150, 40, kind), cloud(2, 97, 40, kind)
    real, generated = real.astype(types[0]), generated.astype(types[1])
    generated[:30] = real[40:70]
    assert_exact(real, generated, 3)
    assert_exact(generated, real, 1)


def test_points_beyond_any_float32_are_outside_on_a_device_too(dense):
    manifold = Manifold(cloud(4, 60, 5, "decaying"))
    far = np.array([[1e30] * 5, [1e100] * 5, [-1e25, 0, 0, 0, 0]])
    assert not inside(manifold, far).any()
    assert (manifold.counts(far) == 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_cpus_answers(kind):
    real, generated = (cloud(seed, 3000, 256, kind).astype(np.float32) for seed in (1, 2))
    generated[:300] = real[400:700]
    assert precision_recall(real, generated, 3, "cuda") == precision_recall(real, generated, 3)
    on_gpu = Manifold(real, 5, device="cuda")
    np.testing.assert_array_equal(on_gpu.radii, Manifold(real, 5).radii)
    np.testing.assert_array_equal(on_gpu.counts(generated), Manifold(real, 5).counts(generated))


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
    assert_exact(real.astype(types[0]), generated.astype(types[1]), k)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("kind", ["decaying", "far from 0", "one far outlier"])
def test_closeness_is_never_below_the_truth_nor_far_above(kind, scale):
    points = cloud(3, 400, 300, kind) * scale
    tensor = torch.from_numpy(points.astype(np.float32 if scale == 1 else np.float64))
    frame = Frame.around(tensor)
    truth = -torch.from_numpy(squared(tensor.numpy(), tensor.numpy())) / (2 * frame.scale**2)
    full, row = Projected(tensor, frame), torch.arange(400)
    pairs = row.repeat_interleave(400), row.repeat(400)
    excess = products(full, pairs[0], full, pairs[1]).view(400, 400) - truth
    assert excess.min() >= 0
    assert (excess <= 1.5 * (full.slack[:, None] + full.slack)).all()
    assert full.slack.max() < 300 * 20 * EPS32 * full.norms.max()


@pytest.mark.parametrize("coarseness", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("kind", ["decaying", "far from 0", "one far outlier", "tight clusters"])
def test_no_pair_within_its_limit_is_discarded_and_few_others_are_kept(
    products_in, kind, mix, coarseness
):
    """Limits are the true distances: each pair asks whether it is as near as it is."""
    points = torch.from_numpy(cloud(4, 333, 90, kind).astype(np.float32))
    full = Projected(points, Frame.around(points))
    best = Grid.for_points(full)
    grid = best
    if best.largest:
        grid = Grid(best.step * coarseness, codes._mixers(96) if mix else None, best.largest)
    coded, order = (
        Codes(full, grid),
        torch.randperm(333, generator=torch.Generator().manual_seed(0)),
    )
    columns, rows = Columns(coded, order), torch.arange(333)
    closeness = columns.closeness(coded, rows, torch.empty(333, 352, dtype=columns.dtype))
    halves = torch.from_numpy(squared(points.numpy(), points.numpy()))
    halves /= 2 * Frame.around(points).scale ** 2
    for column in range(0, 333, 7):
        place = columns.places[column].expand(333)
        limits, none = halves[:, column], torch.zeros(352, dtype=torch.float64)
        of_rows = Reach(coded, rows, columns, limits, none).of(rows, place)
        assert (closeness[rows, place] >= of_rows).all()
        balls = none.index_fill(0, place[:1], float(limits[5]))
        reach = Reach(coded, rows, columns, torch.zeros(333, dtype=torch.float64), balls)
        assert closeness[5, place[5]] >= reach.of(rows[5:6], place[5:6])
        groups = reach.of_groups()[:, place[0] % groups_of(columns)]
        assert (groups <= reach.of(rows, place)).all()
    if (coarseness, mix, kind) == (1.0, True, "decaying"):
        place = columns.places[0].expand(333)
        reach = Reach(coded, rows, columns, 0.5 * halves[:, 0], none).of(rows, place)
        assert (closeness[rows, place] < reach)[1:].float().mean() > 0.9


def groups_of(columns: Columns) -> int:
    return len(columns) // codes.GROUP


def test_coordinates_are_mixed_where_a_few_vary_most_and_only_there(monkeypatch):
    monkeypatch.setattr(codes, "fast_bytes", lambda: True)
    rng = np.random.default_rng(0)
    for decay, expected in ((1.0, True), (0.0, False)):
        # Uniform numbers: the grid's ends are the ends of what they can be.
        numbers = rng.uniform(-1, 1, size=(1500, 512)) * np.arange(1, 513) ** -decay
        points = torch.from_numpy(numbers.astype(np.float32))
        grid = Grid.for_points(Projected(points, Frame.around(points)))
        assert (grid.mixers is not None) is expected


def test_another_clouds_grid_is_taken_only_if_it_suits(products_in):
    first = Manifold(cloud(1, 1200, 256, "decaying"))
    alike = Manifold(cloud(2, 1200, 256, "decaying"), like=first)
    far = Manifold(50 + cloud(3, 1200, 256, "decaying"), like=first)
    assert alike._cloud._codes.grid is first._cloud._codes.grid
    assert far._cloud._codes.grid is not first._cloud._codes.grid
    assert inside(first, alike).any()
    assert not inside(first, far).any()


def test_most_pairs_are_spared(monkeypatch, products_in):
    """What makes it fast: pairs looked at on their own are few."""
    looked_at = []
    monkeypatch.setattr(
        neighbours,
        "products",
        lambda left, row, *rest: looked_at.append(len(row)) or products(left, row, *rest),
    )
    for decay in (1.2, 0.0):
        looked_at.clear()
        precision_recall(*(cloud(seed, 1500, 256, "decaying", decay) for seed in (1, 2)))
        assert sum(looked_at) < 0.03 * 3 * 1500**2


@pytest.mark.parametrize("how", ["overflows", "is missing", "is right"])
def test_products_of_bytes_are_used_only_where_they_are_exact(monkeypatch, how):
    def product(left, right, out):
        if how == "is missing":
            raise RuntimeError("no such operator")
        exact = (left.double() @ right.double()).to(torch.int32)
        out.copy_(exact.clamp(-(2**23), 2**23) if how == "overflows" else exact)

    monkeypatch.setattr(torch, "_int_mm", product)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    assert fast_bytes.__wrapped__() is (how == "is right")


def test_many_threads_at_once_change_nothing(monkeypatch):
    """Blocks tell each other what they have found."""
    first, second = (cloud(seed, 1500, 24, "decaying", 0.0) for seed in (1, 2))
    real = Manifold(first)
    fake = Manifold(second, like=real)
    expected = inside(real, fake).mean(), inside(fake, real).mean()
    assert max(expected) < 1
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        for _ in range(4):
            each = real._cloud.inside_each(fake._cloud, real.radii, fake.radii)
            assert tuple(float(x.double().mean()) for x in each) == expected
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(threads)


def test_points_beyond_any_float32_are_outside(products_in):
    manifold = Manifold(cloud(4, 60, 5, "decaying"))
    far = np.array([[1e30] * 5, [1e100] * 5, [-1e25, 0, 0, 0, 0]])
    assert not inside(manifold, far).any()


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
