"""Options of the experiments, in groups: an experiment's own dataclass takes those that mean
something for it and adds its own. The docstrings of the fields are the texts of --help."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
import shlex
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from eval.metrics.inception_score import SPLITS_FROM, TEN
from eval.metrics.registry import METRICS, ON_FEATURES, parse_metrics
from experiments.engine.cells import BACKENDS, PRECISIONS, Sampling
from experiments.engine.grid import parse_integers
from experiments.sampler.samplers import SAMPLERS, sampling
from maskgit.common.errors import UsageError
from maskgit.sampling.compiled import check_mode
from slurm.profile import load_profile

if TYPE_CHECKING:
    from maskgit.presets import Preset
    from slurm.profile import Profile

# Options that change no number, or say where things are on one machine.
NO_NUMBER = (
    *("out", "stages", "workers", "device", "batch_size", "dry_run", "only_report"),
    *("slurm", "slurm_set", "snapshot", "chain_report", "wait"),
)

MOST = 2**31 - 1  # of any number of things


@dataclass(frozen=True)
class RunOptions:
    """Options of every experiment."""

    # Older names of flags, which are understood and not shown.
    ALIASES: ClassVar[dict[str, str]] = {"--steps": "--T", "--weights-dir": "--feature-weights"}

    preset: str = "embedded"
    """Benchmark: data, networks, reference. A name, or the path of a TOML file of one's own."""
    weights: Path | None = None
    """Folder with tokenizer and transformer-SCHEDULE (or transformer, for all) as our folders, or
    with the official files. Default: those shipped, or fetched."""
    out: Path | None = None
    """Folder of the run; the report then goes to its report/. Default: runs/ and reports/out/."""
    workers: int | None = None
    """Processes; 0 computes in this one. Default: two per GPU, so that one samples while the other
    measures (1 where a GPU takes one process only); or one per core up to 8 for small networks, one
    for large ones, which use all cores, and for JAX."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:0; auto takes a GPU if there is one."""
    dry_run: bool = False
    """Count the cells, cached and to do, and compute nothing; ablate_schedule also measures for a
    second and estimates the time."""
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

    def check(self) -> None:
        """Check the values that no grammar checks. A group of options extends it.

        Raises:
            UsageError: one is out of range, or means nothing without another.
        """
        self.at_least(0, "workers")
        for name in ("slurm_set", "snapshot", "chain_report", "wait"):
            if getattr(self, name) and self.slurm is None:
                raise UsageError(f"{flag_of(name)}: only with --slurm PROFILE")
        if self.slurm is not None:
            self.slurm_profile()
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", self.device):
            raise UsageError(f"--device {self.device}: expected auto, cpu, cuda or cuda:0")

    def at_least(self, least: int, *names: str) -> None:
        """Raise a UsageError if one of these options is given and smaller, or absurdly large."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{flag_of(name)} {value}: must be at least {least}")
            if value is not None and value > MOST:
                raise UsageError(f"{flag_of(name)} {value}: must be at most {MOST}")

    def one_of(self, name: str, known: tuple[str, ...]) -> None:
        """Raise a UsageError if the option has none of these values."""
        value = getattr(self, name)
        if value not in known:
            raise UsageError(f"{flag_of(name)} {value}: expected one of {', '.join(known)}")

    def folder(self, name: str) -> None:
        """Raise a UsageError if the option names a folder that does not exist."""
        path = getattr(self, name)
        if path is not None and not path.is_dir():
            raise UsageError(f"{flag_of(name)} {path}: no such folder")

    def slurm_profile(self) -> Profile:
        """The profile of --slurm with the values of --slurm-set.

        Raises:
            UsageError: there is none of that name, or it does not take a value.
        """

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
            out = Path(os.path.abspath(os.path.expanduser(self.out)))
            return out, out / "report"
        root = repository_root(Path.cwd())
        return root / "runs" / experiment, root / "reports" / "out" / experiment

    def stages_folder(self, experiment: str) -> Path:
        """The folder whose stages/ holds the kept tokens and features."""
        return getattr(self, "stages", None) or self.folders(experiment)[0]


@dataclass(frozen=True)
class SeedOptions(RunOptions):
    """Options of experiments that draw."""

    seeds: str = "0"
    """Seeds of the noise, such as 0,1,2 or 0..4."""

    def seed_list(self) -> list[int]:
        """Parsed --seeds."""
        return parse_integers(self.seeds, "--seeds", 0, 2**32 - 1)


@dataclass(frozen=True)
class PrecisionOptions(RunOptions):
    """An option of experiments that decode tokens."""

    precision: str = "float32"
    """Of the networks that draw tokens: float32, or bfloat16, which is faster on a GPU and draws
    other samples. Pixels and measures stay float32."""

    def check(self) -> None:
        super().check()
        self.one_of("precision", PRECISIONS)


@dataclass(frozen=True)
class QuickOptions(RunOptions):
    """An option of experiments with a shorter form."""

    quick: bool = False
    """Fewer samples, to see that it runs; the numbers are then too noisy to say much."""


@dataclass(frozen=True)
class StageOptions(RunOptions):
    """An option of experiments that share their samples."""

    stages: Path | None = None
    """Folder whose kept tokens and features are used and added to. Default: that of --out."""


@dataclass(frozen=True)
class SamplingOptions(SeedOptions, StageOptions, PrecisionOptions):
    """Options of experiments that sample whole images."""

    num_samples: int | None = None
    """Samples of a cell; sample i is of class i mod the number of classes. Default: the preset's
    number."""
    choice_temperature: float | None = None
    """Temperature of the noise in the confidence, annealed to 0 over the iterations. Default: the
    preset's."""
    backend: str = "torch"
    """Library that samples and decodes: torch or jax."""
    mode: str = "eager"
    """How its forwards run: eager, or compiled, graphs (CUDA graphs) or autotuned, which are
    torch's compiler, need a C++ compiler, and draw other samples (maskgit/sampling/compiled.py)."""
    batch_size: int | None = None
    """Images in one forward. Changes the speed, and in --mode eager on a CPU never a sample.
    Default: what suits the device."""

    def check(self) -> None:
        super().check()
        self.at_least(1, "num_samples", "batch_size")
        temperature = self.choice_temperature
        if temperature is not None and not (math.isfinite(temperature) and temperature >= 0):
            raise UsageError(f"--choice-temperature {temperature}: must be 0 or more, and finite")
        self.one_of("backend", BACKENDS)
        if self.slurm is None:  # else the compiler is looked for where the jobs run
            check_mode(self.mode, "--mode")
        if self.backend == "jax":
            _check_jax()

    def sampling(
        self, preset: Preset, sampler: str = "maskgit", *, compared: bool = False, **settings: Any
    ) -> Sampling:
        """The settings of a sampler with these options, see `samplers.sampling`.

        compared: whether it only stands beside another; it then runs as near to what was asked for
        as it can. settings: of `Sampling`, beside those that the options give.
        """
        backend, mode = self.backend, self.mode
        if compared:
            code = SAMPLERS[sampler].code
            backend = backend if backend in code else "torch"
            mode = mode if mode in code[backend].modes else "eager"
        return sampling(
            preset,
            sampler,
            choice_temperature=self.choice_temperature,
            backend=backend,
            precision=self.precision,
            mode=mode,
            **settings,
        )


@dataclass(frozen=True)
class DataOptions(RunOptions):
    """An option of experiments that read real images."""

    data: Path | None = None
    """Folder with images: train/CLASS/* and val/CLASS/*. Default: those shipped, if any are."""
    held_out: int | None = None
    """Held-out images that are used, of a folder those of each class in turn. Default: 2000 for the
    NLL; else all, of the embedded preset 2000 and for CAS 5000."""

    def check(self) -> None:
        super().check()
        self.folder("data")
        self.at_least(1, "held_out")


@dataclass(frozen=True)
class FeatureWeightsOptions(RunOptions):
    """An option of experiments that measure with networks of others."""

    feature_weights: Path | None = None
    """Folder with the weights of feature networks. Default: those shipped, installed or fetched."""

    def check(self) -> None:
        super().check()
        self.folder("feature_weights")


@dataclass(frozen=True)
class FeatureOptions(FeatureWeightsOptions):
    """Options of experiments that look at images with a feature network."""

    features: str | None = None
    """Feature network that measures. Default: the preset's."""


@dataclass(frozen=True)
class ClassifierOptions(FeatureWeightsOptions):
    """An option of experiments that ask a classifier for the class of an image."""

    classifier: str | None = None
    """Network that names classes, which are matched by their names: resnet50, fashion-resnet,
    efficientnet-lite0. Default: the preset's."""

    def classifier_name(self, preset: Preset) -> str:
        """--classifier, or the preset's, or the feature network."""
        features = getattr(self, "features", None) or preset.features
        return self.classifier or preset.rejection_classifier or features


@dataclass(frozen=True)
class MeasureOptions(FeatureOptions):
    """Options of experiments that measure images on a feature network."""

    usual_metrics: ClassVar[tuple[str, ...]] = ()  # what `all` stands for

    metrics: str = "all"
    """Names such as fid,kid,density,coverage,fid-infinity, or all: those of the paper's table."""

    def check(self) -> None:
        super().check()
        self.metric_list()

    def metric_list(self, samples: int = 0) -> list[str]:
        """Parsed --metrics, in the order of the registry.

        samples: of a cell; with so many that ten splits say something, the Inception Score that
            other libraries report belongs to the usual metrics.

        Raises:
            UsageError: an unknown name, or one that the experiment cannot measure.
        """

        usual = self.usual_metrics
        if samples >= SPLITS_FROM and "is" in usual:
            after = usual.index("is") + 1
            usual = (*usual[:after], TEN.name, *usual[after:])
        if self.metrics == "all":
            return list(usual)
        # A metric with a feature network of its own would measure beside --features.
        others = [name for name in ON_FEATURES if name not in usual and not METRICS[name].network]
        known = [*usual, *others]
        asked = parse_metrics(self.metrics, known)
        return [name for name in known if name in asked]


@dataclass(frozen=True)
class FillingOptions(SeedOptions, QuickOptions, DataOptions, PrecisionOptions):
    """Options of experiments that decode a part of held-out images again."""

    num_samples: int | None = None
    """Held-out images of a cell. Default: each experiment's own number, see its page in docs/."""
    T: int = 12
    """Iterations of MaskGIT."""

    def check(self) -> None:
        super().check()
        self.at_least(1, "num_samples", "T")

    def check_start(self, start: int) -> None:
        """Raise a UsageError if --start is none of the T iterations."""
        if not 0 <= start < self.T:
            raise UsageError(f"--start {start}: must be from 0 to {self.T - 1}, below --T")

    def image_count(self, held_out: Sized, most: int, quick: int) -> int:
        """--num-samples, or the usual number; never more than there are held-out images."""
        return min(self.num_samples or (quick if self.quick else most), len(held_out))


def flag_of(name: str) -> str:
    """`num_samples` -> `--num-samples`."""
    return "--" + name.replace("_", "-")


def command(experiment: str, options: RunOptions) -> str:
    """The command that asks for these numbers, to paste: options that differ from their defaults.

    A relative path stands as it was typed; an absolute one, which is of one machine, as FOLDER.
    """
    words = [f"python experiments/{experiment}.py"]
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        if item.name in NO_NUMBER or value == item.default:
            continue
        if isinstance(value, bool):
            words.append(flag_of(item.name))
            continue
        text = str(value)
        if os.path.isabs(os.path.expanduser(text)):
            text = "FILE.toml" if text.endswith(".toml") else "FOLDER"
        words.append(f"{flag_of(item.name)} {shlex.quote(text)}")
    return " ".join(words)


def repository_root(start: Path) -> Path:
    """The nearest folder at or above `start` with pyproject.toml or .git, else `start` itself."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() or (folder / ".git").exists():
            return folder
    return start


def _check_jax() -> None:
    if importlib.util.find_spec("jax") is None:
        raise UsageError(
            "--backend jax: needs the extra `jax`: pip install 'maskgit-bench[jax]', "
            "or take --backend torch"
        )
