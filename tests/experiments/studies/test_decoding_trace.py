"""`decoding_trace.py`: what is known after each iteration, counted and shown alike."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import decoding_trace
from tests.experiments.studies.editing_runs import cells_of, run_script
from tests.experiments.studies.table_doubles import with_baseline


def test_the_trace_of_both_samplers(monkeypatch, capsys, weights, tmp_path):
    folder = with_baseline(weights, tmp_path / "weights")
    shared = ("--weights", folder, "--out", tmp_path / "run", "--workers", 0)
    flags = ("--T", 8, "--classes", "3,5")
    code, _, err = run_script(monkeypatch, capsys, decoding_trace, *shared, *flags)
    assert code == 0, err
    found = {
        cell["sampler"]: (result, arrays) for cell, result, arrays in cells_of(tmp_path / "run")
    }
    for result, arrays in found.values():
        frames = len(arrays["iterations"])
        assert arrays["images"].shape == (frames, 2, 32, 32, 1)
        shown = arrays["masked"].reshape(frames, 2, -1).sum(axis=2)
        counted = arrays["unknown"][arrays["iterations"] - 1]
        np.testing.assert_array_equal(shown, np.stack([counted, counted], axis=1))
        assert result["metrics"]["iterations"]["value"] == len(arrays["unknown"])
        assert arrays["unknown"][-1] == 0
    ours, theirs = found["maskgit"][1], found["autoregressive"][1]
    # The official counts, but for the last, where the image is the sample with nothing masked.
    expected = np.floor(np.float32(64) * np.cos(np.pi / 2 * np.arange(1, 8) / 8, dtype=np.float32))
    np.testing.assert_array_equal(ours["unknown"][:-1], expected)
    np.testing.assert_array_equal(theirs["unknown"], np.arange(63, -1, -1))
    assert found["maskgit"][0]["metrics"]["half"]["value"] == 6
    summary = json.loads((tmp_path / "run" / "report" / "summary.json").read_text())
    assert summary["facts"]["kept"] == [2, 3, 6, 8, 10, 11, 12, 12]
    assert summary["verdicts"][0]["verdict"] == "reproduced"
    assert (tmp_path / "run" / "report" / "figure2_animated.gif").stat().st_size > 1000


def test_without_the_baseline_maskgit_is_shown_alone(monkeypatch, capsys, weights, tmp_path):
    shared = ("--weights", weights, "--out", tmp_path / "run", "--workers", 0, "--T", 2)
    code, _, err = run_script(monkeypatch, capsys, decoding_trace, *shared)
    assert code == 0, err
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "The baseline is not there (--weights" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--T", 0), "--T 0: must be at least 1"),
        (("--classes", "11"), "--classes 11: 11 is too large; at most 9"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, weights, tmp_path, flags, words):
    shared = ("--weights", weights, "--out", Path(tmp_path / "run"))
    code, out, err = run_script(monkeypatch, capsys, decoding_trace, *shared, *flags)
    assert (code, out, err) == (2, "", f"error: {words}\n")
