"""Archives and arrays as input of eval: lies in headers, bombs, odd compression; statistics."""

import gzip
import io
import re
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from eval.images.source import ImageSource
from eval.reference.build import import_statistics
from eval.reference.files import read_reference
from maskgit.common.idx import read_idx
from maskgit.training.tokens import load_tokens, save_tokens
from tests.faults.abuse import damaged, fault, report

pytestmark = pytest.mark.filterwarnings("ignore")
MIB = 1 << 20


def pictures(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


def npy(array=None, header=None):
    """An npy file of an array; with `header` its text is another one, padded as it must be."""
    buffer = io.BytesIO()
    np.save(buffer, pictures() if array is None else array)
    raw = buffer.getvalue()
    if header is None:
        return raw
    size = struct.unpack("<H", raw[8:10])[0]
    text = header.encode().ljust(size - 1)[: size - 1] + b"\n"
    return raw[:10] + text + raw[10 + size :]


def archive(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def patched(raw, offset_local, offset_central, value):
    """An archive with a field of every member's two headers replaced by `value`, packed."""
    held = bytearray(raw)
    for magic, offset in ((b"PK\3\4", offset_local), (b"PK\1\2", offset_central)):
        for found in re.finditer(re.escape(magic), raw):
            place = found.start() + offset
            held[place : place + len(value)] = value
    return bytes(held)


def read_all(path, skip_broken=False):
    source = ImageSource(path, skip_broken=skip_broken)
    return sum(len(batch) for batch in source.batches(8))


HEADERS = {
    "huge": "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 8, 8, 3), }",
    "huge rows": "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1000000, 1000000, 3), }",
    "negative": "{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 8, 8, 3), }",
    "negative rows": "{'descr': '|u1', 'fortran_order': False, 'shape': (3, -8, -8, 3), }",
    "overflow": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30}, 8, 8, 3), }}",
    "bad token": "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8L, 8, 3), ",
    "open bracket": "{'descr': '|u1', 'fortran_order': False, 'shape': ((((",
    "nested": "{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 60 + ")" * 20,
    "null": "\0" * 40,
    "names": "{'descr': '|u1', 'fortran_order': False, 'shape': (x, 8, 8, 3), }",
    "object": "{'descr': '|O', 'fortran_order': False, 'shape': (3, 8, 8, 3), }",
    "float": "{'descr': '|u1', 'fortran_order': False, 'shape': (3.0, 8, 8, 3), }",
    "true": "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 8, 8, 3), }",
}


@pytest.mark.parametrize("end", ["npy", "npz"])
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path, end, name):
    raw = npy(header=HEADERS[name])
    path = tmp_path / f"x.{end}"
    path.write_bytes(raw if end == "npy" else archive({"arr_0.npy": raw}))
    assert fault(lambda: read_all(path), memory=512 * MIB) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [("encrypted", (6, 8, b"\1\0")), ("compression", (8, 10, b"\x63\0"))],
)
def test_an_npz_that_zipfile_cannot_open_is_refused(tmp_path, field, value):
    path = tmp_path / "x.npz"
    path.write_bytes(patched(archive({"arr_0.npy": npy()}), *value))
    assert fault(lambda: read_all(path)) == ""


@pytest.mark.parametrize("value", [(6, 8, b"\1\0"), (8, 10, b"\x63\0")])
def test_a_zip_of_images_that_zipfile_cannot_open_is_refused(tmp_path, value):
    buffer = io.BytesIO()
    Image.fromarray(pictures()[0]).save(buffer, "PNG")
    path = tmp_path / "x.zip"
    path.write_bytes(patched(archive({"a.png": buffer.getvalue()}), *value))
    assert fault(lambda: read_all(path)) == ""


@pytest.mark.parametrize("end", ["zip", "npz"])
def test_a_bomb_whose_header_lies_takes_no_memory(tmp_path, end):
    name = "a.png" if end == "zip" else "arr_0.npy"
    content = bytes(600 * MIB) if end == "zip" else npy() + bytes(600 * MIB)
    raw = archive({name: content})
    small = struct.pack("<I", 1000 if end == "zip" else len(npy()))
    path = tmp_path / f"x.{end}"
    path.write_bytes(patched(raw, 22, 24, small))
    del content
    assert fault(lambda: read_all(path), seconds=30, memory=200 * MIB) == ""


@pytest.mark.slow
def test_damaged_archives_and_arrays_are_read_or_refused(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(pictures()[0]).save(buffer, "PNG")
    picture = buffer.getvalue()
    index = struct.pack(">BBBB3I", 0, 0, 8, 3, 3, 8, 8) + pictures()[..., 0].tobytes()
    files = {
        "x.npz": archive({"arr_0.npy": npy(), "arr_1.npy": npy(np.arange(3))}),
        "y.npz": archive({"images.npy": npy()}, zipfile.ZIP_STORED),
        "x.npy": npy(),
        "x.zip": archive({"a/0.png": picture, "b/1.png": picture}),
        "x-ubyte": index,
        "x.gz": gzip.compress(index),
    }
    wrong, tried = {}, 0
    for name, raw in files.items():
        path = tmp_path / name
        path.write_bytes(raw)
        assert read_all(path) > 0
        for case, content in damaged(raw, 250):
            tried += 1
            path.write_bytes(content)
            if what := fault(lambda path=path: read_all(path), memory=512 * MIB):
                wrong[f"{name} {case}"] = what
    report(wrong, tried)


@pytest.mark.slow
def test_damaged_token_files_are_read_or_refused(tmp_path):
    path = tmp_path / "train.npz"
    tokens = np.random.default_rng(0).integers(0, 16, (4, 16)).astype(np.uint16)
    save_tokens(path, tokens, np.arange(4), "abc")
    raw, wrong = path.read_bytes(), {}
    for case, content in damaged(raw, 300):
        path.write_bytes(content)
        if what := fault(lambda: load_tokens(path, "abc"), memory=512 * MIB):
            wrong[case] = what
    report(wrong, 300)


def test_damaged_idx_files_are_read_or_refused(tmp_path):
    raw = struct.pack(">BBBB3I", 0, 0, 8, 3, 3, 8, 8) + pictures()[..., 0].tobytes()
    path, wrong = tmp_path / "x", {}
    for packed in (raw, gzip.compress(raw)):
        for case, content in damaged(packed[:40], 150):
            path.write_bytes(content + packed[40:])
            if what := fault(lambda: read_idx(path, 3), memory=512 * MIB):
                wrong[case] = what
    report(wrong, 300)


# Statistics of other tools.


def statistics(**changes):
    """mu and sigma of 8 features, as clean-fid and pytorch-fid save them."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8))
    return {"mu": rng.normal(size=8), "sigma": root @ root.T, **changes}


IMPOSSIBLE = {
    "NaN": {"mu": np.full(8, np.nan)},
    "infinite": {"sigma": np.full((8, 8), np.inf)},
    "negative variance": {"sigma": -np.eye(8)},
    "not symmetric": {"sigma": np.triu(np.ones((8, 8)))},
    "wide": {"sigma": np.eye(9)},
    "flat": {"sigma": np.ones(8)},
    "texts": {"mu": np.array(list("abcdefgh"))},
    "complex": {"sigma": np.eye(8) * 1j},
    "empty": {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_statistics_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "x.npz"
    np.savez(path, **statistics(**IMPOSSIBLE[name]))
    small = SimpleNamespace(dim=8)  # of eight features: the sizes of Inception take long to check
    monkeypatch.setattr("eval.reference.build.extractor_class", lambda name: small)
    done = []
    what = fault(lambda: done.append(import_statistics("clean-fid", path, "x", n=100)))
    assert what == ""
    assert not done


FORGED = ["NaN mean", "NaN covariance", "negative n", "other width", "list", "deep", "text n"]


@pytest.mark.parametrize("name", FORGED)
def test_a_reference_with_impossible_content_is_refused(tmp_path, name):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 8)).astype(np.float32)
    arrays = {
        "mean": rows.mean(0),
        "cov": np.cov(rows, rowvar=False),
        "n": np.array(20),
        "features": rows,
        "extractor": np.array("fashion-resnet"),
        "weights_sha256": np.array("0" * 64),
        "protocol": np.array("{}"),
    }
    changes = {
        "NaN mean": {"mean": np.full(8, np.nan)},
        "NaN covariance": {"cov": np.full((8, 8), np.nan)},
        "negative n": {"n": np.array(-20)},
        "other width": {"features": rows[:, :3]},
        "list": {"protocol": np.array("[]")},
        "deep": {"protocol": np.array("[" * 100_000)},
        "text n": {"n": np.array("many")},
    }[name]
    path = tmp_path / "x.npz"
    np.savez(path, **{**arrays, **changes})
    read = []
    assert fault(lambda: read.append(read_reference(path, "x"))) == ""
    assert not read
