"""Figures 9 and 10: held-out images whose tokens are masked at random and decoded again.

A cell is one of

- curve: a mask ratio and a seed; PSNR, SSIM, LPIPS and the share of equal tokens between held-out
  images and their reconstructions, over several masks an image, and PSNR between reconstructions of
  one image from two masks. Ratio 0 masks nothing: the tokenizer's own reconstruction.
- tokenizer: rFID and more of the tokenizer alone, see experiments/studies/tokenizer.py;
- median: a mask ratio; of a few images one mask, one reconstruction, and the pixelwise median over
  many masks.

round(ratio N) tokens are masked, those with the lowest noise of the image and the mask: a smaller
ratio masks a part of what a larger one does. MaskGIT's iterative decoding starts from the rest, as
in the paper's appendix A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eval.metrics.reconstruction import psnr, reconstruction, summarize, token_agreement
from experiments.engine.cells import Outcome
from experiments.engine.own_metrics import own_metric
from experiments.sampler.likelihood import encode_images
from experiments.sampler.worker import Worker
from experiments.studies import tokenizer
from experiments.studies.tokenizer import LPIPS_NET, compute_tokenizer, load_lpips
from maskgit.sampling.noise import position_uniforms

if TYPE_CHECKING:
    from torch import Tensor


METRICS = (
    *tokenizer.METRICS,
    own_metric("reconstruction", "agreement", "Equal tokens", 3, "higher"),
    own_metric("reconstruction", "agreement_masked", "Equal tokens of the masked", 3, "higher"),
    own_metric("reconstruction", "between", "PSNR between two masks", 2, "higher", "dB"),
)
TOKENIZER_ONLY = ("rfid", "codes_used", "perplexity")
MASK_STREAM = 2**31  # the step of the noise that picks masks: decoding has far fewer steps
ROUND = 2**16  # mask m of image i takes the noise of sample i + m * ROUND
IMAGES = 64  # images decoded at a time


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    parts = {"curve": _curve, "median": _median, "tokenizer": compute_tokenizer}
    return parts[cell["part"]](worker, cell)


def masks_of(seed: int, ids: np.ndarray, ratio: float, num_tokens: int) -> np.ndarray:
    """Which tokens are masked, bool (n, N): round(ratio N) of each, for `ids` int64 (n,)."""
    noise = position_uniforms(seed, torch.from_numpy(ids), MASK_STREAM, num_tokens)[:, 0]
    rank = np.argsort(np.argsort(noise.numpy(), axis=1, kind="stable"), axis=1)
    return rank < round(ratio * num_tokens)


def reconstructed(
    worker: Worker,
    tokens: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    cell: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masks bool (n, N), tokens int64 (n, N), images uint8 (n, H, W, C)) of tokens uint16 (n, N).

    ids: names of the noise, int64 (n,). cell: has ratio, steps and seed.
    """
    masks = masks_of(cell["seed"], ids, cell["ratio"], tokens.shape[1])
    filled: Tensor = torch.from_numpy(tokens.astype(np.int64))
    if masks.any():
        known = filled.masked_fill(torch.from_numpy(masks), worker.mask_id)
        settings = worker.settings(cell)
        filled = worker.draw(settings, labels, sample_ids=ids, tokens=known).cpu()
    result = filled.numpy()
    return masks, result, worker.images(result)


def _curve(worker: Worker, cell: dict[str, Any]) -> Outcome:
    lpips, no_lpips = load_lpips(worker)
    missing = {"lpips": no_lpips} if no_lpips else {}
    images, labels, _ = worker.resources.held_out.pick(range(cell["num_images"]))
    pairwise = [metric for metric in METRICS if metric.name not in TOKENIZER_ONLY]
    ids_of = {metric.name: metric.id(LPIPS_NET) for metric in pairwise}
    values: dict[str, list[np.ndarray]] = {name: [] for name in ids_of}
    for start in range(0, len(images), IMAGES):
        rows = slice(start, start + IMAGES)
        tokens = encode_images(worker.tokenizer, [images[rows]])
        before = None
        for number in range(cell["masks"] if cell["ratio"] else 1):
            ids = np.arange(start, start + len(tokens)) + number * ROUND
            masks, filled, made = reconstructed(worker, tokens, labels[rows], ids, cell)
            for name, found in reconstruction(images[rows], made, lpips).items():
                values[name].append(found)
            values["agreement"].append(token_agreement(tokens.astype(np.int64), filled))
            if masks.any():
                equal = ((filled == tokens) & masks).sum(axis=1) / masks.sum(axis=1)
                values["agreement_masked"].append(equal)
            if before is not None:
                values["between"].append(psnr(before, made))
            before = made
    metrics: dict[str, Any] = {}
    for name, parts in values.items():
        if parts:
            told = summarize(np.concatenate(parts))
            if np.isfinite(told["mean"]):
                metrics[name] = {"id": ids_of[name], "value": told["mean"]}
                if np.isfinite(told["deviation"]):
                    metrics[name]["sd"] = told["deviation"]
            else:
                missing[name] = "every pair is equal"
        elif name not in missing:
            missing[name] = "nothing is masked" if not cell["ratio"] else "one mask an image"
    protocol = {} if lpips is None else {"lpips": lpips.protocol}
    return Outcome(metrics, missing, protocol)


def _median(worker: Worker, cell: dict[str, Any]) -> Outcome:
    numbers = cell["images"]
    images, labels, _ = worker.resources.held_out.pick(numbers)
    tokens = encode_images(worker.tokenizer, [images])
    masks, samples, medians = [], [], []
    for i, image in enumerate(numbers):
        ids = image + ROUND * np.arange(cell["samples"])
        same = np.repeat(tokens[i : i + 1], len(ids), axis=0)
        classes = np.repeat(labels[i : i + 1], len(ids))
        masked, _, made = reconstructed(worker, same, classes, ids, cell)
        masks.append(masked[0].reshape(worker.preset.grid))
        samples.append(made[0])
        medians.append(np.rint(np.median(made, axis=0)).astype(np.uint8))
    stacked = {"masks": masks, "samples": samples, "medians": medians}
    arrays = {name: np.stack(parts) for name, parts in stacked.items()}
    return Outcome({}, {}, {}, {"originals": images, "labels": labels, **arrays})
