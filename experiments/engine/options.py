"""Options that every sweep of the sampler shares; a sweep's own dataclass adds its axes."""

import math
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.engine.cells import BACKENDS, PRECISIONS
from experiments.engine.grid import parse_integers, parse_names
from maskgit.common.errors import UsageError
from maskgit.sampling.compiled import check_mode

if TYPE_CHECKING:
    from slurm.profile import Profile

METRICS = ("fid", "is", "precision", "recall", "kid", "nll")
MAX_WORKERS = 8  # by default; each holds the networks in memory
GPU_WORKERS = 2  # per GPU: while one measures, which is the CPU's work, the other samples


@dataclass(frozen=True)
class SweepOptions:
    """Shared options. The docstrings below are the texts of --help."""

    num_samples: int | None = None
    """Samples per cell; sample i is of class i mod the number of classes. Default: the preset's."""
    seeds: str = "0"
    """Seeds of the noise, such as 0,1,2 or 0..4."""
    choice_temperature: float = 4.5
    """Temperature of the noise in the confidence, annealed to 0 over the iterations."""
    preset: str = "embedded"
    """Benchmark: data, networks, reference."""
    weights: Path | None = None
    """Folder with tokenizer and transformer-SCHEDULE (or transformer, for all) as our folders, or
    with the official files. Default: those shipped, or fetched."""
    metrics: str = "all"
    """Of fid, is, precision, recall, kid, nll."""
    features: str | None = None
    """Feature network that measures. Default: the preset's."""
    weights_dir: Path | None = None
    """Folder with the weights of feature networks. Default: those shipped, installed or fetched."""
    data: Path | None = None
    """Folder with held-out images for NLL, val/CLASS/*. Default: those shipped, if any are."""
    backend: str = "torch"
    """Library that samples and decodes: torch or jax."""
    precision: str = "float32"
    """Of the transformer while it samples: float32, or bfloat16, which is faster on a GPU and draws
    other samples. Pixels and measures stay float32."""
    mode: str = "eager"
    """How its forwards run: eager, or compiled, graphs (CUDA graphs) or autotuned, which are
    torch's compiler, need a C++ compiler, and draw other samples (maskgit/sampling/compiled.py)."""
    out: Path | None = None
    """Folder of the run; the report then goes to its report/. Default: runs/ and reports/out/."""
    stages: Path | None = None
    """Folder whose kept tokens and features are used and added to. Default: that of --out."""
    workers: int | None = None
    """Processes; 0 computes in this one. Default: two per GPU, so that one samples while the other
    measures (1 where a GPU takes one process only); or one per core up to 8 for small networks, one
    for large ones, which use all cores, and for JAX."""
    batch_size: int | None = None
    """Images in one forward. Changes the speed, and in --mode eager on a CPU never a sample.
    Default: what suits the device."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:0; auto takes a GPU if there is one."""
    dry_run: bool = False
    """Count the cells, cached and to do, measure for a second and estimate the time; no more."""
    only_report: bool = False
    """Build the report of the last grid in --out again; compute nothing."""
    slurm: str | None = None
    """Submit the cells to SLURM and return: a profile such as a100, or the path of a TOML file."""
    slurm_set: str | None = None
    """Other values for the profile, such as "time=08:00:00 partition=gpu"."""
    snapshot: bool = False
    """With --slurm: the jobs run from a copy of the code made now."""
    chain_report: bool = False
    """With --slurm: one more job builds the report when all others have ended."""
    wait: bool = False
    """With --slurm: follow the jobs until they have ended, then build the report."""

    def seed_list(self) -> list[int]:
        """Parsed --seeds."""
        return parse_integers(self.seeds, "--seeds", 0, 2**32 - 1)

    def metric_list(self) -> list[str]:
        """Parsed --metrics."""
        return parse_names(self.metrics, "--metrics", METRICS)

    def check(self) -> None:
        """Look at the numbers that no grammar checks.

        Raises:
            UsageError: one is out of range.
        """
        for flag, value, least in (
            ("--num-samples", self.num_samples, 1),
            ("--workers", self.workers, 0),
            ("--batch-size", self.batch_size, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"{flag} {value}: must be at least {least}")
        if not (math.isfinite(self.choice_temperature) and self.choice_temperature >= 0):
            raise UsageError(
                f"--choice-temperature {self.choice_temperature}: must be 0 or more, and finite"
            )
        for flag, name, known in (
            ("--backend", self.backend, BACKENDS),
            ("--precision", self.precision, PRECISIONS),
        ):
            if name not in known:
                raise UsageError(f"{flag} {name}: expected one of {', '.join(known)}")
        for flag, given in (
            ("--slurm-set", self.slurm_set),
            ("--snapshot", self.snapshot),
            ("--chain-report", self.chain_report),
            ("--wait", self.wait),
        ):
            if given and self.slurm is None:
                raise UsageError(f"{flag}: only with --slurm PROFILE")
        if self.slurm is not None:  # the compiler is then looked for where the jobs run
            self.slurm_profile()
        else:
            check_mode(self.mode, "--mode")
        for flag, folder in (("--weights-dir", self.weights_dir), ("--data", self.data)):
            if folder is not None and not folder.is_dir():
                raise UsageError(f"{flag} {folder}: no such folder")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", self.device):
            raise UsageError(f"--device {self.device}: expected auto, cpu, cuda or cuda:0")

    def slurm_profile(self) -> "Profile":
        """The profile of --slurm with the values of --slurm-set.

        Raises:
            UsageError: (of slurm too) there is none of that name, or a value it does not take.
        """
        from slurm.profile import load_profile

        try:
            words = shlex.split(self.slurm_set or "")
        except ValueError as error:
            raise UsageError(
                f"--slurm-set {self.slurm_set}: {error}; expected key=value key=value"
            ) from None
        return load_profile(str(self.slurm), words)

    def folders(self, experiment: str) -> tuple[Path, Path]:
        """(folder of the run, folder of the report), absolute."""
        if self.out is not None:
            out = Path(os.path.abspath(self.out.expanduser()))
            return out, out / "report"
        root = repository_root(Path.cwd())
        return root / "runs" / experiment, root / "reports" / "out" / experiment


def repository_root(start: Path) -> Path:
    """The nearest folder at or above `start` with pyproject.toml or .git, else `start` itself."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() or (folder / ".git").exists():
            return folder
    return start
