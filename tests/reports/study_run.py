"""A run folder of any study, made from numbers and arrays given by a test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.reports.synthetic_run import METRICS, checksum, described

CLASSES = ["T-shirt", "trousers", "bag"]


def write_study(
    folder: Path,
    experiment: str,
    cells: Sequence[tuple[dict, dict, dict]],
    *,
    preset: str = "embedded",
    missing: dict | None = None,
    **protocol: Any,
) -> Path:
    """cells: (cell, metrics name -> number or reason, arrays). A reason makes it missing."""
    items = []
    for cell, metrics, arrays in cells:
        cell = {"experiment": experiment, "preset": preset, **cell}
        key = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:24]
        items.append({"key": key, "cell": cell})
        place = folder / "cells" / key
        place.mkdir(parents=True, exist_ok=True)
        if arrays:
            np.savez_compressed(place / "samples.npz", **arrays)
        result = {
            "schema": 2,
            "files": described(place),
            "key": key,
            "cell": cell,
            "metrics": {
                name: {"id": f"{name}.v1", "value": value}
                for name, value in metrics.items()
                if not isinstance(value, str)
            },
            "missing": {name: why for name, why in metrics.items() if isinstance(why, str)},
            "protocol": {"versions": {"numpy": "2.4.6"}},
        }
        (place / "result.json").write_text(json.dumps(result | {"checksum": checksum(result)}))
    shared = {"num_tokens": 16, "image_size": 16, "class_names": CLASSES, "metrics": {}, **protocol}
    shared |= {"missing": missing} if missing else {}
    grid = {"schema": 2, "experiment": experiment, "preset": preset, "cells": items}
    (folder / "grid.json").write_text(
        json.dumps({**grid, "protocol": shared, "models": {}, "metrics": METRICS})
    )
    return folder


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    """Random uint8 images."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def editing_run(folder: Path, *, seeds: Sequence[int] = (0, 1, 2), biharmonic: bool = True) -> Path:
    """Two tasks of Table 2, MaskGIT at FID 2, 3, 4 over seeds, plain fillings at 9 and 12."""
    cells: list[tuple[dict, dict, dict]] = []
    missing = "scikit-image is not installed"
    mask = np.zeros((16, 16), bool)
    mask[:, 8:] = True

    def measured(task, method, seed, fid, **more):
        cell = {"part": "measure", "task": task, "method": method, "seed": seed, "num_images": 30}
        cells.append(({**cell, **more}, {"fid": fid, "is": 7.5, "kept": 0.9}, {}))

    for task in ("outpaint-right", "inpaint-center"):
        for seed in seeds:
            measured(task, "maskgit", seed, 2.0 + seed, steps=12, start=2)
        measured(task, "mean", 0, 12.0)
        measured(task, "biharmonic", 0, 9.0 if biharmonic else missing, library="x")
        arrays = {"inputs": pictures(2, 16, 16, 1), "labels": np.array([0, 2]), "mask": mask}
        arrays |= {"maskgit": pictures(2, 4, 16, 16, 1), "mean": pictures(2, 1, 16, 16, 1)}
        cells.append(({"part": "pictures", "task": task, "seed": 0}, {}, arrays))
    measured("none", "real", 0, 0.5)
    measured("none", "tokenizer", 0, 0.8)
    for seed in seeds:
        cell = {"part": "edit", "seed": seed, "num_images": 30, "box": [8, 2, 8, 12]}
        cells.append((cell, {"target": 0.6, "before": 0.01, "original": 0.2}, {}))
    arrays = {"inputs": pictures(2, 16, 16, 1), "labels": np.array([0, 2])}
    arrays |= {"targets": np.array([1]), "box": mask, "latent": mask[::4, ::4]}
    arrays["edited"] = pictures(2, 1, 16, 16, 1)
    cells.append(({"part": "edits", "seed": 0, "box": [8, 2, 8, 12]}, {}, arrays))
    tasks = ["outpaint-right", "inpaint-center"]
    return write_study(
        folder, "editing", cells, num_images=30, tasks=tasks, features="fashion-resnet",
        reference="fashion-mnist-train", classes_told="the class of each input", steps=12, start=2,
    )  # fmt: skip


def trace_run(folder: Path, *, baseline: bool = True) -> Path:
    """Four iterations of MaskGIT on 4x4 tokens, 16 steps of the baseline, two classes."""
    cells = []
    for sampler, unknown in (("maskgit", [15, 12, 7, 0]), ("autoregressive", range(15, -1, -1))):
        if sampler == "autoregressive" and not baseline:
            continue
        left = np.array(unknown)
        masked = np.arange(16)[::-1][None] < left[:, None]
        masked = np.stack([masked, masked], axis=1).reshape(len(left), 2, 4, 4)
        arrays = {"images": pictures(len(left), 2, 16, 16, 1), "masked": masked}
        arrays |= {"iterations": np.arange(1, len(left) + 1), "unknown": left}
        cell = {"sampler": sampler, "steps": len(left), "seed": 0, "classes": [0, 2]}
        cells.append((cell, {"iterations": float(len(left))}, arrays))
    why = {} if baseline else {"missing": {"the autoregressive baseline": "no such file"}}
    return write_study(folder, "decoding_trace", cells, **why)


def panorama_run(folder: Path, ratios: Sequence[float] = (1.0, 1.1, 1.2)) -> Path:
    """One width; the ratio of each seed."""
    cells = []
    for seed, ratio in enumerate(ratios):
        gradients = np.full(32, 10.0)
        gradients[[8, 24]] *= ratio
        arrays = {"images": pictures(3, 16, 32, 1), "gradients": gradients}
        arrays |= {"seams": np.array([8, 24]), "tokens": np.array([4, 28]), "left": np.int64(8)}
        numbers = {"seams": 10 * ratio, "seams_beside": 10.0, "ratio": ratio}
        numbers |= {"tokens": 10.0, "tokens_beside": 10.0, "tokens_ratio": 1.0}
        cell = {"factor": 2, "seed": seed, "num_images": 5, "steps": 12, "start": 2, "overlap": 0.5}
        cells.append((cell, numbers, arrays))
    return write_study(folder, "panorama", cells, num_images=5)


def failures_run(folder: Path) -> Path:
    """Half of the samples wrong, a tenth of the real images, ratios of 1.5 at the boundary."""
    counts = {"of_class": np.array([10, 10, 10]), "wrong_of_class": np.array([15, 0, 0])}
    told = {"asked": np.array([0, 1]), "predicted": np.array([2, 2])}
    told |= {"asked_probability": np.array([0.01, 0.2]), "predicted_probability": np.ones(2)}
    cells: list[tuple[dict, dict, dict]] = []
    for seed in (0, 1):
        arrays = {"images": pictures(2, 16, 16, 1), **counts, **told}
        cell = {"part": "samples", "seed": seed, "num_samples": 30, "steps": 12}
        cells.append((cell, {"disagreement": 0.5}, arrays))
    cells.append(({"part": "real", "seed": 0}, {"disagreement": 0.1}, counts))
    arrays = {"originals": pictures(2, 16, 16, 1), "reconstructions": pictures(2, 16, 16, 1)}
    arrays |= {"labels": np.array([0, 2]), "psnr": np.array([9.0, 10.0])}
    arrays |= {"psnr_of_class": np.array([20.0, np.nan, 22.0]), "percentiles": np.arange(5.0)}
    cells.append(({"part": "reconstruction", "seed": 0}, {"psnr": 21, "worst_psnr": 9}, arrays))
    for direction in ("right", "left", "top", "bottom"):
        for seed in (0, 1):
            arrays = {"images": pictures(2, 16, 16, 1), "inputs": pictures(2, 16, 16, 1)}
            arrays |= {"gains": np.array([20.0, 10.0]), "mask": np.eye(16, dtype=bool)}
            cell = {"part": "boundary", "direction": direction, "seed": seed}
            numbers = {"gradient": 15.0, "real_gradient": 10.0, "ratio": 1.5}
            cells.append((cell, numbers, arrays))
    counted = {"num_samples": 30, "num_images": 30, "boundary_images": 30}
    return write_study(folder, "failure_cases", cells, **counted)
