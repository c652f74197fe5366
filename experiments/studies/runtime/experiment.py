"""What runtime asks: seconds of MaskGIT and of the baseline, by tokens and batch size."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.engine.cells import Build
from experiments.engine.grid import parse_integers
from experiments.engine.options import PrecisionOptions
from experiments.sampler.building import make_build
from experiments.sampler.resources import find_resources
from maskgit.common.device import resolve_device

NAME = "runtime"


@dataclass(frozen=True)
class Options(PrecisionOptions):
    """Decoding time of MaskGIT beside the autoregressive baseline: the paper's Figure 4."""

    tokens: str = "64,256,1024"
    """Tokens an image: squares, such as 64 (8x8), 256, 1024."""
    T: str = "8,12"
    """Iterations of MaskGIT."""
    batch_sizes: str = "1,8"
    """Images decoded at a time."""
    rounds: int = 5
    """Measured rounds, after one that is not counted."""

    def check(self) -> None:
        super().check()
        self.at_least(1, "rounds")


def build(options: Options) -> Build:
    """One cell for each number of tokens and batch size, computed one after the other."""
    from experiments.studies.runtime.compute import device_name

    lengths = parse_integers(options.tokens, "--tokens", 4, 4096)
    steps = parse_integers(options.T, "--T", 1, 256)
    batches = parse_integers(options.batch_sizes, "--batch-sizes", 1, 4096)
    resources = find_resources(NAME, options, ["maskgit"])
    shared = {"steps": steps, "rounds": options.rounds, "seed": 0, "precision": options.precision}
    shared["device"] = device_name(resolve_device(options.device))
    tasks = [
        resources.task({**shared, "tokens": N, "batch": batch}, cost=batch * N, size=batch)
        for N in lengths
        for batch in batches
    ]
    # Two cells at a time would measure each other.
    return make_build(resources, options, tasks, {}, most_workers=1)
