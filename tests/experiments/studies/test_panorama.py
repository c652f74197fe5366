"""`panorama.py`: where seams are, how gradients are measured, what a run stores."""

import numpy as np
import pytest

from experiments import panorama
from experiments.studies.panorama import compute as study
from tests.experiments.studies.editing_runs import cells_of, report_of, run_script


def test_gradients_of_a_ramp_and_of_an_edge():
    ramp = np.tile(np.arange(0, 40, 4, dtype=np.uint8), (2, 3, 1))[..., None]
    np.testing.assert_array_equal(study.column_gradients(ramp), [[0] + [4] * 9] * 2)
    edge = np.zeros((1, 4, 6, 3), np.uint8)
    edge[:, :2, 3:] = 100  # in half of the rows
    np.testing.assert_array_equal(study.column_gradients(edge), [[0, 0, 0, 50, 0, 0]])


def test_seams_are_the_input_s_edges_and_every_window_outwards():
    """4 times 32 pixels, tokens of 4, windows of 8 tokens that overlap by half."""
    found = study.boundaries(128, 32, 4, 48, 0.5)
    assert found["seams"].tolist() == [16, 32, 48, 80, 96, 112]
    inside = set(range(49, 80))
    rest = set(range(4, 128, 4)) - {16, 32, 48, 80, 96, 112} - inside
    assert set(found["tokens"].tolist()) == rest


def test_windows_are_where_extend_decodes_them(monkeypatch):
    """Every seam is an end of what was known when a window was decoded."""
    from maskgit.sampling.panorama import _outward

    for overlap in (0.25, 0.5, 0.75):
        known, window, missing = round(overlap * 8), 8, 24
        low, high, ends = 12, 20, {12, 20}
        for left in _outward(12, window, missing + window, window - known):
            low, high = min(low, left), max(high, left + window)
            ends |= {low, high} - {0, 32}
        found = study.boundaries(128, 32, 4, 48, overlap)
        assert (found["seams"] // 4).tolist() == sorted(ends)


def test_a_seam_is_a_local_peak():
    gradients = np.array([0, 1, 1, 3, 1, 1, 1, 1.0])
    found = study.peaks(gradients, np.array([3]), "seams")
    assert found == {"seams": 3, "seams_beside": 1, "seams_ratio": 3}
    assert study.peaks(gradients, np.array([6]), "x")["x_beside"] == 1  # three neighbours


def test_a_run_keeps_the_input_and_measures_what_it_shows(monkeypatch, capsys, weights, tmp_path):
    from maskgit.data.fashion_mnist import load_split

    shared = ("--weights", weights, "--out", tmp_path / "run", "--workers", 0)
    flags = ("--factors", "2,3", "--T", 1, "--start", 0, "--num-samples", 2)
    labels = load_split("test")[1][:2]
    classes = ("--classes", ",".join(map(str, sorted(labels.tolist()))))
    code, _, err = run_script(monkeypatch, capsys, panorama, *shared, *flags, *classes)
    assert code == 0, err
    inputs = load_split("test")[0]
    for cell, result, arrays in cells_of(tmp_path / "run"):
        wide, left = arrays["images"], int(arrays["left"])
        assert wide.shape == (2, 32, cell["factor"] * 32, 1)
        middle = slice(left + 4, left + 28)  # a token at each edge is faded
        np.testing.assert_array_equal(wide[:, :, middle], inputs[cell["shown"]][:, :, 4:28])
        # Both measured images are shown, so that the numbers follow from the pictures.
        gradients = study.column_gradients(wide).mean(axis=0)
        np.testing.assert_allclose(arrays["gradients"], gradients, rtol=1e-12)
        seams = gradients[arrays["seams"]].mean()
        assert result["metrics"]["seams"]["value"] == pytest.approx(seams)
        ratio = seams / result["metrics"]["seams_beside"]["value"]
        assert result["metrics"]["ratio"]["value"] == pytest.approx(ratio)
    page = report_of(tmp_path / "run")
    code, _, err = run_script(monkeypatch, capsys, panorama, *shared, "--only-report")
    assert code == 0, err
    assert report_of(tmp_path / "run") == page


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--factors", "1"), "--factors 1: 1 is too small"),
        (("--overlap", "1"), "--overlap 1.0: expected a share between 0 and 1"),
        (("--start", "-1"), "--start -1: must be from 0 to 11, below --T"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, weights, tmp_path, flags, words):
    shared = ("--weights", weights, "--out", tmp_path / "run")
    code, out, err = run_script(monkeypatch, capsys, panorama, *shared, *flags)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1
