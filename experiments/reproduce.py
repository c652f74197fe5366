"""All tables and figures of the paper, one after the other, into one folder with one index.

    python experiments/reproduce.py --preset embedded --quick

Each experiment goes to OUT/NAME with its report, what they share to OUT/stages, the index of all
reports to OUT/report. The same command again goes on where it was. Exit codes: 0 all done, 1 one
failed, 2 a wrong request.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

try:
    from experiments.engine import cli
    from experiments.studies.reproducing import EXPERIMENTS, check_samples, reproduce
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)

NAME = "reproduce"


@dataclass(frozen=True)
class Options:
    """All tables and figures of the paper, one after the other."""

    preset: str = "embedded"
    """Benchmark: data, networks, reference."""
    quick: bool = False
    """Few samples and coarse grids: on embedded under 15 minutes on two idle cores."""
    seeds: str | None = None
    """Seeds of everything that is drawn. Default: 0,1,2 (with --quick 0,1)."""
    num_samples: int | None = None
    """Samples a cell, in the experiments that sample. Default: each one's own."""
    cas_samples: int | None = None
    """Images that each classifier of the CAS is trained on; 0: no CAS. Default: as above."""
    only: str = "all"
    """Names of experiments, separated by commas."""
    out: Path = Path("runs/reproduce")
    """Folder of all runs and of the index."""
    weights: Path | None = None
    """Folder with the networks, as the experiments take it."""
    weights_dir: Path | None = None
    """Folder with the weights of feature networks."""
    data: Path | None = None
    """Folder with images: train/CLASS/* and val/CLASS/*."""
    workers: int | None = None
    """Processes, as the experiments take it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:0."""


def run(options: Options) -> int:
    """Run them; see `experiments.studies.reproducing`."""
    from experiments.engine.grid import parse_names
    from maskgit.presets import get_preset

    check_samples(options, get_preset(options.preset).num_classes)
    return reproduce(options, parse_names(options.only, "--only", list(EXPERIMENTS)))


def main() -> None:
    """Entry point."""
    cli.main(run, Options, f"{NAME}.py", __doc__)


if __name__ == "__main__":
    main()
