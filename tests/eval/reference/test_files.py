"""References that are built: their numbers, and that a stale one is impossible."""

import json
import os

import numpy as np
import PIL.Image
import pytest

from eval.images.arrays import write_arrays
from eval.images.source import ImageSource
from eval.metrics.statistics import Statistics
from eval.reference import build as reference_build
from eval.reference.build import build_reference
from eval.reference.files import built_references, load_reference, reference_extractors
from eval.reference.verify import verify_reference
from eval.weights.files import weights_sha256
from maskgit.common.errors import UsageError
from tests.eval.tiny_extractor import Tiny


def weights_sha256_or_tinys(name, feature_weights=None):
    return "a" * 64 if name == "tiny" else weights_sha256(name, feature_weights)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("eval.reference.files.weights_sha256", weights_sha256_or_tinys)
    return tmp_path / "cache" / "references"


@pytest.fixture
def folder(tmp_path):
    """30 files in three class folders of 5, 10 and 15."""
    rng = np.random.default_rng(0)
    for i in range(30):
        path = tmp_path / "real" / ("a" if i < 5 else "b" if i < 15 else "c") / f"{i:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return tmp_path / "real"


def pixels_of(folder):
    return np.concatenate(list(ImageSource(folder).batches(7)))


def test_numbers_are_those_of_all_features_at_once_whatever_the_batch_size(folder, monkeypatch):
    monkeypatch.setattr(reference_build, "BLOCK", 8)
    expected = Tiny().extract(pixels_of(folder)).features
    files = []
    for i, batch_size in enumerate((1, 7, 100)):
        reference = build_reference(f"r{i}", folder, Tiny(), batch_size=batch_size)
        np.testing.assert_allclose(reference.mean, expected.mean(0, np.float64), rtol=1e-12)
        np.testing.assert_allclose(reference.cov, np.cov(expected, rowvar=False), rtol=1e-5)
        files.append(reference.sha256)
    assert len(set(files)) == 1
    assert (reference.n, reference.extractor, reference.name) == (30, "tiny", "r2")
    rows = {tuple(row) for row in expected}
    assert {tuple(row) for row in reference.features} == rows


def test_an_array_a_folder_and_a_source_give_the_same_numbers(folder):
    by_folder = build_reference("a", folder, Tiny())
    labels = np.repeat([0, 1, 2], [5, 10, 15])
    by_array = build_reference("b", pixels_of(folder), Tiny(), labels)
    by_source = build_reference("c", ImageSource(folder), Tiny())
    for other in (by_array, by_source):
        np.testing.assert_array_equal(other.cov, by_folder.cov)
        np.testing.assert_array_equal(other.features, by_folder.features)


def test_first_rows_of_the_kept_features_have_the_classes_shares(folder):
    reference = build_reference("a", folder, Tiny(), keep_features=12)
    everything = Tiny().extract(pixels_of(folder)).features
    classes = np.repeat([0, 1, 2], [5, 10, 15])
    where = [int(np.flatnonzero((everything == row).all(1))[0]) for row in reference.features]
    assert np.bincount(classes[where]).tolist() == [2, 4, 6]
    assert np.bincount(classes[where[:6]]).tolist() == [1, 2, 3]
    equal = build_reference("b", pixels_of(folder), Tiny(), np.arange(30) % 3)
    where = [int(np.flatnonzero((everything == row).all(1))[0]) for row in equal.features]
    assert (np.array(where) % 3 == np.arange(30) % 3).all()
    assert where != sorted(where)


def test_a_second_build_computes_nothing_and_load_finds_it(folder):
    first = build_reference("mine", folder, Tiny())
    tiny = Tiny()
    again = build_reference("mine", folder, tiny)
    assert tiny.images_seen == 0
    assert again.sha256 == first.sha256 == load_reference("mine", "tiny").sha256
    assert load_reference("mine").extractor == "tiny"
    assert built_references() == {"mine": ["tiny"]}
    assert reference_extractors("fashion-mnist-train") == ["fashion-resnet"]


def test_one_pixel_of_one_image_makes_it_another_reference(folder):
    before = build_reference("mine", folder, Tiny())
    path = folder / "b" / "09.bmp"
    stat, raw = path.stat(), bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    tiny = Tiny()
    after = build_reference("mine", folder, tiny)
    assert tiny.images_seen == 30
    assert after.sha256 != before.sha256
    assert after.protocol["content_sha256"] != before.protocol["content_sha256"]
    assert load_reference("mine", "tiny").sha256 == after.sha256  # not the one in memory


@pytest.mark.parametrize(
    "change", ["order", "weights", "resize", "kept", "decoder", "pad", "code", "classes"]
)
def test_whatever_numbers_depend_on_makes_it_another_reference(folder, change, monkeypatch):
    def build(**options):
        images = options.pop("images", folder)
        return build_reference("mine", images, options.pop("tiny", Tiny()), **options)

    before = build().protocol
    if change == "order":
        (folder / "a" / "00.bmp").rename(folder / "a" / "045.bmp")
        after = build()
    elif change == "weights":
        after = build(tiny=Tiny(weights="b" * 64))
    elif change == "resize":
        after = build(tiny=Tiny(resize="another"))
    elif change == "kept":
        after = build(keep_features=29)
    elif change == "decoder":
        monkeypatch.setattr("PIL.__version__", "0.1")
        after = build()
    elif change == "pad":
        after = build(images=ImageSource(folder, pad=16))
    elif change == "code":
        monkeypatch.setattr(reference_build, "_code_sha256", lambda _: "changed")
        after = build()
    else:
        (folder / "d").mkdir()  # the same images in the same order, other classes
        (folder / "c" / "29.bmp").rename(folder / "d" / "29.bmp")
        after = build()
    assert reference_build.protocol_key(after.protocol) != reference_build.protocol_key(before)


def test_a_name_or_a_date_that_changes_is_the_same_reference(folder):
    build_reference("mine", folder, Tiny())
    (folder / "a" / "00.bmp").rename(folder / "a" / "000.bmp")
    os.utime(folder / "a" / "01.bmp", (1, 1))
    tiny = Tiny()
    build_reference("mine", folder, tiny)
    assert tiny.images_seen == 0


def test_an_image_that_changes_while_it_is_being_read_is_noticed(folder, monkeypatch):
    digests = ImageSource.digests

    def change_after(self, progress=None):
        found = digests(self, progress)
        path = folder / "c" / "20.bmp"
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 255
        path.write_bytes(raw)
        return found

    monkeypatch.setattr(ImageSource, "digests", change_after)
    with pytest.raises(UsageError, match=r"20\.bmp: changed while the images were being read"):
        build_reference("mine", folder, Tiny())
    assert built_references() == {}


@pytest.mark.parametrize("damage", ["whole", "broken", "another"])
def test_an_interrupted_build_goes_on_where_it_was(folder, cache, monkeypatch, damage, capsys):
    monkeypatch.setattr(reference_build, "BLOCK", 8)
    monkeypatch.setattr(reference_build, "CHECKPOINT_SECONDS", -1.0)
    expected = build_reference("whole", folder, Tiny())
    tiny = Tiny()
    forward, calls = tiny.forward, []

    def killed(inputs):
        calls.append(1)
        if len(calls) > 4:  # in the third block
            raise MemoryError
        return forward(inputs)

    tiny.forward = killed
    with pytest.raises(MemoryError):
        build_reference("mine", folder, tiny)
    (partial,) = (cache / "partial").iterdir()
    if damage == "broken":
        partial.write_bytes(partial.read_bytes()[:-40])
    elif damage == "another":
        write_arrays(partial, Statistics(3).arrays())
    tiny = Tiny()
    result = build_reference("mine", folder, tiny)
    assert tiny.images_seen == (30 - 16 if damage == "whole" else 30)
    assert result.sha256 == expected.sha256
    assert not list((cache / "partial").iterdir())
    assert ("starting again" in capsys.readouterr().err) == (damage != "whole")


def test_ctrl_c_keeps_what_was_done(folder, cache, monkeypatch):
    monkeypatch.setattr(reference_build, "BLOCK", 8)

    def interrupt(what, done, total):
        if "tiny" in what and done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_reference("mine", folder, Tiny(), progress=interrupt)
    assert built_references() == {}
    tiny = Tiny()
    build_reference("mine", folder, tiny)
    assert tiny.images_seen == 14


def test_a_damaged_file_is_built_again_and_a_failed_write_leaves_the_old_one(
    folder, cache, monkeypatch, capsys
):
    first = build_reference("mine", folder, Tiny())
    path = cache / "mine" / "tiny.npz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255  # in the middle of the arrays: the zip's checksum tells
    path.write_bytes(raw)
    with pytest.raises(UsageError, match="not a readable reference file"):
        load_reference("mine", "tiny")
    assert build_reference("mine", folder, Tiny()).sha256 == first.sha256
    assert "building it again" in capsys.readouterr().err

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maskgit.common.files.os.replace", full)
    with pytest.raises(UsageError, match=r"cannot be written .*No space"):
        build_reference("mine", folder, Tiny(weights="c" * 64))
    assert load_reference("mine", "tiny").sha256 == first.sha256
    assert not list((cache / "mine").glob(".*"))


def test_broken_files_are_an_error_or_counted(folder):
    (folder / "b" / "07.bmp").write_bytes(b"BM")
    (folder / "c" / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"07\.bmp: not a readable image"):
        build_reference("mine", folder, Tiny())
    reference = build_reference("mine", ImageSource(folder, skip_broken=True), Tiny())
    assert (reference.n, len(reference.features)) == (29, 29)
    assert reference.protocol["skipped_images"] == 1
    assert any("07.bmp" in note for note in reference.protocol["notes"])
    assert any("notes.txt" in note for note in reference.protocol["notes"])


def test_without_a_name_it_is_kept_by_content_in_the_images_order(folder, cache):
    one = build_reference(None, folder, Tiny())
    np.testing.assert_array_equal(one.features, Tiny().extract(pixels_of(folder)).features)
    tiny = Tiny()
    build_reference(None, folder, tiny)
    assert tiny.images_seen == 0
    assert built_references() == {}
    assert len(list((cache / "by-content").glob("*.npz"))) == 1


def test_memory_does_not_grow_with_the_number_of_images():
    import tracemalloc

    peaks = []
    for count in (2_000, 16_000):
        images = np.random.default_rng(0).integers(0, 256, (count, 4, 4), dtype=np.uint8)
        tracemalloc.start()
        build_reference(f"r{count}", images, Tiny(), keep_features=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Beside the digests (32 bytes) and the order (8), and their copies, nothing per image.
    assert peaks[1] - peaks[0] < 14_000 * 200


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("../x", {}, "reference name '../x': expected letters"),
        ("", {}, "reference name ''"),
        ("by-content", {}, "reference name 'by-content'"),
        ("mine", {"keep_features": -1}, "--keep-features -1"),
    ],
)
def test_impossible_requests_are_refused(folder, name, options, says):
    with pytest.raises(UsageError, match=says):
        build_reference(name, folder, Tiny(), **options)


def test_a_shipped_reference_is_not_replaced(folder, resnet):
    with pytest.raises(UsageError, match="on fashion-resnet is shipped, choose another name"):
        build_reference("fashion-mnist-train", folder, resnet)
    build_reference("fashion-mnist-train", folder, Tiny())
    assert reference_extractors("fashion-mnist-train") == ["fashion-resnet", "tiny"]
    assert load_reference("fashion-mnist-train").n == 60000
    assert load_reference("fashion-mnist-train", "tiny").n == 30


def test_one_image_is_no_reference(folder):
    with pytest.raises(UsageError, match="at least 2 images, got 1"):
        build_reference("mine", pixels_of(folder)[:1], Tiny())


def test_other_weights_than_the_references_are_refused(folder, monkeypatch):
    build_reference("mine", folder, Tiny(weights="d" * 64))
    with pytest.raises(UsageError, match=r"made with tiny weights dddddddddddd, .* build it again"):
        load_reference("mine", "tiny")


def test_another_resizing_than_the_references_is_refused(folder):
    reference = build_reference("mine", folder, Tiny())
    reference_build.check_protocol(reference, Tiny())
    with pytest.raises(UsageError, match="tiny's resize 'mean of the pixels', now it is 'other'"):
        reference_build.check_protocol(reference, Tiny(resize="other"))


def test_verify_checks_weights_numbers_and_images(folder, cache):
    build_reference("mine", folder, Tiny())
    lines = list(verify_reference("mine", "tiny"))
    assert len(lines) == 3
    assert "are those it was built from" in lines[2]
    assert "not compared" in list(verify_reference("mine", "tiny", "/nowhere"))[2]
    (folder / "a" / "00.bmp").unlink()
    with pytest.raises(UsageError, match="are others"):
        list(verify_reference("mine", "tiny"))
    path = cache / "mine" / "tiny.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "features": arrays["features"] + 1})
    with pytest.raises(UsageError, match="not from the same images as the mean"):
        list(verify_reference("mine", "tiny"))
    np.savez(path, **{**arrays, "cov": -arrays["cov"]})
    with pytest.raises(UsageError, match="negative"):
        list(verify_reference("mine", "tiny"))


def test_the_card_beside_a_reference_says_where_the_images_were(folder, cache):
    build_reference("mine", ImageSource(folder, 20), Tiny())
    card = json.loads((cache / "mine" / "tiny.json").read_text())
    assert (card["images"], card["num_images"], card["chosen_of"]) == (str(folder), 20, 30)
    assert "are those it was built from" in list(verify_reference("mine", "tiny"))[2]
