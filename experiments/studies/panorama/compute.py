"""Figure 15: held-out images outpainted to both sides, and how visible the windows' edges are.

A cell is one width and seed. The seams are the columns where one decoding's tokens meet those of
another: both ends of the input, and every window outwards. A gradient is the mean absolute
difference of a column and the one before it, in grey levels of 255, over rows, channels, images. A
seam is a local peak of it, so it is held against the columns beside: where in its window an object
ends would otherwise decide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from experiments.engine.cells import Outcome
from experiments.engine.own_metrics import entries, own_metric
from experiments.sampler.imaging import as_bytes, as_tensor
from experiments.sampler.worker import Worker
from experiments.studies.filling import chunks
from maskgit.sampling.panorama import extend

METRICS = (
    own_metric("panorama", "seams", "Gradient at seams", 2),
    own_metric("panorama", "seams_beside", "Beside seams", 2),
    own_metric("panorama", "tokens", "Gradient at token boundaries", 2),
    own_metric("panorama", "tokens_beside", "Beside token boundaries", 2),
    own_metric("panorama", "ratio", "Seam / beside", 3),
    own_metric("panorama", "tokens_ratio", "Token boundary / beside", 3),
)
BESIDE = (-2, -1, 1, 2)  # columns
SHOWN = 4  # pictures kept: the first image of as many classes, if they are among the images


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """cell has factor (of the image's width), num_images, shown, seed, steps, start, overlap."""
    side, token = worker.preset.size[1], worker.tokenizer.config.downsampling
    total: np.ndarray = np.zeros(cell["factor"] * side)
    shown: dict[int, np.ndarray] = {}
    count, left = 0, 0
    last = max([cell["num_images"] - 1, *cell["shown"]])
    for images, labels, ids in worker.resources.held_out.numbered(last + 1):
        for rows in chunks(worker, len(images)):
            made = extend(
                worker.sampler(worker.settings(cell)),
                worker.tokenizer,
                as_tensor(images[rows], worker.device),
                torch.from_numpy(labels[rows]).to(worker.device),
                cell["factor"] * side,
                overlap=cell["overlap"],
                steps=cell["steps"],
                start=cell["start"],
                seed=cell["seed"],
                sample_ids=torch.from_numpy(ids[rows]).to(worker.device),
            )
            wide, left = as_bytes(made.images), made.left
            measured = wide[ids[rows] < cell["num_images"]]
            total += column_gradients(measured).sum(axis=0)
            count += len(measured)
            shown |= {int(i): wide[k] for k, i in enumerate(ids[rows]) if i in cell["shown"]}
    gradients = total / count
    places = boundaries(len(gradients), side, token, left, cell["overlap"])
    means = peaks(gradients, places["seams"], "seams") | peaks(
        gradients, places["tokens"], "tokens"
    )
    means["ratio"] = means.pop("seams_ratio")
    return Outcome(
        metrics=entries(METRICS, means),
        protocol={"seed": cell["seed"]},
        arrays={
            "images": np.stack([shown[i] for i in cell["shown"]]),
            "gradients": gradients,
            "seams": places["seams"],
            "tokens": places["tokens"],
            "left": np.int64(left),
        },
    )


def column_gradients(images: np.ndarray) -> np.ndarray:
    """uint8 (n, H, W, C) -> float64 (n, W): |column x - column x - 1|, the mean over rows and
    channels; 0 for the first column."""
    steps = np.abs(np.diff(images.astype(np.float64), axis=2)).mean(axis=(1, 3))
    return np.pad(steps, ((0, 0), (1, 0)))


def peaks(gradients: np.ndarray, columns: np.ndarray, name: str) -> dict[str, float]:
    """The mean gradient at columns (name), beside them (name_beside), and their ratio (name_ratio).

    gradients: (W,), from `column_gradients`. Columns nearer than two to an end have fewer
    neighbours; the first column of all has no gradient and is none.
    """
    around = [
        np.mean([gradients[x + d] for d in BESIDE if 1 <= x + d < len(gradients)]) for x in columns
    ]
    at, beside = float(gradients[columns].mean()), float(np.mean(around))
    return {name: at, f"{name}_beside": beside, f"{name}_ratio": at / beside}


def boundaries(
    width: int, side: int, token: int, left: int, overlap: float
) -> dict[str, np.ndarray]:
    """First columns right of a boundary, int64, of a panorama whose input stands at `left`.

    seams: where tokens of one decoding meet another's; tokens: all other boundaries of tokens
    outside the input.
    """
    window = side // token
    step = window - round(overlap * window)
    right = left + side
    # A side's last window may be cut short by the canvas; then there is no seam.
    seams = {*range(right, width, step * token), *range(left, 0, -step * token)}
    outside = [x for x in range(1, width) if not left < x < right]
    at_tokens = [x for x in outside if (x - left) % token == 0 and x not in seams]
    found = {"seams": sorted(seams), "tokens": at_tokens}
    return {name: np.array(columns, np.int64) for name, columns in found.items()}
