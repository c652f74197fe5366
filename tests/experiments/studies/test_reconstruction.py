"""Figures 9 and 10: ratio 0 is the tokenizer's own, masks grow into each other."""

import numpy as np
import pytest

from experiments.studies.reconstruction.compute import masks_of
from experiments.studies.reconstruction.experiment import parse_ratios
from maskgit.common.errors import UsageError
from tests.experiments.studies.table_doubles import call, results, value


def test_masks_have_the_size_asked_for_and_grow_into_each_other():
    ids = np.arange(5)
    few, many = masks_of(0, ids, 0.3, 64), masks_of(0, ids, 0.75, 64)
    assert few.sum(axis=1).tolist() == [19] * 5
    assert many.sum(axis=1).tolist() == [48] * 5
    assert not (few & ~many).any()
    assert len({mask.tobytes() for mask in few}) == 5
    assert not masks_of(0, ids, 0.0, 64).any()


def test_ratio_0_is_the_tokenizers_own_and_is_what_another_library_says(weights, tmp_path):
    import torch

    from experiments.sampler.imaging import decode_batches
    from experiments.sampler.likelihood import encode_images
    from maskgit.checkpoints import load_tokenizer
    from maskgit.data.fashion_mnist import load_split

    out = tmp_path / "reconstruction"
    flags = ("--num-samples", 3, "--ratios", "0,0.9", "--masks", 2, "--samples", 3, "--T", 2)
    assert call("reconstruction", *flags, out=out, weights=weights) == 0
    cells = {(r["cell"]["part"], r["cell"].get("ratio")): r for r in results(out)}
    images = load_split("test")[0][:3]
    tokenizer = load_tokenizer(weights / "tokenizer").eval()
    with torch.inference_mode():
        made = np.concatenate(
            list(decode_batches(tokenizer, encode_images(tokenizer, [images]), (8, 8)))
        )
    error = ((images / 255.0 - made / 255.0) ** 2).mean(axis=(1, 2, 3))
    own = cells["curve", 0.0]
    assert value(own, "psnr") == pytest.approx(np.mean(-10 * np.log10(error)), abs=1e-9)
    assert value(own, "agreement") == 1
    assert own["missing"]["agreement_masked"] == "nothing is masked"
    masked = cells["curve", 0.9]
    # round(0.9 * 64) = 58 of 64 are masked, the 6 others are kept.
    share = (6 + 58 * value(masked, "agreement_masked")) / 64
    assert value(masked, "agreement") == pytest.approx(share)


def test_the_median_is_of_the_reconstructions(weights, tmp_path):
    out = tmp_path / "reconstruction"
    flags = ("--num-samples", 1, "--ratios", "0", "--samples", 1, "--T", 1, "--classes", "9")
    assert call("reconstruction", *flags, out=out, weights=weights) == 0
    for result in results(out):
        if result["cell"]["part"] == "median":
            stored = np.load(out / "cells" / result["key"] / "samples.npz")
            assert (stored["medians"] == stored["samples"]).all()
            assert stored["masks"].sum() == round(result["cell"]["ratio"] * 64)


def test_ratios_are_read():
    assert parse_ratios("0,0.9..0.99:0.03,0.5") == [0.0, 0.5, 0.9, 0.93, 0.96, 0.99]
    for text in ("", "1", "0.5..0.1:0.1", "0.1..0.5", "x", "0.1..0.5:0", "0.5:0.1", "-0.1", "nan"):
        with pytest.raises(UsageError, match="--ratios"):
            parse_ratios(text)
