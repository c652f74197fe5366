"""A run folder made from formulas, in the engine's format: `synthetic_run.py DIR [T,T,...]`.

The values look like the paper's Figure 8 (every schedule a parabola in log T, the logarithmic one
falling throughout) plus noise between seeds. They are made up for tests and appear in no report of
ours.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from maskgit.common.files import describe

# schedule -> (T of the sweet spot, FID there, curvature in log2 T, NLL)
SHAPES = {
    "exponential": (8, 4.9, 0.30, 4.1),
    "cubic": (9, 4.5, 0.28, 3.9),
    "square": (10, 4.05, 0.26, 3.7),
    "cosine": (11, 3.9, 0.25, 3.6),
    "linear": (16, 5.6, 0.25, 3.2),
    "sqrt": (30, 8.0, 0.4, 2.9),
    "logarithmic": (120, 17.0, 0.9, 2.7),
}
METRICS = {  # what reports print of each, as in every grid.json
    "fid": {"label": "FID", "digits": 2, "direction": "lower", "unit": ""},
    "is": {"label": "IS", "digits": 2, "direction": "higher", "unit": ""},
    "precision": {"label": "precision", "digits": 3, "direction": "higher", "unit": ""},
    "recall": {"label": "recall", "digits": 3, "direction": "higher", "unit": ""},
    "kid": {"label": "KID", "digits": 4, "direction": "lower", "unit": ""},
    "nll": {"label": "NLL", "digits": 3, "direction": "lower", "unit": "nats"},
}
CLASS_NAMES = ["T-shirt", "trousers", "pullover", "dress", "coat"]
CLASS_NAMES += ["sandal", "shirt", "sneaker", "bag", "boot"]


def fid(schedule: str, T: int, seed: int, noise: float = 0.03) -> float:
    place, floor, curve, _ = SHAPES[schedule]
    rng = random.Random(f"{schedule} {T} {seed}")
    return floor + curve * (math.log2(T) - math.log2(place)) ** 2 + rng.gauss(0, noise)


def gamma(schedule: str, num_tokens: int = 64) -> list[float]:
    """The seven functions at r = 0, 0.01, ... 1 (FACTS, section 3)."""
    bits = math.log2(num_tokens)
    functions = {
        "exponential": lambda r: 1 - 2 ** (-bits * (1 - r)),
        "cubic": lambda r: 1 - r**3,
        "square": lambda r: 1 - r**2,
        "cosine": lambda r: math.cos(math.pi * r / 2),
        "linear": lambda r: 1 - r,
        "sqrt": lambda r: 1 - r**0.5,
        "logarithmic": lambda r: -math.log2(r) / bits if r else 1.0,
    }
    return [min(max(functions[schedule](i / 100), 1e-6), 1.0) for i in range(101)]


def checksum(result: dict) -> str:
    body = {name: value for name, value in result.items() if name != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def described(place: Path) -> dict:
    """What a result says about the files beside it."""
    return {path.name: describe(path.read_bytes()) for path in place.glob("samples.npz")}


def make_result(key: str, cell: dict, value: float, files: dict | None = None) -> dict:
    schedule, T, seed = cell["schedule"], cell["steps"], cell["seed"]
    rng = random.Random(f"other {schedule} {T} {seed}")
    nll = SHAPES.get(schedule, (0, 0, 0, 3.0))[3]
    name = "fashion-resnet.v1"
    result = {
        "schema": 2,
        "files": files or {},
        "key": key,
        "cell": cell,
        "metrics": {
            "fid": {"id": f"fid.{name}", "value": value},
            "is": {"id": f"is.{name}", "value": 9.2 - 0.12 * value + rng.gauss(0, 0.05), "sd": 0.1},
            "precision": {
                "id": f"precision.{name}",
                "value": 0.9 - 0.012 * value + 0.01 * math.log2(T) + rng.gauss(0, 0.006),
            },
            "recall": {
                "id": f"recall.{name}",
                "value": 0.72 - 0.012 * value - 0.02 * math.log2(T) + rng.gauss(0, 0.008),
            },
            "kid": {"id": f"kid.{name}", "value": 0.004 * value, "sd": 0.001},
            "nll": {"id": "nll.masked.v1", "value": nll},
        },
        "missing": {},
        "protocol": {
            "features": "fashion-resnet",
            "reference": "fashion-mnist-train",
            "reference_n": 60000,
            "resize": "none",
            "weights": {
                "transformer": hashlib.sha256(schedule.encode()).hexdigest(),
                "tokenizer": hashlib.sha256(b"tokenizer").hexdigest(),
                "fashion-resnet": hashlib.sha256(b"fashion-resnet").hexdigest(),
            },
            "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
        },
    }
    return result | {"checksum": checksum(result)}


def fake_images(schedule: str, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Twenty grey 32x32 drawings, two a class: bright on black, noisier where FID is high."""
    labels = np.arange(20) % 10
    rng = np.random.default_rng(abs(hash_of(f"{schedule}{T}")) % 2**32)
    y, x = np.mgrid[0:32, 0:32]
    images = []
    for i, label in enumerate(labels):
        wide = 4 + label + i // 10
        shape = (abs(x - 16) < wide) & (abs(y - 16) < 14 - label)
        if label % 2:
            shape &= ~((abs(x - 16) < 2) & (y > 12))
        light = 150 + 60 * np.sin((x + 3 * label) / 4)
        noisy = light + rng.normal(0, 8 * math.log2(2 + fid(schedule, T, 0)), (32, 32))
        images.append(np.where(shape, np.clip(noisy, 0, 255), 0).astype(np.uint8)[..., None])
    return np.stack(images), labels.astype(np.int64)


def hash_of(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def write_run(
    folder: Path,
    schedules: Sequence[str] = tuple(SHAPES),
    steps: Iterable[int] = (4, 6, 8, 12, 16, 32, 60),
    seeds: Sequence[int] = (0, 1, 2),
    num_samples: int = 128,
    value: Callable[[str, int, int], float] = fid,
    samples: bool = True,
    reverse: bool = False,
    store_gamma: bool = True,
) -> Path:
    """Writes a whole run; `reverse` writes its cells, and lists them in the grid, backwards."""
    cells = []
    for schedule in schedules:
        for T in steps:
            for seed in seeds:
                cell = {
                    "experiment": "ablate_schedule",
                    "preset": "embedded",
                    "schedule": schedule,
                    "steps": T,
                    "seed": seed,
                    "num_samples": num_samples,
                    "choice_temperature": 4.5,
                    "sampling_temperature": 1.0,
                }
                key = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:24]
                cells.append({"key": key, "cell": cell})
    if reverse:
        cells.reverse()
    protocol = {
        "num_tokens": 64,
        "features": "fashion-resnet",
        "reference": "fashion-mnist-train",
        "num_samples": num_samples,
        "choice_temperature": 4.5,
        "class_names": CLASS_NAMES,
    }
    if store_gamma:
        protocol["gamma"] = {schedule: gamma(schedule) for schedule in schedules}
    models = {
        schedule: {
            "name": f"transformer-{schedule}",
            "data": "fashion-mnist train",
            "command": f"python -m maskgit.training transformer --schedule {schedule}",
            "budget": {"steps": 1800, "batch_size": 128},
            "nll": SHAPES[schedule][3],
            "sha256": hashlib.sha256(schedule.encode()).hexdigest(),
        }
        for schedule in schedules
    }
    for item in cells:
        cell = item["cell"]
        place = folder / "cells" / item["key"]
        place.mkdir(parents=True, exist_ok=True)
        if samples:
            images, labels = fake_images(cell["schedule"], cell["steps"])
            np.savez_compressed(place / "samples.npz", images=images, labels=labels)
        number = value(cell["schedule"], cell["steps"], cell["seed"])
        (place / "result.json").write_text(
            json.dumps(make_result(item["key"], cell, number, described(place)))
        )
    grid = {"schema": 2, "experiment": "ablate_schedule", "preset": "embedded"}
    grid |= {"cells": cells, "protocol": protocol, "models": models, "metrics": METRICS}
    (folder / "grid.json").write_text(json.dumps(grid))
    return folder


if __name__ == "__main__":
    wanted = [int(word) for word in sys.argv[2].split(",")] if len(sys.argv) > 2 else range(4, 61)
    write_run(Path(sys.argv[1]), steps=wanted)
