"""Speed and memory of precision/recall and of the Frechet distance, beside libraries, in one run.

    python benchmarks/metrics.py --quick --out benchmarks/results/metrics-quick.json    # 10,000
    python benchmarks/metrics.py --out benchmarks/results/metrics.json           # and 50,000: hours

Prints a table, and writes JSON with --out. Ours and theirs take turns, on the same features and
with the same number of threads; a ratio is that of medians, of wall-clock and of processor time
(the one to read where the machine has other work). Features, all of 2,048 numbers in float32:

- images: efficientnet-lite0 on the 10,000 test images of Fashion-MNIST, against the same flipped
  and shifted: 1,280 features of an image and 768 of its mirror image, at 64 x 64 pixels.
- collages: the same network on other images: each with a rectangle of another pasted in, so that
  there is any number of different ones.
- spectrum: normal numbers with the spectrum of `images`, stretched from its 2,048 eigenvalues. Real
  features have clusters, which this has not: it is the harder case.
- white: normal numbers of equal variance: all points are about as far from each other.

Network features are computed once and kept in --cache (an hour for 50,000 collages on two cores).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import runner
from benchmarks.runner import Row
from maskgit.common.cli import exit_code
from maskgit.common.files import write_json

DIM, PART, SIDE = 2048, 5000, 64
COUNTS = {
    "images": (10000,),
    "collages": (10000, 50000),
    "spectrum": (10000, 50000),
    "white": (10000, 50000),
}


def pasted(images: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n collages of two images each, uint8 (n, 32, 32, 1)."""
    out = np.empty((n, *images.shape[1:]), np.uint8)
    for i in range(n):
        one, other = images[rng.integers(len(images), size=2)]
        out[i] = one[:, ::-1] if rng.random() < 0.5 else one
        h, w = rng.integers(8, 25, 2)
        y, x = rng.integers(0, 33 - h), rng.integers(0, 33 - w)
        out[i, y : y + h, x : x + w] = other[y : y + h, x : x + w]
    return out


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every image flipped or not, and shifted by up to 4 pixels."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        y, x = rng.integers(0, 9, 2)
        padded = np.pad(image[:, ::-1] if rng.random() < 0.5 else image, ((4, 4), (4, 4), (0, 0)))
        out[i] = padded[y : y + 32, x : x + 32]
    return out


def network_features(images: np.ndarray) -> np.ndarray:
    """float32 (n, 2048)."""
    import torch
    import torch.nn.functional as F

    from eval.features.registry import get_extractor

    extractor = get_extractor("efficientnet-lite0")
    result = []
    with torch.inference_mode():
        for start in range(0, len(images), 50):
            batch = torch.from_numpy(images[start : start + 50]).permute(0, 3, 1, 2).float()
            batch = batch.expand(-1, 3, -1, -1)
            batch = F.interpolate(batch, (SIDE, SIDE), mode="bicubic", antialias=True)
            batch = (batch.clamp(0, 255) - 127) / 128
            features, mirrored = (extractor.forward(x)[0] for x in (batch, batch.flip(3)))
            result.append(torch.cat([features, mirrored[:, : DIM - features.shape[1]]], dim=1))
    return torch.cat(result).numpy()


def features_of(kind: str, n: int, which: int, cache: Path) -> np.ndarray:
    """Features of n images, real (which 0) or generated (1)."""
    if kind == "white":
        return np.random.default_rng(which).standard_normal((n, DIM), dtype=np.float32)
    if kind == "spectrum":
        real = features_of("images", 10000, 0, cache).astype(np.float64)
        values = np.linalg.eigvalsh(np.cov(real, rowvar=False))[::-1].clip(1e-12)
        scale = np.sqrt(values).astype(np.float32) * (1.0 if which == 0 else 0.97)
        return np.random.default_rng(which).standard_normal((n, DIM), dtype=np.float32) * scale
    from maskgit.data.fashion_mnist import load_split

    parts = []
    for part in range(-(-n // PART)):
        path = cache / f"{kind}-{which}-{part}.npy"
        if not path.exists():
            images = load_split("test")[0]
            rng = np.random.default_rng((which, part))
            if kind == "collages":
                images = pasted(images, PART, rng)
            else:
                images = images[part * PART : (part + 1) * PART]
                images = shifted(images, rng) if which else images
            print(f"features: {path.name}", file=sys.stderr)
            cache.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, network_features(images))
            os.replace(temporary, path)
        parts.append(np.load(path))
    return np.concatenate(parts)[:n]


def beside(functions: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict, dict]:
    """Median seconds, wall-clock and of the processor, of each function; and its last result."""
    results = {}

    def timed(name: str) -> tuple[float, float]:
        start, used = time.perf_counter(), time.process_time()
        results[name] = functions[name]()
        return time.perf_counter() - start, time.process_time() - used

    turns = {name: (lambda name=name: timed(name)) for name in functions}
    medians = {k: np.median(v, axis=0) for k, v in runner.take_turns(turns, repeats).items()}
    return {k: {"wall": float(v[0]), "processor": float(v[1])} for k, v in medians.items()}, results


def ratios(seconds: dict, ours: str, theirs: str) -> dict[str, float]:
    """How many times faster ours is."""
    return {kind: seconds[theirs][kind] / seconds[ours][kind] for kind in ("wall", "processor")}


def precision_recall_case(kind: str, n: int, repeats: int, cache: Path) -> dict:
    """Ours and torch-fidelity's blocked path on n real and n generated features."""
    import torch
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    from eval.metrics.precision_recall import precision_recall

    real, generated = (features_of(kind, n, which, cache) for which in (0, 1))
    tensors = torch.from_numpy(generated), torch.from_numpy(real)
    seconds, results = beside(
        {
            "ours": lambda: precision_recall(real, generated),
            "torch-fidelity": lambda: calculate_precision_recall_part(*tensors),
        },
        repeats,
    )
    ours, theirs = results["ours"], results["torch-fidelity"]
    return {
        "case": f"precision/recall, {kind}, {n} + {n} x {DIM}",
        "seconds": seconds,
        "times_faster": ratios(seconds, "ours", "torch-fidelity"),
        "values": results,
        # Their averages are float32: equal counts of points are what can be asked.
        "equal": all(round(a * n) == round(b * n) for a, b in zip(ours, theirs, strict=True)),
        "mib_above_features": memory_above_features(kind, n, cache),
        "repeats": repeats,
    }


def memory_above_features(kind: str, n: int, cache: Path) -> float:
    """MiB by which a fresh process grows at most while it computes precision and recall."""
    command = [__file__, "--peak", kind, "--n", str(n), "--cache", str(cache)]
    return runner.in_fresh_process(command, limit=24 * 3600)


def peak_above_features(kind: str, n: int, cache: Path) -> float:
    """What the fresh process of `memory_above_features` measures."""
    from eval.metrics.precision_recall import precision_recall

    real, generated = (features_of(kind, n, which, cache) for which in (0, 1))
    precision_recall(real[:2000], generated[:2000])  # what libraries allocate once
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is held now
    before = runner.peak_mib()
    precision_recall(real, generated)
    return round(runner.peak_mib() - before, 1)


def frechet_case(n: int, repeats: int, cache: Path) -> dict:
    """Ours, with the reference's factor prepared, beside scipy's sqrtm (as clean-fid calls it) and
    eigenvalues of the product (torch-fidelity). n < 2048 makes one covariance singular."""
    import cleanfid.fid
    import torch
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    from eval.agreement.libraries import clean_fid_with_any_scipy
    from eval.metrics.fid import covariance_factor, frechet_distance
    from eval.metrics.statistics import Statistics

    real = features_of("spectrum", 10000, 0, cache).astype(np.float64)
    generated = features_of("spectrum", 10000, 1, cache)[:n].astype(np.float64)
    a, b = Statistics.of(real), Statistics.of(generated)
    factor = covariance_factor(a.cov)
    sides = [{"mu": s.mean, "sigma": s.cov} for s in (a, b)]

    def sqrtm() -> float:
        with clean_fid_with_any_scipy():
            return float(cleanfid.fid.frechet_distance(b.mean, b.cov, a.mean, a.cov))

    seconds, results = beside(
        {
            "ours": lambda: frechet_distance(a.mean, a.cov, b.mean, b.cov, factor),
            "ours, nothing prepared": lambda: frechet_distance(a.mean, a.cov, b.mean, b.cov),
            "scipy sqrtm": sqrtm,
            "torch-fidelity": lambda: fid_statistics_to_metric(*sides, verbose=False)[
                "frechet_inception_distance"
            ],
        },
        repeats,
    )
    # The trace from the centred features themselves: no covariance, no root of a matrix.
    centred = (generated - b.mean) / np.sqrt(n - 1)
    product = torch.from_numpy(factor.T @ centred.T)
    trace = float(torch.linalg.svdvals(product).sum())
    offset = a.mean - b.mean
    truth = float(offset @ offset + np.trace(a.cov) + np.trace(b.cov) - 2 * trace)
    return {
        "case": f"Frechet distance, spectrum, {DIM} features, 10000 and {n} images",
        "seconds": seconds,
        "times_faster": ratios(seconds, "ours", "scipy sqrtm"),
        "times_faster_than_eigenvalues": ratios(seconds, "ours", "torch-fidelity"),
        "values": results,
        "from_singular_values_of_the_features": truth,
        "relative_difference": {k: abs(v / truth - 1) for k, v in results.items()},
        "repeats": repeats,
    }


def measured(case: Row) -> str:
    """A case as a line of the output."""
    seconds, faster = case["seconds"], case["times_faster"]
    theirs = "torch-fidelity" if "equal" in case else "scipy sqrtm"
    words = [
        case["case"].ljust(56),
        f"{seconds['ours']['wall']:9.2f} s",
        f"{seconds[theirs]['wall']:9.2f} s {theirs:14s}",
        f"{faster['wall']:5.1f} x ({faster['processor']:.1f} x processor)",
    ]
    if "equal" in case:
        words.append("equal" if case["equal"] else "DIFFERENT")
        words.append(f"{case['mib_above_features']:.0f} MiB")
    else:
        words.append(f"off by {case['relative_difference']['ours']:.1e}")
    return "  ".join(words)


def parser() -> runner.Parser:
    """The command line."""
    found = runner.Parser(__doc__)
    kinds = runner.several((*COUNTS, "frechet"))
    found.add_argument("--quick", action="store_true", help="10,000 features only")
    found.add_argument("--n", type=int, choices=(10000, 50000), help="only so many features")
    found.add_argument("--kinds", type=kinds, default=["frechet", *COUNTS], help=", ".join(COUNTS))
    found.add_argument("--repeats", type=runner.at_least_one, default=3, help="at 50,000 it is 1")
    found.add_argument("--threads", type=runner.at_least_one, help="default: torch's")
    found.add_argument("--cache", type=Path, default=Path("runs/benchmark-features"))
    found.add_argument("--peak", metavar="KIND", help=argparse.SUPPRESS)
    found.add_out()
    return found


def main() -> int:
    """Parse the flags, measure, print."""
    flags = parser().parse_args()
    import scipy
    import torch

    if flags.threads:
        torch.set_num_threads(flags.threads)
    if flags.peak:
        print(json.dumps(peak_above_features(flags.peak, flags.n, flags.cache)))
        return 0
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    about = {**runner.machine(), "threads": torch.get_num_threads(), **versions}
    result: dict[str, Any] = {"machine": about, "load_before": os.getloadavg(), "cases": []}

    def add(case: Row) -> None:
        result["cases"].append(case)
        print(measured(case), flush=True)
        result["load_after"] = os.getloadavg()
        if flags.out:
            write_json(flags.out, result, "--out")

    if "frechet" in flags.kinds:
        for n in (10000, 1000):
            add(frechet_case(n, flags.repeats, flags.cache))
    for kind in flags.kinds:
        for n in COUNTS.get(kind, ()):
            if n == flags.n or (not flags.n and (n == 10000 or not flags.quick)):
                repeats = flags.repeats if n == 10000 else 1
                add(precision_recall_case(kind, n, repeats, flags.cache))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
