"""A tokenizer alone: rFID and the use of the codebook against their definitions."""

import re

import numpy as np
import pytest
import scipy.stats

from eval.features.registry import get_extractor
from eval.metrics.fid import frechet_distance
from eval.metrics.reconstruction import psnr
from eval.metrics.statistics import Statistics
from maskgit.checkpoints import load_tokenizer
from maskgit.data.fashion_mnist import load_split
from tests.experiments.studies.table_doubles import call, results, value

COUNT = 120  # more than the 20 of conftest, and two batches


def test_all_images_asked_for_are_measured(weights, tmp_path):
    import torch

    flags = ("--tokenizer-only", "--held-out", COUNT)
    assert call("reconstruction", *flags, out=tmp_path / "run", weights=weights) == 0
    (result,) = results(tmp_path / "run")
    assert result["cell"]["num_images"] == COUNT
    assert result["protocol"]["images"] == f"first {COUNT} test images"
    images = load_split("test")[0][:COUNT]
    tokenizer = load_tokenizer(weights / "tokenizer")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        tokens = tokenizer.encode(pixels)
        decoded = tokenizer.decode(tokens).clamp(0, 1).mul(255).round()
    made = decoded.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    extractor = get_extractor("fashion-resnet")
    a, b = (Statistics.of(extractor.extract(side).features) for side in (images, made))
    expected = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    assert value(result, "rfid") == pytest.approx(expected, rel=1e-4)
    assert result["metrics"]["rfid"]["id"] == "rfid.fashion-resnet.v1"
    assert value(result, "psnr") == pytest.approx(psnr(images, made).mean(), rel=1e-4)
    counts = np.bincount(tokens.numpy().ravel(), minlength=512)
    assert value(result, "codes_used") == (counts > 0).mean()
    entropy = scipy.stats.entropy(counts)  # normalises, and leaves the zeros out
    assert value(result, "perplexity") == pytest.approx(np.exp(entropy))
    assert {entry["n"] for entry in result["metrics"].values()} == {COUNT}
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "The tokenizer alone" in text
    assert re.search(rf"\| +{COUNT} \|", text)


def test_table_1_has_a_row_of_the_tokenizer(weights, tmp_path):
    flags = ("--num-samples", 20, "--T", 1, "--cas-samples", 0)
    assert call("class_conditional", *flags, out=tmp_path / "run", weights=weights) == 0
    (found,) = [r for r in results(tmp_path / "run") if r["cell"]["part"] == "tokenizer"]
    assert found["cell"]["num_images"] == 20  # as many as samples
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "rFID" in text
