"""`python -m maskgit`: what it writes, and one line for every mistake."""

import numpy as np
import pytest
from PIL import Image

from maskgit.__main__ import main
from maskgit.data.fashion_mnist import load_split


@pytest.fixture
def photo(tmp_path):
    """The first test image, an ankle boot, as 28x28 pixels."""
    path = tmp_path / "boot.png"
    Image.fromarray(load_split("test")[0][0, 2:30, 2:30, 0]).save(path)
    return path


def test_a_sheet_of_samples(tmp_path, capsys):
    main(
        [
            "sample",
            "--class",
            "bag,3",
            "--num",
            "3",
            "--T",
            "4",
            "--output",
            f"{tmp_path}/s.png",
        ]
    )
    assert capsys.readouterr().out == f"{tmp_path}/s.png\n"
    assert Image.open(tmp_path / "s.png").size == (3 * 34 - 2, 2 * 34 - 2)


def test_separate_files_are_the_sheet(tmp_path, capsys):
    words = [
        "sample",
        "--class",
        "1",
        "--num",
        "2",
        "--T",
        "2",
        "--output",
        f"{tmp_path}/s.png",
    ]
    main(words)
    main([*words, "--separate"])
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    for number in range(2):
        image = np.asarray(Image.open(tmp_path / f"s-{number}.png"))
        np.testing.assert_array_equal(image, sheet[:, 34 * number : 34 * number + 32])


def test_outpainting_keeps_the_known_half(tmp_path, photo):
    out = tmp_path / "new" / "wide.png"
    words = ["outpaint", "--input", str(photo), "--class", "9", "--blend", "hard"]
    main([*words, "--output", str(out)])
    whole, boot = np.asarray(Image.open(out)), load_split("test")[0][0, :, :, 0]
    np.testing.assert_array_equal(whole[:, :16], boot[:, :16])
    assert (whole[:, 16:] != boot[:, 16:]).any()
    assert [p.name for p in out.parent.iterdir()] == ["wide.png"]


def test_a_box_is_in_the_pixels_of_the_photo(tmp_path, photo, capsys):
    # Twice as large and off the square: the same box, moved and doubled, is the same edit.
    large = Image.new("L", (96, 64))
    large.paste(Image.fromarray(load_split("test")[0][0, :, :, 0]).resize((64, 64), 0), (16, 0))
    large.save(tmp_path / "large.png")
    for name, box, file in (
        ("a", "6,6,12,12", photo),
        ("b", "16,32,24,24", tmp_path / "large.png"),
    ):
        words = ["inpaint", "--input", str(file), "--box", box, "--class", "9", "--blend", "hard"]
        main([*words, "--output", f"{tmp_path}/{name}.png"])
    assert "central square" in capsys.readouterr().err
    a, b = (np.asarray(Image.open(tmp_path / f"{name}.png"), int) for name in "ab")
    outside = np.ones((32, 32), bool)
    outside[8:20, 8:20] = False
    assert np.abs(a - b)[outside].mean() < 12  # scaled up and down again


def test_mask_image_and_panorama(tmp_path, photo):
    mask = np.zeros((28, 28), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["--input", str(photo), "--class", "ankle boot"]
    main(["inpaint", *words, "--mask", f"{tmp_path}/mask.png", "--blend", "hard", "--output",
          f"{tmp_path}/i.png"])  # fmt: skip
    boot = load_split("test")[0][0, :, :, 0]
    filled = np.asarray(Image.open(tmp_path / "i.png"))
    np.testing.assert_array_equal(filled[12:], boot[12:])
    main(["panorama", *words, "--width", "70", "--steps", "3", "--start", "0", "--output",
          f"{tmp_path}/p.png"])  # fmt: skip
    assert Image.open(tmp_path / "p.png").size == (70, 32)


def test_photos_of_every_kind(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (40, 30, 4), np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(rgba[..., :3]).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(rgba[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("alpha.png", "cmyk.jpg", "deep.png"):
        main(["outpaint", "--input", f"{tmp_path}/{name}", "--T", "3", "--class", "0",
              "--output", f"{tmp_path}/out-{name}.png"])  # fmt: skip
        assert Image.open(tmp_path / f"out-{name}.png").size == (32, 32)
    assert "put on white" in capsys.readouterr().err


MISTAKES = [
    (["edit", "--box", "8,8,8"], "--box 8,8,8: expected TOP,LEFT,HEIGHT,WIDTH"),
    (["edit", "--box", "20,20,20,20"], "inside the image of 28x28"),
    (["edit", "--box", "0,0,28,28"], "covers every token"),
    (["inpaint", "--mask", "boot.png", "--class", "shoe"], "--class shoe: 'shoe' is not one of"),
    (["inpaint", "--mask", "none.png"], "--mask none.png: no such file"),
    (["inpaint", "--share", "1.5"], "--share 1.5"),
    (["outpaint", "--direction", "up"], "--direction up: expected one of right"),
    (["outpaint", "--blend", "soft"], "--blend soft: expected one of gaussian, hard"),
    (["outpaint", "--start", "12"], "start"),
    (["outpaint", "--steps", "0"], "steps"),
    (["outpaint", "--schedule", "cosin"], "cosin"),
    (["outpaint", "--preset", "embeded"], "--preset embeded"),
    (["outpaint", "--num", "0"], "--num 0: expected at least 1"),
    (["outpaint", "--device", "cuda:99"], "--device cuda:99"),
    (["panorama", "--width", "8"], "--width 8"),
    (["panorama"], "--width"),
    (["panorama", "--wide", "8"], "--width"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda x: str(x)[:40])
def test_one_line_for_a_mistake(tmp_path, photo, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*words, "--input", "boot.png", "--output", "out.png"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not said.out
    assert [p.name for p in tmp_path.iterdir()] == ["boot.png"]


def test_a_broken_photo_and_a_wrong_output(tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    for words, message in [
        (["--input", f"{tmp_path}/broken.png", "--output", f"{tmp_path}/o.png"], "not a readable"),
        (["--input", f"{tmp_path}/none.png", "--output", f"{tmp_path}/o.png"], "no such file"),
        (["--input", f"{tmp_path}/none.png", "--output", f"{tmp_path}/o.jpg"], "a PNG file"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(["outpaint", *words])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
