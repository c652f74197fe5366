"""Folders, archives and arrays as users have them: what is read, what is left out and said, what is
refused in one line."""

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest

from eval.images.source import ImageSource, content_sha256
from maskgit.common import image_file as image_files
from maskgit.common.errors import UsageError
from maskgit.common.image_file import read_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
GREY = COLOUR[..., :1]


def png(array) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(buffer, "png")
    return buffer.getvalue()


def write(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else png(content))


def everything(source, batch_size=4):
    return np.concatenate(list(source.batches(batch_size)))


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_a_zip_gives_the_images_and_classes_of_its_folder(tmp_path):
    names = ["n02/b.PNG", "n01/a.png", "n01/c.png"]
    for i, name in enumerate(names):
        write(tmp_path / "f" / name, COLOUR[i])
    members = [(f"top/{name}", png(COLOUR[i])) for i, name in enumerate(names)]
    folder = ImageSource(tmp_path / "f")
    archive = ImageSource(zip_of(tmp_path / "f.zip", members, zipfile.ZIP_DEFLATED))
    for source in (folder, archive):
        np.testing.assert_array_equal(everything(source), COLOUR[[1, 2, 0]])
        assert source.class_names == ["n01", "n02"]
        assert source.labels.tolist() == [0, 0, 1]
    assert content_sha256(archive.digests()) == content_sha256(folder.digests())
    assert ImageSource(tmp_path / "f", 2).labels.tolist() in ([0, 0], [0, 1])


def test_images_beside_class_folders_have_no_classes(tmp_path):
    write(tmp_path / "a" / "1.png", COLOUR[0])
    write(tmp_path / "2.png", COLOUR[1])
    assert ImageSource(tmp_path).labels is None


def test_a_name_that_is_twice_in_a_zip_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        zip_of(tmp_path / "x.zip", [("a.png", png(COLOUR[0])), ("a.png", png(COLOUR[1]))])
    with pytest.raises(UsageError, match=r"x\.zip: has a\.png twice"):
        ImageSource(tmp_path / "x.zip")


def test_paths_of_a_zip_that_lead_outside_are_read_but_never_written(tmp_path):
    members = [("../../evil.png", png(COLOUR[0])), ("/abs.png", png(COLOUR[1]))]
    source = ImageSource(zip_of(tmp_path / "x.zip", members))
    assert len(everything(source)) == 2
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zip"]
    assert not (tmp_path.parent.parent / "evil.png").exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("maskgit.common.image_sets.MAX_BYTES", 2**20)
    path = zip_of(tmp_path / "x.zip", [("a.png", b"\0" * 2**21)], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(UsageError, match=r"a\.png: more than 1 MiB unpacked"):
        everything(ImageSource(path))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    PIL.Image.new("1", (3000, 1000)).save(tmp_path / "x.png")
    monkeypatch.setattr(image_files, "MAX_PIXELS", 2**20)
    with pytest.raises(UsageError, match=r"x\.png: 3000x1000 pixels, at most 1048576 are read"):
        read_image(tmp_path / "x.png")
    monkeypatch.setattr(image_files, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match=r"x\.png: more than 0 MiB"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("damage", ["text", "cut", "bits", "encrypted"])
def test_a_broken_zip_is_one_line(tmp_path, damage):
    path = zip_of(tmp_path / "x.zip", [("a.png", png(COLOUR[0]))])
    raw = bytearray(path.read_bytes())
    if damage == "text":
        raw = bytearray(b"hello")
    elif damage == "cut":
        raw = raw[: len(raw) // 2]
    elif damage == "bits":
        raw[100] ^= 255
    else:
        for at in (6, raw.index(b"PK\x01\x02") + 8):  # the flag "encrypted", twice in a zip
            raw[at] |= 1
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=r"x\.zip.*not (a readable zip|readable)") as caught:
        everything(ImageSource(path))
    assert "\n" not in str(caught.value)


def test_what_is_left_out_is_said(tmp_path):
    write(tmp_path / "a.png", COLOUR[0])
    write(tmp_path / "._a.png", b"resource fork")
    write(tmp_path / ".thumbs" / "b.png", b"x")
    write(tmp_path / "__MACOSX" / "a.png", b"x")
    write(tmp_path / "README.md", b"hello")
    write(tmp_path / "no_suffix", b"hello")
    source = ImageSource(tmp_path)
    assert len(everything(source)) == 1
    hidden, others = source.describe()["notes"]
    assert "left out 3" in hidden
    assert "hidden (._a.png, .thumbs/b.png, __MACOSX/a.png)" in hidden
    assert "left out 2" in others
    assert "README.md, no_suffix" in others


def test_a_folder_with_other_files_only_says_which(tmp_path):
    write(tmp_path / "notes.txt", b"x")
    with pytest.raises(UsageError, match=r"no images there .*left out 1 .*notes\.txt"):
        ImageSource(tmp_path)
    with pytest.raises(UsageError, match="no images there"):
        ImageSource(zip_of(tmp_path / "x.zip", [("a.txt", b"x")]))


def test_links_are_followed_once_and_a_dead_one_is_an_error(tmp_path):
    write(tmp_path / "elsewhere" / "b.png", COLOUR[1])
    write(tmp_path / "f" / "run" / "a.png", COLOUR[0])
    (tmp_path / "f" / "c.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "f" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "f" / "run" / "loop").symlink_to(tmp_path / "f")
    (tmp_path / "f" / "run2").symlink_to(tmp_path / "f" / "run")
    source = ImageSource(tmp_path / "f")
    np.testing.assert_array_equal(everything(source), COLOUR[[1, 1, 0]])
    assert any("links to folders that are read anyway" in note for note in source.notes)
    (tmp_path / "f" / "dead.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"dead\.png: not a readable image .*No such file"):
        everything(ImageSource(tmp_path / "f"))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.png: not a file"):
        everything(ImageSource(tmp_path))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_animation_is_refused_and_a_still_one_read(tmp_path, suffix):
    frames = [PIL.Image.fromarray(COLOUR[i]).quantize(16) for i in range(3)]
    if suffix != ".gif":
        frames = [frame.convert("RGB") for frame in frames]
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(UsageError, match=r"3 frames \(animated\?\), expected one image"):
        read_image(tmp_path / f"x{suffix}")
    frames[0].save(tmp_path / f"still{suffix}")
    assert read_image(tmp_path / f"still{suffix}").shape == (8, 10, 3)


def png16(colour_type, channels):
    """A 16-bit PNG of the values 0, 257, 32896, 65535 in every channel (alpha: opaque)."""
    values = np.repeat(np.array([0, 257, 32896, 65535], ">u2")[:, None], channels, 1)
    if colour_type in (4, 6):
        values[:, -1] = 65535

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 4, 1, 16, colour_type, 0, 0, 0)
    data = zlib.compress(b"\0" + values.tobytes())
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_every_kind_are_scaled(tmp_path, colour_type, channels):
    write(tmp_path / "x.png", png16(colour_type, channels))
    image = read_image(tmp_path / "x.png")
    assert (image[0] == np.array([[0], [1], [128], [255]])).all()


def test_broken_files_are_skipped_only_when_asked_and_counted(tmp_path):
    for i in range(6):
        write(tmp_path / f"{i}.png", COLOUR[i])
    write(tmp_path / "2.png", b"\x89PNG")
    clear = np.dstack([COLOUR[4], np.zeros((8, 10), np.uint8)])
    PIL.Image.fromarray(clear).save(tmp_path / "4.png")
    with pytest.raises(UsageError, match=r"2\.png: not a readable image"):
        everything(ImageSource(tmp_path))
    source = ImageSource(tmp_path, skip_broken=True)
    np.testing.assert_array_equal(everything(source), COLOUR[[0, 1, 3, 5]])
    assert set(source.skipped) == {2, 4}
    (note,) = source.describe()["notes"]
    assert "skipped 2" in note
    assert "2.png: not a readable image" in note
    assert "4.png: has transparent pixels" in note


def test_a_folder_of_broken_files_only_is_an_error_even_then(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.png", b"x")
    with pytest.raises(UsageError, match=r"none of its 3 images can be used .*0\.png"):
        list(ImageSource(tmp_path, skip_broken=True).batches(2))


def test_mixed_sizes_come_in_batches_of_one_size_where_they_are_allowed(tmp_path):
    for i, size in enumerate([8, 8, 5, 5, 8]):
        write(tmp_path / f"{i}.png", COLOUR[i, :size])
    source = ImageSource(tmp_path, any_size=True)
    assert [batch.shape[:2] for batch in source.batches(3)] == [(2, 8), (2, 5), (1, 8)]
    (note,) = source.describe()["notes"]
    assert "images of 2 sizes (10x5 to 10x8), each resized on its own" in note


def idx(array) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_with_their_labels(tmp_path, zipped):
    suffix, pack = (".gz", gzip.compress) if zipped else ("", bytes)
    images = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    write(images, pack(idx(GREY[..., 0])))
    assert ImageSource(images).labels is None
    write(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", pack(idx(np.arange(6, dtype=np.uint8))))
    source = ImageSource(images)
    np.testing.assert_array_equal(everything(source), GREY)
    assert source.labels.tolist() == [0, 1, 2, 3, 4, 5]
    padded = everything(ImageSource(images, pad=12))
    assert padded.shape == (6, 12, 12, 1)
    np.testing.assert_array_equal(padded[:, 2:10, 1:11], GREY)
    assert padded.sum() == GREY.sum()
    with pytest.raises(UsageError, match="10x8 pixels do not fit into --pad 9"):
        everything(ImageSource(images, pad=9))


@pytest.mark.parametrize("damage", ["cut", "long", "floats", "text", "labels", "gzip"])
def test_idx_files_that_are_broken_are_one_line(tmp_path, damage):
    good = idx(GREY[..., 0])
    content = {
        "cut": good[:-1],
        "long": good + b"x",
        "floats": good[:2] + b"\x0d" + good[3:],
        "text": b"hello",
        "labels": good,
        "gzip": gzip.compress(good)[:-20],
    }[damage]
    write(tmp_path / "x-images-idx3-ubyte", content)
    if damage == "labels":
        write(tmp_path / "x-labels-idx1-ubyte", idx(np.arange(5, dtype=np.uint8)))
    with pytest.raises(UsageError, match=r"IDX file|5 labels for 6 images") as caught:
        ImageSource(tmp_path / "x-images-idx3-ubyte")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_row_by_row_with_its_labels(tmp_path, save):
    images = np.random.default_rng(0).integers(0, 256, (400, 64, 64, 3), dtype=np.uint8)
    save(tmp_path / "x.npz", images, np.arange(400) % 7)
    tracemalloc.start()
    source = ImageSource(tmp_path / "x.npz")
    for i, batch in enumerate(source.batches(10)):
        np.testing.assert_array_equal(batch, images[10 * i : 10 * i + 10])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes / 4
    assert source.labels.tolist() == (np.arange(400) % 7).tolist()
    again = next(source.batches(3, start=5))  # backwards too
    np.testing.assert_array_equal(again, images[5:8])


def test_an_npz_damaged_in_the_middle_names_the_image(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "x.npz", images)
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 50] = b"\xff" * 50
    (tmp_path / "x.npz").write_bytes(raw)
    with pytest.raises(UsageError, match=r"x\.npz(\[\d+\])?: not (readable|a readable array)"):
        everything(ImageSource(tmp_path / "x.npz"))


def test_array_files_with_odd_layouts_are_refused_with_what_to_do(tmp_path):
    np.savez(tmp_path / "f.npz", np.asfortranarray(COLOUR))
    with pytest.raises(UsageError, match="Fortran"):
        ImageSource(tmp_path / "f.npz")
    np.savez(tmp_path / "c.npz", np.moveaxis(COLOUR, 3, 1).copy())
    with pytest.raises(UsageError, match=r"channels last \(numpy.moveaxis\(images, 1, 3\)\)"):
        ImageSource(tmp_path / "c.npz")
    np.savez(tmp_path / "l.npz", COLOUR, np.arange(5))
    with pytest.raises(UsageError, match="5 labels for 6 images"):
        ImageSource(tmp_path / "l.npz")


def test_an_array_in_memory_is_a_source(tmp_path):
    source = ImageSource(COLOUR, labels=np.arange(6))
    np.testing.assert_array_equal(everything(source), COLOUR)
    np.save(tmp_path / "x.npy", COLOUR)
    same = ImageSource(tmp_path / "x.npy")
    assert content_sha256(source.digests()) == content_sha256(same.digests())
    with pytest.raises(UsageError, match="expected uint8"):
        ImageSource(COLOUR.astype(float))


@pytest.mark.parametrize("pad", [0, -4, 100_000])
def test_impossible_paddings_are_refused(pad):
    with pytest.raises(UsageError, match=f"--pad {pad}"):
        ImageSource(COLOUR, pad=pad)
