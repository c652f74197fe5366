"""A tokenizer alone: how well it gives held-out images back, and how much of its codebook they use.

rFID is FID between the reconstructions and the very images they are made of, on the preset's
feature network: it needs no reference. Images are read in batches, so that any number of them fits
into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eval.metrics.fid import frechet_distance
from eval.metrics.lpips_distance import LPIPS, NETS
from eval.metrics.metric import Metric
from eval.metrics.reconstruction import reconstruction, summarize
from eval.metrics.registry import METRICS as KNOWN
from eval.metrics.statistics import Statistics
from eval.weights.files import weights_sha256
from experiments.engine.cells import Outcome, Task, plain_reason
from experiments.engine.keys import MISSING
from experiments.engine.own_metrics import entries, own_metric
from experiments.sampler.held_out import ImageSelection, find_held_out
from experiments.sampler.likelihood import encode_images
from experiments.sampler.resources import Resources
from experiments.sampler.worker import Worker
from maskgit.common.errors import UsageError

METRICS = (
    Metric("rfid", 1, "rFID", 2, "lower", needs=frozenset()),
    *(KNOWN[name] for name in ("psnr", "ssim", "lpips")),
    own_metric("tokenizer", "codes_used", "Codes used", 3, "higher"),
    own_metric("tokenizer", "perplexity", "Perplexity of the codes", 1, "higher"),
)
LPIPS_NET = "alex"
COST = 6  # of an image, in forwards of a small transformer


def tokenizer_tasks(resources: Resources, images: ImageSelection, features: str) -> list[Task]:
    """The cell of a tokenizer on some held-out images; none where there are no images."""
    if images.why:
        return []
    cell = {
        "part": "tokenizer",
        "num_images": len(images),
        "images": images.sha256[:16],
        "features": features,
        "lpips": lpips_sha256(resources) or MISSING,
    }
    size = len(images)
    return [resources.task(cell, cost=size * COST, size=size, networks=["tokenizer"])]


def lpips_sha256(resources: Resources) -> str:
    """sha256 of the weights of LPIPS' network, in part; empty if they are not here."""
    try:
        return weights_sha256(NETS[LPIPS_NET][0], resources.feature_weights)[:16]
    except UsageError:
        return ""


def load_lpips(worker: Worker) -> tuple[LPIPS | None, str]:
    """(LPIPS or None, why it is not here)."""
    try:
        return LPIPS(LPIPS_NET, worker.resources.feature_weights, worker.device), ""
    except UsageError as error:
        return None, plain_reason(error)


def compute_tokenizer(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """The numbers of one tokenizer; cell: see `tokenizer_tasks`."""
    images = find_held_out(worker.preset, worker.resources.data, cell["num_images"])
    lpips, no_lpips = load_lpips(worker)
    values: dict[str, list[np.ndarray]] = {"psnr": [], "ssim": [], "lpips": []}
    used = np.zeros(worker.preset.num_codes, np.int64)

    def reconstructions() -> Iterator[np.ndarray]:
        for originals, _, _ in images.numbered():
            tokens = encode_images(worker.tokenizer, [originals])
            used[:] += np.bincount(tokens.ravel(), minlength=len(used))
            made = worker.images(tokens)
            for name, found in reconstruction(originals, made, lpips).items():
                values[name].append(found)
            yield made

    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    extractor, features = worker.extractor(cell["features"]), cell["features"]
    if extractor is None or len(images) < 2:
        missing["rfid"] = worker.resources.features[features].why_missing or "one image"
        for _ in reconstructions():
            pass
    else:
        sides = [
            Statistics.of(extractor.extract_batches(batches).features)
            for batches in ((x for x, _, _ in images.numbered()), reconstructions())
        ]
        (real, made) = sides
        value = frechet_distance(real.mean, real.cov, made.mean, made.cov)
        metrics["rfid"] = {"id": METRICS[0].id(features), "value": value}
    for name, parts in values.items():
        told = summarize(np.concatenate(parts)) if parts else {"mean": np.inf}
        if np.isfinite(told["mean"]):
            metrics[name] = {"id": KNOWN[name].id(LPIPS_NET), "value": told["mean"]}
        else:
            missing[name] = "every pair is equal" if parts else no_lpips
    shares = used[used > 0] / used.sum()
    codes = {
        "codes_used": len(shares) / len(used),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
    }
    metrics |= entries(METRICS, codes)
    for entry in metrics.values():
        entry["n"] = len(images)
    protocol: dict[str, Any] = {"images": images.words}
    protocol |= {} if lpips is None else {"lpips": lpips.protocol}
    return Outcome(metrics, missing, protocol)
