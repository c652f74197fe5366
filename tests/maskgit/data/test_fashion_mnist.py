"""Fashion-MNIST: what ships, the order of the places, and broken files."""

import gzip

import numpy as np
import pytest

from maskgit.common.errors import UsageError
from maskgit.data import fashion_mnist as data


def write_split(folder, split, count=3, side=28, gzipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(count * side * side, dtype=np.uint32).astype(np.uint8)
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, side, side))
    labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(range(count))
    for kind, body in (("images-idx3", header + images.tobytes()), ("labels-idx1", labels)):
        name = folder / f"{data.PREFIX[split]}-{kind}-ubyte"
        if gzipped:
            name.with_name(name.name + ".gz").write_bytes(gzip.compress(body))
        else:
            name.write_bytes(body)
    return images.reshape(count, side, side)


def test_shipped_test_split_is_fashion_mnist():
    images, labels = data.load_split("test")
    assert images.shape == (10000, 32, 32, 1)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [1000] * 10
    # The first ten labels as the data set's own examples print them.
    assert labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert int(images[:, :2].max()) == int(images[:, :, -2:].max()) == 0


@pytest.mark.parametrize("gzipped", [True, False])
def test_named_folder_is_read_and_padded(tmp_path, gzipped):
    expected = write_split(tmp_path, "train", gzipped=gzipped)
    images, labels = data.load_split("train", tmp_path)
    assert np.array_equal(images[:, 2:-2, 2:-2, 0], expected)
    assert int(images[:, :2].sum()) == 0
    assert labels.tolist() == [0, 1, 2]


def test_named_folder_without_the_files_is_refused_although_others_exist(tmp_path):
    with pytest.raises(UsageError, match=r"--data .*t10k-images-idx3-ubyte"):
        data.load_split("test", tmp_path)


def test_debian_folder_comes_before_the_download(tmp_path, monkeypatch):
    write_split(tmp_path / "debian", "train")
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "debian")
    assert data.find_files("train")[0].parent == tmp_path / "debian"


def test_without_any_data_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))

    def offline(*args, **kwargs):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", offline)
    with pytest.raises(UsageError, match=r"--data FOLDER.*dataset-fashion-mnist.*no network"):
        data.load_split("train")


@pytest.mark.parametrize("damage", ["truncated", "foreign", "cut gzip"])
def test_broken_file_is_one_clear_error(tmp_path, damage):
    write_split(tmp_path, "train")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    raw = path.read_bytes()
    body = gzip.decompress(raw)
    path.write_bytes(
        {
            "truncated": gzip.compress(body[:-7]),
            "foreign": b"not an idx file at all",
            "cut gzip": raw[: len(raw) // 2],
        }[damage]
    )
    with pytest.raises(UsageError, match="train-images-idx3-ubyte"):
        data.load_split("train", tmp_path)


def test_unknown_split_is_refused():
    with pytest.raises(UsageError, match="expected train or test"):
        data.load_split("valid")
