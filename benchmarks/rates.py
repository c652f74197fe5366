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

COPY_MIB = 256
SQUARE = {"cpu": 2048, "cuda": 8192}
SECONDS = 0.25  # of each product in a round


class Rates:
    """Products and a copy, timed round after round between the work they are compared with.

    rows, width, mlp: sizes of the model's layer, rows being images times sequence length.
    """

    def __init__(
        self, dtype: torch.dtype, device: str, rows: int, width: int, mlp: int, seconds: float
    ):
        self.device, self.seconds = device, seconds
        side = SQUARE["cpu" if device == "cpu" else "cuda"]
        shapes = {
            f"{side} x {side} x {side}": (side, side, side),
            f"{rows} x {width} x {mlp}": (rows, width, mlp),
            f"{rows} x {mlp} x {width}": (rows, mlp, width),
        }
        self._products: dict[str, tuple[int, Callable[[], object]]] = {}
        with torch.inference_mode():
            for name, (m, k, n) in shapes.items():
                x = torch.randn(m, k, dtype=dtype, device=device)
                weight = torch.randn(n, k, dtype=dtype, device=device)
                for library, product in libraries(x, weight).items():
                    self._products[f"{name}, {library}"] = 2 * m * k * n, product
            count = COPY_MIB * 2**20 // 4
            source = torch.zeros(count, device=device)
            target = torch.ones(count, device=device)
        self._copy = lambda: target.copy_(source)
        self._bytes = 2 * 4 * count
        self.found: dict[str, list[float]] = {}

    @torch.inference_mode()
    def measure(self) -> None:
        """One round."""
        for name, (operations, product) in self._products.items():
            self._note(name, operations, product)
        self._note("copy", self._bytes, self._copy)

    def beside(self, run: Callable[[], object], repeats: int) -> tuple[list[float], float]:
        """Seconds of each of so many calls, with a round before, between and after them; and the
        median share of the threads' time that they used, well below 1 where others had the cores
        or one thread did the work."""
        found, used = [], []
        for _ in range(repeats):
            self.measure()
            start, busy = time.perf_counter(), time.process_time()
            run()
            found.append(time.perf_counter() - start)
            used.append((time.process_time() - busy) / found[-1] / torch.get_num_threads())
        self.measure()
        return found, statistics.median(used)

    def _note(self, name: str, amount: int, run: Callable[[], object]) -> None:
        run()
        synchronise(self.device)
        calls, start = 0, time.perf_counter()
        while True:
            run()
            calls += 1
            if self.device == "cpu" or calls % 16 == 0:
                synchronise(self.device)
                passed = time.perf_counter() - start
                if passed >= self.seconds:
                    break
        self.found.setdefault(name, []).append(amount * calls / passed)

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


def libraries(x: torch.Tensor, weight: torch.Tensor) -> dict[str, Callable[[], object]]:
    """x (m, k) times the transposed weight (n, k), through each library."""
    from maskgit.model import linear

    found: dict[str, Callable[[], object]] = {"torch": lambda: torch.mm(x, weight.t())}
    if x.device.type == "cpu" and linear._ONEDNN:
        found["oneDNN"] = lambda: linear._product(x, weight, None)
    return found


def synchronise(device: str) -> None:
    """Wait for the work of a GPU; a CPU's is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def machine_rates(
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    rows: int = 1028,
    width: int = 768,
    mlp: int = 3072,
    rounds: int = 1,
) -> dict[str, Any]:
    """The result of a few rounds with nothing between them."""
    rates = Rates(dtype, device, rows, width, mlp, SECONDS)
    for _ in range(rounds):
        rates.measure()
    return rates.result()
