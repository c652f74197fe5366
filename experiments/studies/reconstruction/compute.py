"""Figures 9 and 10: held-out images whose tokens are masked at random and decoded again.

A cell is one of

- curve: a mask ratio and a seed; PSNR, SSIM, LPIPS and the share of equal tokens between held-out
  images and their reconstructions, over several masks an image, and PSNR between reconstructions of
  one image from two masks. Ratio 0 masks nothing: the tokenizer's own reconstruction.
- median: a mask ratio; of a few images one mask, one reconstruction, and the pixelwise median over
  many masks.

round(ratio N) tokens are masked, those with the lowest noise of the image and the mask: a smaller
ratio masks a part of what a larger one does. MaskGIT's iterative decoding starts from the rest, as
in the paper's appendix A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome
from experiments.engine.reasons import plain_reason

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.studies.base import Context

METRICS = {
    name: f"{name}.reconstruction.v1"
    for name in ("psnr", "ssim", "lpips", "agreement", "agreement_masked", "between")
}
LPIPS_NET = "alex"
MASK_STREAM = 2**31  # the step of the noise that picks masks: decoding has far fewer steps
ROUND = 2**16  # mask m of image i takes the noise of sample i + m * ROUND
IMAGES = 64  # images decoded at a time


def compute(context: Context, cell: dict[str, Any]) -> Outcome:
    """One cell; see the module's text."""
    return {"curve": _curve, "median": _median}[cell["part"]](context, cell)


def masks_of(seed: int, ids: np.ndarray, ratio: float, num_tokens: int) -> np.ndarray:
    """Which tokens are masked, bool (n, N): round(ratio N) of each, for `ids` int64 (n,)."""
    import torch

    from maskgit.sampling.noise import position_uniforms

    noise = position_uniforms(seed, torch.from_numpy(ids), MASK_STREAM, num_tokens)[:, 0]
    rank = np.argsort(np.argsort(noise.numpy(), axis=1, kind="stable"), axis=1)
    return rank < round(ratio * num_tokens)


def reconstructed(
    context: Context,
    tokens: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    cell: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masks bool (n, N), tokens int64 (n, N), images uint8 (n, H, W, C)) of tokens uint16 (n, N).

    ids: names of the noise, int64 (n,). cell: has ratio, steps and seed.
    """
    import torch

    from maskgit.decoding import generate

    masks = masks_of(cell["seed"], ids, cell["ratio"], tokens.shape[1])
    filled: Tensor = torch.from_numpy(tokens.astype(np.int64))
    if masks.any():
        model = context.transformer
        known = filled.masked_fill(torch.from_numpy(masks), model.config.mask_id)
        with torch.inference_mode():
            filled = generate(
                model,
                torch.from_numpy(labels).to(context.device),
                steps=cell["steps"],
                seed=cell["seed"],
                sample_ids=torch.from_numpy(ids).to(context.device),
                tokens=known.to(context.device),
            ).cpu()
    result = filled.numpy()
    return masks, result, np.concatenate(list(context.decode(result)))


def _curve(context: Context, cell: dict[str, Any]) -> Outcome:
    from eval.metrics.lpips_distance import LPIPS
    from eval.metrics.reconstruction import psnr, reconstruction, summarize, token_agreement
    from experiments.sampler.held_out import encode_images
    from maskgit.common.errors import UsageError

    missing: dict[str, str] = {}
    lpips = None
    try:
        lpips = LPIPS(LPIPS_NET, context.study.weights_dir, context.device)
    except UsageError as error:
        missing["lpips"] = plain_reason(error)
    images, labels = context.held_out(cell["num_images"])
    values: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for start in range(0, len(images), IMAGES):
        rows = slice(start, start + IMAGES)
        tokens = encode_images(context.tokenizer, [images[rows]])
        before = None
        for number in range(cell["masks"] if cell["ratio"] else 1):
            ids = np.arange(start, start + len(tokens)) + number * ROUND
            masks, filled, made = reconstructed(context, tokens, labels[rows], ids, cell)
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
                metrics[name] = {"id": METRICS[name], "value": told["mean"]}
                if np.isfinite(told["deviation"]):
                    metrics[name]["sd"] = told["deviation"]
            else:
                missing[name] = "every pair is equal"
        elif name not in missing:
            missing[name] = "nothing is masked" if not cell["ratio"] else "one mask an image"
    protocol: dict[str, Any] = {"versions": context.versions()}
    if lpips is not None:
        protocol["lpips"] = lpips.protocol
    return Outcome(metrics, missing, protocol)


def _median(context: Context, cell: dict[str, Any]) -> Outcome:
    from experiments.sampler.held_out import encode_images

    numbers = cell["images"]
    images, labels = context.held_out(max(numbers) + 1)
    images, labels = images[numbers], labels[numbers]
    tokens = encode_images(context.tokenizer, [images])
    masks, samples, medians = [], [], []
    for i, image in enumerate(numbers):
        ids = image + ROUND * np.arange(cell["samples"])
        same = np.repeat(tokens[i : i + 1], len(ids), axis=0)
        classes = np.repeat(labels[i : i + 1], len(ids))
        masked, _, made = reconstructed(context, same, classes, ids, cell)
        masks.append(masked[0].reshape(context.preset.grid))
        samples.append(made[0])
        medians.append(np.rint(np.median(made, axis=0)).astype(np.uint8))
    stacked = {"masks": masks, "samples": samples, "medians": medians}
    arrays = {name: np.stack(parts) for name, parts in stacked.items()}
    protocol = {"versions": context.versions()}
    return Outcome({}, {}, protocol, {"originals": images, "labels": labels, **arrays})
