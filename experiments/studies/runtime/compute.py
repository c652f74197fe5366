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
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import Outcome

if TYPE_CHECKING:
    import torch

    from experiments.studies.base import Context

METRICS = {
    name: f"{name}.runtime.v1"
    for name in ("maskgit_seconds", "autoregressive_seconds", "matmul_gflops", "speedup")
}
MATRIX = 2048  # rows of the square product that says how fast the device was meanwhile


def device_name(device: str) -> str:
    """The processor's name: it is part of a cell, because its numbers are."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def compute(context: Context, cell: dict[str, Any]) -> Outcome:
    """Seconds of one batch: cell has tokens, batch, steps (a list), rounds and device."""
    import torch

    from maskgit.decoding import generate
    from maskgit.model.config import TransformerConfig
    from maskgit.model.transformer import Transformer
    from maskgit.sampling.autoregressive import Autoregressive, generate_autoregressive

    preset, device = context.preset, torch.device(context.device)
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
    parallel = Transformer(config).to(device).eval()
    baseline = Autoregressive(config).to(device).eval()
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
            name: {"id": METRICS[name.partition("_T")[0]], "value": value}
            for name, value in metrics.items()
        },
        protocol={
            "device": device_name(context.device),
            "threads": torch.get_num_threads(),
            "precision": "float32",
            "versions": context.versions(),
        },
    )


def interleaved_medians(
    works: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each work over the rounds, after one round that is not counted."""
    import torch

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
