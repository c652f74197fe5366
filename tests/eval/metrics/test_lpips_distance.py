"""LPIPS against the lpips package on random networks in torchvision's file format."""

import numpy as np
import pytest
import torch
import torchvision.models

from eval.metrics.lpips_distance import LPIPS, METRIC, MIN_SIDE, NETS
from eval.weights.files import SOURCES
from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import sha256_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """torch.hub's folder of checkpoints with random alexnet and squeezenet."""
    home = tmp_path_factory.mktemp("torch")
    checkpoints = home / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for net in ("alex", "squeeze"):
        name, constructor = NETS[net]
        save(constructor, checkpoints / SOURCES[name].file)
    yield checkpoints
    for path in checkpoints.iterdir():
        path.unlink()


def save(constructor, path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(getattr(torchvision.models, constructor)().state_dict(), path)


def pairs(side, channels=3, count=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = count, side, side, channels
    return tuple(rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))


def oracle(net, checkpoints, monkeypatch):
    """The package's own LPIPS, which finds the network where torch.hub keeps it."""
    import lpips

    monkeypatch.setenv("TORCH_HOME", str(checkpoints.parents[1]))
    with pytest.warns(UserWarning, match="pretrained"):
        return lpips.LPIPS(net=net, verbose=False)


def expected(model, first, second):
    tensors = []
    for images in (first, second):
        planar = torch.from_numpy(images).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
        tensors.append(planar / 127.5 - 1)
    with torch.inference_mode():
        return model(*tensors).reshape(-1).numpy()


@pytest.mark.parametrize("net", ["alex", "squeeze"])
@pytest.mark.parametrize(("side", "channels"), [(64, 3), (32, 1)])
def test_distances_are_those_of_the_lpips_package(folder, monkeypatch, net, side, channels):
    first, second = pairs(side, channels)
    ours = LPIPS(net, folder)
    got = ours.distances(first, second)
    wanted = expected(oracle(net, folder, monkeypatch), first, second)
    assert got.dtype == np.float32
    assert (wanted > 0).all()
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    floats = [images.astype(np.float32) / 127.5 - 1 for images in (first, second)]
    np.testing.assert_array_equal(ours.distances(*floats), got)
    assert ours.protocol["lpips_weights_sha256"] == sha256_of(folder / SOURCES[NETS[net][0]].file)


@pytest.mark.slow
def test_vgg_distances_are_those_of_the_lpips_package(tmp_path, monkeypatch):
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    save("vgg16", checkpoints / SOURCES["vgg16"].file)
    first, second = pairs(32)
    got = LPIPS("vgg", checkpoints).distances(first, second)
    wanted = expected(oracle("vgg", checkpoints, monkeypatch), first, second)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    (checkpoints / SOURCES["vgg16"].file).unlink()


def test_a_distance_does_not_depend_on_the_other_pairs(folder):
    ours = LPIPS("squeeze", folder)
    first, second = pairs(32, count=19)
    together = ours.distances(first, second)
    for i in (0, 15, 16, 18):
        alone = ours.distances(first[i : i + 1], second[i : i + 1])
        np.testing.assert_array_equal(alone, together[i : i + 1])
    np.testing.assert_array_equal(ours.distances(first, first), np.zeros(19, np.float32))
    np.testing.assert_allclose(ours.distances(second, first), together, rtol=1e-5)


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_the_smallest_size_works_and_the_next_is_refused(folder, net):
    ours = LPIPS(net, folder)
    assert np.isfinite(ours.distances(*pairs(MIN_SIDE[net]))).all()
    with pytest.raises(UsageError, match=f"LPIPS with {net} takes images from {MIN_SIDE[net]}x"):
        ours.distances(*pairs(MIN_SIDE[net] - 1))


def test_what_does_not_fit_is_refused(folder):
    ours = LPIPS("squeeze", folder)
    a, b = pairs(32)
    for first, second, says in (
        (a, b[:2], "shapes must be equal"),
        (a[0], b[0], "first images: expected uint8 or floats \\(n, H, W, C\\)"),
        (a.astype(np.int64), b, "expected uint8 or floats"),
        (a.astype(np.float32), b, "expected values in \\[-1, 1\\], got \\[0, 255\\]"),
        (a, np.full(b.shape, np.nan), "expected values in"),
    ):
        with pytest.raises(UsageError, match=says):
            ours.distances(first, second)
    with pytest.raises(UsageError, match="'resnet': expected one of alex, vgg, squeeze"):
        LPIPS("resnet")


@pytest.mark.parametrize("net", list(NETS))
def test_a_missing_network_is_unavailable_and_names_lpips(tmp_path, net):
    with pytest.raises(Unavailable, match=f"fetch {NETS[net][0]}.*LPIPS with {net}"):
        LPIPS(net, tmp_path)
    assert METRIC.id(net) == f"lpips.{net}.v1"


def test_another_networks_weights_are_one_clear_line(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / SOURCES["alexnet"].file)
    with pytest.raises(UsageError, match="not weights of alexnet") as caught:
        LPIPS("alex", tmp_path)
    assert "\n" not in str(caught.value)
