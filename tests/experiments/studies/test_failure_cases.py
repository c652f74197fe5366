"""`failure_cases.py`: worst first, boundaries, PSNR, and counts that add up."""

import numpy as np
import pytest

from eval.metrics.reconstruction import psnr
from experiments import failure_cases
from experiments.studies.failure_cases import compute as study
from tests.experiments.studies.editing_runs import cells_of, embedded_worker, run_script


def test_worst_first_by_the_class_asked_for():
    told = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    assert study.worst_first(told, np.array([0, 0, 1])).tolist() == [1, 2, 0]


def test_the_change_across_the_middle():
    images = np.zeros((1, 4, 4, 1), np.uint8)
    images[:, :, 2:] = 10  # between columns 1 and 2
    images[:, 2:, 0] = 8  # between rows 1 and 2, in one column of four
    for direction, expected in {"right": 10, "left": 10, "top": 2, "bottom": 2}.items():
        assert study.across(images, direction).tolist() == [expected]


def test_psnr_of_a_constant_error_is_its_closed_form():
    original = np.full((2, 8, 8, 1), 100, np.uint8)
    for error in (1, 5, 50):
        expected = 20 * np.log10(255 / error)
        np.testing.assert_allclose(psnr(original, original + np.uint8(error)), expected, rtol=1e-12)


def test_reconstructions_are_the_tokenizer_s_own(tmp_path):
    import torch

    from experiments.studies.filling import reconstruct
    from maskgit.data.fashion_mnist import load_split

    worker, images = embedded_worker(tmp_path), load_split("test")[0][:4]
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.inference_mode():
        decoded = worker.tokenizer.decode(worker.tokenizer.encode(tensor)).clamp(0, 1).numpy()
    ours = reconstruct(worker, images)
    assert np.abs(ours[..., 0] - decoded[:, 0] * 255).max() <= 0.51
    assert psnr(images, ours).mean() > 22


def test_a_run_from_flags_to_counts(monkeypatch, capsys, weights, tmp_path):
    shared = ("--weights", weights, "--out", tmp_path / "run", "--workers", 0)
    flags = ("--T", 2, "--start", 0, "--num-samples", 21, "--seeds", "0,1", "--held-out", 20)
    code, _, err = run_script(monkeypatch, capsys, failure_cases, *shared, *flags)
    assert code == 0, err
    found = cells_of(tmp_path / "run")
    assert len(found) == 2 + 2 + 8
    for cell, result, arrays in found:
        metrics = {name: m["value"] for name, m in result["metrics"].items()}
        if cell["part"] in ("samples", "real"):
            total = {"samples": 21, "real": 20}[cell["part"]]
            assert arrays["of_class"].sum() == total
            assert metrics["disagreement"] == pytest.approx(arrays["wrong_of_class"].sum() / total)
        if cell["part"] == "samples":
            assert (np.diff(arrays["asked_probability"]) >= 0).all()
            assert (arrays["predicted_probability"] >= arrays["asked_probability"]).all()
            assert arrays["images"].shape == (20, 32, 32, 1)
        if cell["part"] == "reconstruction":
            values = psnr(arrays["originals"], arrays["reconstructions"])
            np.testing.assert_allclose(arrays["psnr"], values, rtol=1e-6)
            assert metrics["worst_psnr"] == pytest.approx(values[0])
            assert values[0] == values.min()
        if cell["part"] == "boundary":
            gain = study.across(arrays["images"], cell["direction"])
            gain = gain - study.across(arrays["inputs"], cell["direction"])
            np.testing.assert_allclose(arrays["gains"], gain)
            assert metrics["ratio"] == pytest.approx(metrics["gradient"] / metrics["real_gradient"])
