"""Editing: masks against the official notebook's arithmetic, and what must be kept is kept."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from maskgit.checkpoints import load_tokenizer, load_transformer, zoo_path
from maskgit.common.errors import UsageError
from maskgit.data.fashion_mnist import load_split
from maskgit.decoding import generate
from maskgit.sampling import editing, panorama
from maskgit.sampling.editing import Box


@pytest.fixture(scope="module")
def models():
    return load_transformer(zoo_path("transformer-cosine")), load_tokenizer(zoo_path("tokenizer"))


@pytest.fixture(scope="module")
def photos():
    images, labels = load_split("test")
    tensor = torch.from_numpy(images[:3].transpose(0, 3, 1, 2).copy()).float() / 255
    return tensor, torch.from_numpy(labels[:3])


def test_the_latent_box_of_the_official_notebook():
    # Its default: 128_64_256_288 at 512 pixels, cells of 16, each side worked out by hand.
    mask = editing.latent_box(Box(128, 64, 256, 288), (512, 512), 16)
    expected = np.zeros((32, 32), bool)
    expected[128 // 16 - 1 : 256 // 16 + 128 // 16 + 1, 64 // 16 - 1 : 64 // 16 + 288 // 16 + 1] = 1
    assert mask.sum() == 18 * 20
    np.testing.assert_array_equal(mask, expected)


def test_a_box_at_the_edge_grows_inwards_only():
    mask = editing.latent_box(Box(0, 24, 8, 8), (32, 32), 4)
    assert mask[:3, 5:].all()
    assert mask.sum() == 9


@given(
    st.integers(0, 31),
    st.integers(0, 31),
    st.integers(1, 32),
    st.integers(1, 32),
)
def test_a_cell_is_unknown_exactly_when_the_mask_touches_it(top, left, height, width):
    box = Box(top, left, min(height, 32 - top), min(width, 32 - left))
    pixels = editing.box_mask(box, 32, 32)
    touched = {(y // 4, x // 4) for y, x in zip(*np.nonzero(pixels), strict=True)}
    if len(touched) == 64:
        with pytest.raises(UsageError, match="every token"):
            editing.latent_mask(pixels, 4)
    else:
        latent = editing.latent_mask(pixels, 4)
        assert set(zip(*np.nonzero(latent), strict=True)) == touched


@pytest.mark.parametrize(
    ("direction", "where"),
    [
        ("right", np.s_[:, 16:]),
        ("left", np.s_[:, :16]),
        ("top", np.s_[:8]),
        ("bottom", np.s_[8:]),
    ],
)
def test_sides(direction, where):
    mask = editing.side_mask(direction, 16, 32)
    assert mask[where].all()
    assert mask.sum() == 256


def test_the_centre_is_half_of_both_sides():
    mask = editing.center_mask(32, 32)
    assert mask[8:24, 8:24].all()
    assert mask.sum() == 256


def test_blend_weights_are_the_official_ones():
    latent = editing.latent_box(Box(128, 64, 256, 288), (512, 512), 16)
    # inference.py, composite_outputs, for one image
    mask = Image.fromarray(np.uint8(latent * 255.0)).resize((512, 512))
    mask = mask.filter(ImageFilter.GaussianBlur(radius=512 // 16 - 1))
    np.testing.assert_array_equal(
        editing.blend_weights(latent, (512, 512)), np.float32(mask) / np.float32(255)
    )


def test_hiding_takes_the_mean_of_what_is_known():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    hidden = editing.hide(images, mask)
    assert (hidden[0, 0, :2] == 11.5).all()  # the mean of 8..15
    assert torch.equal(hidden[0, 0, 2:], images[0, 0, 2:])


@pytest.mark.parametrize("blend", editing.BLENDS)
def test_pixels_outside_are_kept_bit_by_bit(models, photos, blend):
    images, labels = photos
    pixels = editing.center_mask(32, 32)
    latent = editing.latent_mask(pixels, 4)
    done = editing.edit(*models, images, labels, latent, pixels=pixels, hidden=True, blend=blend)
    outside = torch.from_numpy(done.weights == 0)
    assert outside.sum() >= 400
    assert torch.equal(done.images[..., outside], images[..., outside])
    if blend == "hard":
        np.testing.assert_array_equal(done.weights == 0, ~pixels)
        assert torch.equal(done.images[..., ~outside], done.decoded[..., ~outside])
    assert not torch.equal(done.images, images)


def test_known_tokens_are_kept_and_hidden_pixels_do_not_count(models, photos):
    images, labels = photos
    pixels = editing.side_mask("right", 32, 32)
    latent = editing.latent_mask(pixels, 4)
    settings = {"pixels": pixels, "hidden": True}
    done = editing.edit(*models, images, labels, latent, **settings)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    other = torch.where(torch.from_numpy(pixels), noise, images)
    again = editing.edit(*models, other, labels, latent, **settings)
    assert torch.equal(done.tokens, again.tokens)
    outside = torch.from_numpy(~pixels)
    inside = torch.from_numpy(pixels)
    assert torch.equal(done.images[..., inside], again.images[..., inside])
    assert torch.equal(done.images[..., outside], again.images[..., outside])
    known = torch.from_numpy(~latent.reshape(-1))
    codes = models[1].encode(editing.hide(images, pixels)).flatten(1)
    assert torch.equal(done.tokens[:, known], codes[:, known])
    assert not torch.equal(done.tokens, codes)


def test_an_edit_is_generate_with_the_official_start(models, photos):
    images, labels = photos
    latent = editing.latent_box(Box(8, 8, 8, 8), (32, 32), 4)
    done = editing.edit(*models, images, labels, latent, seed=3)
    codes = models[1].encode(images).flatten(1)
    unknown = torch.from_numpy(latent.reshape(-1))
    codes = codes.masked_fill(unknown, models[0].config.mask_id)
    expected = generate(models[0], labels, steps=12, start=2, seed=3, tokens=codes)
    assert torch.equal(done.tokens, expected)


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 0, 4), (30, 0, 4, 4), (0, 29, 4, 4)])
def test_boxes_outside_are_refused(box):
    with pytest.raises(UsageError, match="inside the image of 32x32"):
        editing.box_mask(Box(*box), 32, 32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: editing.side_mask("up", 32, 32), "right, left, top, bottom"),
        (lambda: editing.side_mask("right", 32, 32, 1.0), "--share 1.0"),
        (lambda: editing.center_mask(32, 32, 0), "--share 0"),
        (lambda: editing.latent_mask(np.ones((30, 32), bool), 4), "multiples of 4"),
        (lambda: editing.latent_mask(np.zeros((32, 32), bool), 4), "covers nothing"),
    ],
)
def test_mistakes_say_what_is_accepted(call, words):
    with pytest.raises(UsageError, match=words):
        call()


# ---- panoramas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [32, 33, 50, 96, 131])
def test_a_panorama_has_its_width_and_keeps_the_input(models, photos, width):
    images, labels = photos
    wide = panorama.extend(*models, images[:1], labels[:1], width, steps=4, start=0)
    assert wide.images.shape == (1, 1, 32, width)
    codes = models[1].encode(images[:1])
    first = wide.left // 4
    assert torch.equal(wide.tokens[..., first : first + 8], codes)
    kept = slice(wide.left + 4, wide.left + 28)
    assert torch.equal(wide.images[..., kept], images[:1, :, :, 4:28])
    assert ((wide.images >= 0) & (wide.images <= 1)).all()


def test_a_window_decodes_what_the_one_before_left_unknown(models, photos):
    images, labels = photos
    wide = panorama.extend(*models, images[:1], labels[:1], 48, steps=4, start=0, seed=7)
    # Four columns more: two at each side, right first.
    part = torch.full((1, 8, 8), models[0].config.mask_id)
    part[..., :6] = models[1].encode(images[:1])[..., 2:]
    right = generate(models[0], labels[:1], steps=4, tokens=part.view(1, -1), seed=7).view(1, 8, 8)
    assert torch.equal(wide.tokens[..., 4:], right)


def test_windows_of_pixels_overlap_without_a_seam_where_they_agree(models):
    class Flat:
        config = models[1].config

        def decode(self, codes):
            return codes[:, None].float().repeat_interleave(4, 2).repeat_interleave(4, 3)

    canvas = torch.arange(21).view(1, 1, 21).expand(1, 2, 21)
    pixels = panorama.decode_row(Flat(), canvas, 8)
    torch.testing.assert_close(pixels[0, 0, 0], torch.arange(21.0).repeat_interleave(4))


@pytest.mark.parametrize(
    ("width", "overlap", "words"), [(31, 0.5, "--width 31"), (64, 1.0, "--overlap 1.0")]
)
def test_panorama_mistakes(models, photos, width, overlap, words):
    images, labels = photos
    with pytest.raises(UsageError, match=words):
        panorama.extend(*models, images, labels, width, overlap=overlap)
