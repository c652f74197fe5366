"""Figure 4: wall-clock of parallel and of autoregressive decoding, in one process, side by side.

A cell is one number of tokens and batch size: MaskGIT at every T asked for and the baseline with
its KV cache, with random weights of the preset's sizes (speed does not depend on them), each after
a warm-up, rounds interleaved so that a slow moment of the machine hits all alike. Pixels are not
part of it: both share the tokenizer.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.engine.cells import Outcome
from experiments.engine.own_metrics import own_metric
from experiments.sampler.worker import Worker
from maskgit.decoding import generate
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.sampling.autoregressive import Autoregressive, generate_autoregressive

# Those of MaskGIT are measured at each T: maskgit_seconds_T8, speedup_T8.
METRICS = (
    own_metric("runtime", "maskgit_seconds", "MaskGIT", 3, "lower", "s"),
    own_metric("runtime", "autoregressive_seconds", "Autoregressive", 3, "lower", "s"),
    own_metric("runtime", "matmul_gflops", "Matrix product", 0, unit="GFLOP/s"),
    own_metric("runtime", "speedup", "Speed-up", 1, "higher"),
)
IDS = {metric.name: metric.id() for metric in METRICS}
MATRIX = 2048  # rows of the square product that says how fast the device was meanwhile


def device_name(device: str) -> str:
    """The processor's name: it is part of a cell, because its numbers are."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def compute(worker: Worker, cell: dict[str, Any]) -> Outcome:
    """Seconds of one batch: cell has tokens, batch, steps (a list), rounds, precision, device."""
    preset, device = worker.preset, torch.device(worker.device)
    shape = preset.transformer
    config = TransformerConfig(
        num_codes=preset.num_codes,
        num_classes=preset.num_classes,
        num_tokens=cell["tokens"],
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        mlp=shape.mlp,
    )
    torch.manual_seed(0)
    place = {"device": device, "dtype": getattr(torch, cell["precision"])}
    parallel = Transformer(config).to(**place).eval()
    baseline = Autoregressive(config).to(**place).eval()
    labels = torch.arange(cell["batch"], device=device) % config.num_classes

    def maskgit(steps: int) -> Callable[[], object]:
        return lambda: generate(parallel, labels, steps=steps)

    works: dict[str, Callable[[], object]] = {f"T{T}": maskgit(T) for T in cell["steps"]}
    works["autoregressive"] = lambda: generate_autoregressive(baseline, labels)
    matrix = torch.randn(MATRIX, MATRIX, device=device)
    works["matmul"] = lambda: matrix @ matrix
    with torch.inference_mode():
        medians = interleaved_medians(works, cell["rounds"], device)
    metrics = {
        "autoregressive_seconds": medians["autoregressive"],
        "matmul_gflops": 2 * MATRIX**3 / medians["matmul"] / 1e9,
    }
    for T in cell["steps"]:
        metrics[f"maskgit_seconds_T{T}"] = medians[f"T{T}"]
        metrics[f"speedup_T{T}"] = medians["autoregressive"] / medians[f"T{T}"]
    return Outcome(
        metrics={
            name: {"id": IDS[name.partition("_T")[0]], "value": value}
            for name, value in metrics.items()
        },
        protocol={
            "device": device_name(worker.device),
            "threads": torch.get_num_threads(),
            "precision": cell["precision"],
        },
    )


def interleaved_medians(
    works: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each work over the rounds, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(1 + rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}
