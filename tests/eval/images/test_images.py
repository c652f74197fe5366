"""Reading images: every kind of folder and file gets the right treatment or one clear line."""

import numpy as np
import PIL.Image
import pytest

from eval.images.source import ImageSource
from maskgit.common.errors import UsageError
from maskgit.common.image_file import read_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8, 10, 1), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path)


def everything(source, batch_size=4):
    return np.concatenate(list(source.batches(batch_size)))


def test_nested_folders_are_read_in_the_order_of_their_paths(tmp_path):
    for i, name in enumerate(["b/1.png", "a/2.PNG", "a/deep/0.png", "c.png"]):
        save(tmp_path / name, COLOUR[i])
    (tmp_path / "a" / "labels.txt").write_text("not an image")
    source = ImageSource(tmp_path)
    assert len(source) == 4
    np.testing.assert_array_equal(everything(source), COLOUR[[1, 2, 0, 3]])
    np.testing.assert_array_equal(everything(source, 1), COLOUR[[1, 2, 0, 3]])


@pytest.mark.parametrize("images", [GREY, COLOUR])
@pytest.mark.parametrize("kind", ["npz", "npy", "ours"])
def test_array_files_give_their_images(tmp_path, images, kind):
    path = tmp_path / ("x.npy" if kind == "npy" else "x.npz")
    if kind == "npy":
        np.save(path, images)
    elif kind == "npz":
        np.savez(path, images, np.arange(6))  # arr_0 and arr_1, as ADM writes them
    else:
        np.savez(path, images=images, labels=np.arange(6))
    np.testing.assert_array_equal(everything(ImageSource(path)), images)


def test_an_array_of_grey_images_may_lack_the_channel(tmp_path):
    np.save(tmp_path / "x.npy", GREY[..., 0])
    np.testing.assert_array_equal(everything(ImageSource(tmp_path / "x.npy")), GREY)


def test_a_part_is_drawn_over_the_whole_folder_and_is_the_same_each_time(tmp_path):
    images = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)
    np.save(tmp_path / "x.npy", images)
    chosen = everything(ImageSource(tmp_path / "x.npy", 20))[:, 0, 0, 0]
    assert len(set(chosen)) == 20
    assert (np.diff(chosen.astype(int)) > 0).all()
    assert chosen.max() > 50
    np.testing.assert_array_equal(
        everything(ImageSource(tmp_path / "x.npy", 20))[:, 0, 0, 0], chosen
    )


def test_grey_stays_grey_and_becomes_colour_beside_colour(tmp_path):
    save(tmp_path / "a.png", GREY[0])
    save(tmp_path / "b.png", GREY[1])
    np.testing.assert_array_equal(everything(ImageSource(tmp_path)), GREY[:2])
    save(tmp_path / "c.png", COLOUR[0])
    mixed = everything(ImageSource(tmp_path))
    np.testing.assert_array_equal(mixed[2], COLOUR[0])
    np.testing.assert_array_equal(mixed[0], GREY[0].repeat(3, axis=2))


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    wide = np.array([[0, 257, 32896, 65535]], np.uint16)
    PIL.Image.fromarray(wide).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png")[..., 0], [[0, 1, 128, 255]])


def test_alpha_is_dropped_where_it_hides_nothing_and_refused_where_it_does(tmp_path):
    opaque = np.dstack([COLOUR[0], np.full((8, 10), 255, np.uint8)])
    PIL.Image.fromarray(opaque).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), COLOUR[0])
    grey = PIL.Image.fromarray(GREY[0, ..., 0])
    grey.putalpha(255)
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), GREY[0])
    opaque[3, 3, 3] = 254
    PIL.Image.fromarray(opaque).save(tmp_path / "clear.png")
    with pytest.raises(UsageError, match=r"clear\.png: has transparent pixels"):
        read_image(tmp_path / "clear.png")


def test_palettes_cmyk_and_black_and_white_are_converted(tmp_path):
    flat = PIL.Image.new("RGB", (10, 8), (200, 30, 60))
    flat.quantize(4).save(tmp_path / "palette.png")
    flat.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    PIL.Image.new("1", (10, 8), 1).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png")[0, 0], [200, 30, 60])
    cmyk = read_image(tmp_path / "cmyk.jpg").astype(int)
    assert np.abs(cmyk - [200, 30, 60]).max() <= 3
    assert (read_image(tmp_path / "bits.png") == np.full((8, 10, 1), 255)).all()


def test_floating_point_and_32_bit_images_are_refused(tmp_path):
    PIL.Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tiff")
    PIL.Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(UsageError, match="floating-point"):
        read_image(tmp_path / "f.tiff")
    with pytest.raises(UsageError, match="beyond 16 bits"):
        read_image(tmp_path / "i.tiff")


def test_mixed_sizes_name_the_file_and_both_sizes(tmp_path):
    save(tmp_path / "a.png", COLOUR[0])
    save(tmp_path / "b.png", COLOUR[1, :4])
    for batch_size in (1, 2):
        with pytest.raises(UsageError, match=r"b\.png: 10x4 pixels, .* have 10x8"):
            everything(ImageSource(tmp_path), batch_size)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_broken_file_is_one_line_with_its_name(tmp_path, damage):
    save(tmp_path / "a.png", COLOUR[0])
    whole = (tmp_path / "a.png").read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.png: not a readable image") as caught:
        everything(ImageSource(tmp_path))
    assert "\n" not in str(caught.value)


def test_places_without_images_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no images there"):
        ImageSource(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        ImageSource(tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(UsageError, match="another kind of file"):
        ImageSource(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 3, 4, 4), np.uint8), "expected uint8"),
        (np.zeros((2, 4, 4, 3)), "float64 .* expected uint8"),
        (np.zeros((0, 4, 4, 3), np.uint8), "empty array"),
        (np.array([{}], dtype=object), "not a readable array file"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, array, says):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UsageError, match=says):
        ImageSource(tmp_path / "x.npy")


def test_array_files_without_images_or_cut_short_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    with pytest.raises(UsageError, match="has mu, sigma, expected arr_0"):
        ImageSource(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", GREY)
    (tmp_path / "y.npz").write_bytes((tmp_path / "y.npz").read_bytes()[:200])
    with pytest.raises(UsageError, match=r"y\.npz: not a readable array file"):
        ImageSource(tmp_path / "y.npz")


@pytest.mark.parametrize("number", [0, -1, 7])
def test_more_images_than_there_are_or_none_are_refused(tmp_path, number):
    np.save(tmp_path / "x.npy", GREY)
    with pytest.raises(UsageError, match=f"--num-images {number}: expected 1 to 6"):
        ImageSource(tmp_path / "x.npy", number)


def test_a_batch_size_of_zero_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", GREY)
    with pytest.raises(UsageError, match="--batch-size 0"):
        list(ImageSource(tmp_path / "x.npy").batches(0))
