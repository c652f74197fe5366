"""Decoding time of MaskGIT beside the autoregressive baseline: the paper's Figure 4.

    python experiments/runtime.py --tokens 64,256,1024 --T 8,12 --batch-sizes 1,8

Random weights of the preset's sizes, KV cache for the baseline, medians after a warm-up, all in one
process on an otherwise idle machine. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass, replace

try:
    from experiments.engine import cli
    from experiments.engine.grid import parse_integers
    from experiments.studies.options import StudyOptions
    from maskgit.common.errors import UsageError
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "runtime"


@dataclass(frozen=True)
class Options(StudyOptions):
    """Decoding time of MaskGIT beside the autoregressive baseline: the paper's Figure 4."""

    tokens: str = "64,256,1024"
    """Tokens an image: squares, such as 64 (8x8), 256, 1024."""
    T: str = "8,12"
    """Iterations of MaskGIT."""
    batch_sizes: str = "1,8"
    """Images decoded at a time."""
    rounds: int = 5
    """Measured rounds, after one that is not counted."""


def run(options: Options) -> int:
    """Build the cells and run them, one after the other."""
    from experiments.engine.sweep import only_report
    from experiments.sampler.compute import resolve_device
    from experiments.studies.base import make_study, run_study
    from experiments.studies.runtime.compute import device_name

    options.check()
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds}: must be at least 1")
    lengths = parse_integers(options.tokens, "--tokens", 4, 4096)
    steps = parse_integers(options.T, "--T", 1, 256)
    batches = parse_integers(options.batch_sizes, "--batch-sizes", 1, 4096)
    if options.only_report:
        return only_report(NAME, options)
    study = make_study(
        NAME, f"experiments.studies.{NAME}.compute", options, autoregressive=False, held_out=False
    )
    shared = {"steps": steps, "rounds": options.rounds, "seed": 0}
    shared["device"] = device_name(resolve_device(options.device))
    tasks = [
        study.task({**shared, "tokens": N, "batch": batch}, cost=batch * N, size=batch)
        for N in lengths
        for batch in batches
    ]
    # Two cells at a time would measure each other.
    return run_study(study, replace(options, workers=min(1, options.workers or 1)), tasks)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
