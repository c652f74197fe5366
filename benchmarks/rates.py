"""The machine's own rates, measured in the process whose work they are compared with.

The matmul rate is the best that any of these products reaches, each through torch's matmul and, on
a CPU, through oneDNN as maskgit.model.linear calls it: a large square one and the two of the
perceptron of a model's layer. So a share of it never looks better than it is because a library is
slow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.benchmark import Timer

from benchmarks.runner import Row, peak_mib, seconds_of
from maskgit.model import linear
from maskgit.model.config import TransformerShape

COPY_MIB = 256
SQUARE = {"cpu": 2048, "cuda": 8192}
SECONDS = 0.25  # of each product in a round
ROWS = 64, 8192  # the fewest and the most of a product, whatever the work has


class Rates:
    """Products and a copy, timed round after round between the work they are compared with.

    rows: of the layer's products, images times sequence length.
    """

    def __init__(self, dtype: torch.dtype, device: str, rows: int, width: int, mlp: int):
        square = SQUARE["cpu" if device == "cpu" else "cuda"]
        self._work: dict[str, tuple[float, Callable[[], object]]] = {}
        with torch.inference_mode():
            for m, k, n in ((square, square, square), (rows, width, mlp), (rows, mlp, width)):
                x = torch.randn(m, k, dtype=dtype, device=device)
                weight = torch.randn(n, k, dtype=dtype, device=device)
                for library, product in products(x, weight).items():
                    self._work[f"{m} x {k} x {n}, {library}"] = 2.0 * m * k * n, product
            source = torch.zeros(COPY_MIB * 2**18, device=device)
            target = torch.ones_like(source)
        self._work["copy"] = 2.0 * COPY_MIB * 2**20, lambda: target.copy_(source)
        self.found: dict[str, list[float]] = {name: [] for name in self._work}

    @torch.inference_mode()
    def measure(self) -> None:
        """Time every product and the copy once."""
        for name, (amount, product) in self._work.items():
            timer = Timer("f()", globals={"f": product}, num_threads=torch.get_num_threads())
            seconds = timer.blocked_autorange(min_run_time=SECONDS).median
            self.found[name].append(amount / seconds)

    def result(self) -> dict[str, Any]:
        """Medians over the rounds: GFLOP/s of each product, the best of them, GB/s of the copy."""
        medians = {name: statistics.median(values) for name, values in self.found.items()}
        copied = medians.pop("copy")
        best = max(medians, key=lambda name: medians[name])
        return {
            "products_gflops": {name: round(value / 1e9, 1) for name, value in medians.items()},
            "matmul": best,
            "matmul_gflops": round(medians[best] / 1e9, 1),
            "copy_gb_per_second": round(copied / 1e9, 2),
            "rounds": len(self.found["copy"]),
        }


def products(x: torch.Tensor, weight: torch.Tensor) -> dict[str, Callable[[], object]]:
    """x (m, k) times the transposed weight (n, k), through each library."""
    found: dict[str, Callable[[], object]] = {"torch": lambda: torch.mm(x, weight.t())}
    if x.device.type == "cpu" and linear._ONEDNN:
        found["oneDNN"] = lambda: linear._product(x, weight, None)
    return found


def timed(
    run: Callable[[], object],
    flops: float,
    shape: TransformerShape,
    rows: int,
    *,
    dtype: torch.dtype,
    device: str,
    repeats: int,
    warm: int = 1,
) -> Row:
    """What every row of a timed case has: seconds, rate, share of the matmul rate, memory.

    Every round measures the machine's rates and then the work, so that a share compares what ran at
    nearly the same time. flops: of one call of `run`. rows: of the products of a model's layer.
    warm: calls before, of which the first compiles and warms caches. processor_share is the median
    share of the threads' time that was used, well below 1 where other programs had the cores or one
    thread did the work.
    """

    def once() -> None:
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)  # what was counted or built before is not it
    first, *_ = [seconds_of(once) for _ in range(warm)]
    memory = {"peak_mib": round(peak_mib(), 1)}  # before the products take memory of their own
    if device != "cpu":
        memory["peak_device_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    rows = max(ROWS[0], min(rows, ROWS[1]))
    rates = Rates(dtype, device, rows, shape.width, shape.mlp)
    found, used = [], []
    for _ in range(repeats):
        rates.measure()
        busy = time.process_time()
        found.append(seconds_of(once))
        used.append((time.process_time() - busy) / found[-1] / torch.get_num_threads())
    rates.measure()
    done, measured = flops / statistics.median(found) / 1e9, rates.result()
    return {
        "threads": torch.get_num_threads(),
        "seconds": [round(value, 4) for value in found],
        "first_call_seconds": round(first, 3),
        "processor_share": statistics.median(used),
        "gflops": done,
        "share_of_matmul_rate": done / measured["matmul_gflops"],
        **memory,
        "rates": measured,
    }
