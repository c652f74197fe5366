"""Labels that do not collide, ticks that a person would write, pixels that stay pixels."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from PIL import Image
from scipy.optimize import minimize

from reports.figures.curves import curves_against_steps, nice_ticks, steps_axis
from reports.figures.pictures import GAP, LEFT, TOP, Strip, Tile, picture_grid
from reports.figures.style import STYLES, darker, house_style, new_canvas, spread, style_of
from reports.means import Mean, and_list, number, ranges
from reports.tables import csv_text, text_table

places = st.lists(st.floats(0, 1), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(places)
def test_spread_labels_keep_their_order_their_gap_and_the_axes(wanted: list[float]):
    placed = spread(wanted, 0.06, 0.0, 1.0)
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    ordered = [placed[i] for i in order]
    assert all(b - a >= 0.06 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert min(placed) >= -1e-9
    assert max(placed) <= 1 + 1e-9


def test_labels_with_room_stay_where_they_are():
    assert spread([0.9, 0.1, 0.5], 0.1, 0, 1) == pytest.approx([0.9, 0.1, 0.5])
    assert spread([], 0.1, 0, 1) == []


def test_spread_is_the_least_squares_solution():
    wanted = [0.30, 0.32, 0.33, 0.60, 0.62, 0.45]
    order = np.argsort(wanted)
    gaps = [
        {"type": "ineq", "fun": lambda y, a=a, b=b: y[b] - y[a] - 0.06}
        for a, b in itertools.pairwise(order)
    ]
    oracle = minimize(lambda y: np.sum((y - wanted) ** 2), wanted, constraints=gaps)
    assert spread(wanted, 0.06, 0.0, 1.0) == pytest.approx(oracle.x.tolist(), abs=1e-4)


def test_too_many_labels_share_the_room():
    placed = spread([0.5] * 5, 0.4, 0.0, 1.0)
    assert placed == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_the_seven_styles_differ_in_colour_dashes_and_marker():
    assert len({style.color for style in STYLES.values()}) == 7
    assert len({str(style.dashes) for style in STYLES.values()}) >= 6
    assert len({style.marker for style in STYLES.values()}) == 7
    assert style_of("pow3", ["cosine", "arccos", "pow3"]) != style_of("arccos", ["arccos", "pow3"])


@pytest.mark.parametrize("name", list(STYLES))
def test_letters_have_the_contrast_of_wcag_aa(name: str):
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    assert 1.05 / (luminance(darker(STYLES[name].color)) + 0.05) >= 4.45


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        (range(4, 61), ["4", "8", "16", "32", "60"]),
        ([4, 8, 12, 16, 32, 60], ["4", "8", "12", "16", "32", "60"]),
        ([4, 8, 16], ["4", "8", "16"]),
        ([8], ["8"]),
        (range(1, 257), ["1", "2", "4", "8", "16", "32", "64", "128", "256"]),
    ],
)
def test_the_axis_of_T_has_plain_ticks(steps, labels):
    with house_style():
        ax = new_canvas(4, 3).add_subplot()
        steps_axis(ax, list(steps))
        assert [label.get_text() for label in ax.get_xticklabels()] == labels


@pytest.mark.parametrize(("low", "high"), [(3.5, 42.0), (3.9, 6.0), (0.02, 3.0), (1, 5000)])
def test_nice_ticks_are_few_and_inside(low: float, high: float):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert low <= min(ticks)
    assert max(ticks) <= high


@pytest.mark.parametrize(("worst", "logarithmic"), [(6.0, False), (30.0, True)])
def test_one_bad_schedule_makes_the_axis_logarithmic(worst: float, logarithmic: bool):
    curves = {"cosine": {4: Mean(4.5, 0.1, 3), 8: Mean(4.0, 0.1, 3)}}
    curves["logarithmic"] = {4: Mean(worst, 0.1, 3), 8: Mean(worst, float("nan"), 1)}
    with house_style():
        ax = new_canvas(6, 4).add_axes((0.1, 0.1, 0.7, 0.8))
        assert curves_against_steps(ax, curves, list(curves)) is logarithmic
        assert (ax.get_yscale() == "log") is logarithmic
        drawn = {text.get_text() for text in ax.texts}
    assert drawn == {"cosine", "logarithmic"}


@pytest.mark.parametrize(("steps", "bands"), [(range(4, 61), 1), ([4, 8, 16], 0)])
def test_dense_curves_have_bands_and_sparse_ones_bars(steps, bands: int):
    curve = {T: Mean(4 + T / 60, 0.1, 3) for T in steps}
    with house_style():
        ax = new_canvas(6, 4).add_axes((0.1, 0.1, 0.7, 0.8))
        curves_against_steps(ax, {"cosine": curve}, ["cosine"])
        filled = [c for c in ax.collections if isinstance(c, PolyCollection)]
        assert (len(filled), len(ax.containers)) == (bands, 1 - bands)
        marked = ax.lines[0].get_markevery()
    assert len(marked) == (9 if bands else 3)


def pixels(figure) -> np.ndarray:
    with house_style():
        out = io.BytesIO()
        figure.canvas.savefig(out, format="png", dpi=figure.dpi)
    return np.asarray(Image.open(out).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_enlarged_three_times_without_smoothing(channels: int):
    """Grey images are inverted: dark on light; colours stay."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, channels), np.uint8) for _ in range(2)]
    strips = [Strip("T = 4\nfew", [Tile(image) for image in images])]
    figure = picture_grid("s", "alt", strips, ["shirt", "bag"])
    sheet = pixels(figure)
    assert sheet.shape == (TOP + 96 + GAP, LEFT + 2 * (96 + GAP), 3)
    for column, image in enumerate(images):
        x = LEFT + column * (96 + GAP)
        shown = sheet[TOP : TOP + 96, x : x + 96]
        want = np.repeat(255 - image, 3, axis=-1) if channels == 1 else image
        np.testing.assert_array_equal(shown, want.repeat(3, axis=0).repeat(3, axis=1))


def test_large_samples_are_averaged_to_tiles():
    image = np.zeros((256, 256, 3), np.uint8)
    image[:, 128:] = 200
    figure = picture_grid("s", "alt", [Strip("a", [Tile(image)])], ["one"])
    sheet = pixels(figure)
    assert sheet.shape[0] < 200
    assert sheet[TOP + 20, LEFT + 10].tolist() == [0, 0, 0]
    assert sheet[TOP + 20, LEFT + 75].tolist() == [200, 200, 200]


# ---- tables -------------------------------------------------------------------------------------


def test_numbers_have_fixed_decimals_and_no_negative_zero():
    assert number(-0.001, 2) == "0.00"
    assert number(float("nan"), 2) == "–"
    assert Mean(3.894, 0.051, 3).words(2) == "3.89 ± 0.05"
    assert Mean(3.894, float("nan"), 1).words(2) == "3.89"
    rows = [[1.5, None, float("nan"), "a,b", 3]]
    assert csv_text(["a", "b", "c", "d", "e"], rows) == 'a,b,c,d,e\n1.500000,,,"a,b",3\n'


def test_ranges_join_neighbours_of_what_ran():
    assert ranges([8, 9, 10, 12], range(4, 61)) == "8-10, 12"
    assert ranges([8, 16], [4, 8, 16, 32]) == "8-16"
    assert ranges([], [4]) == ""
    assert and_list(["a", "b", "c"]) == "a, b and c"
    assert and_list(["a"]) == "a"


def test_tables_escape_what_their_format_reads():
    table = text_table("t", ["A|b", "n_1"], [["x|y & 50%", "1 ± 2"]])
    markdown = table.to_markdown().splitlines()
    assert markdown[0].startswith("| A\\|b ")
    assert "x\\|y \\& 50%" in markdown[2]
    assert len({len(line) for line in markdown}) == 1
    assert r"x|y \& 50\% & 1 $\pm$ 2 \\" in table.to_latex()
    assert r"n\_1" in table.to_latex()
