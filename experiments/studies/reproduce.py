"""All experiments of the registry in turn, one after the other, and the index of their reports."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from experiments.engine import command
from experiments.engine.grid import parse_names
from experiments.studies.registry import EXPERIMENTS
from maskgit.common.errors import UsageError
from maskgit.presets import load_preset
from reports.index import build_index

SHARED = ("preset", "weights", "feature_weights", "data", "workers", "device", "quick")


@dataclass(frozen=True)
class Options:
    """All tables and figures of the paper, one after the other."""

    ALIASES: ClassVar[dict[str, str]] = {"--weights-dir": "--feature-weights"}

    preset: str = "embedded"
    """Benchmark: data, networks, reference."""
    quick: bool = False
    """Few samples and coarse grids: on embedded under 15 minutes on two idle cores."""
    seeds: str | None = None
    """Seeds of everything that is drawn. Default: 0,1,2 (with --quick 0,1)."""
    num_samples: int | None = None
    """Samples of a cell, in the experiments that sample. Default: each one's own."""
    cas_samples: int | None = None
    """Images that each classifier of the CAS is trained on; 0: no CAS. Default: as above."""
    only: str = "all"
    """Names of experiments, separated by commas."""
    out: Path = Path("runs/reproduce")
    """Folder of all runs and of the index."""
    weights: Path | None = None
    """Folder with the networks, as the experiments take it."""
    feature_weights: Path | None = None
    """Folder with the weights of feature networks."""
    data: Path | None = None
    """Folder with images: train/CLASS/* and val/CLASS/*."""
    workers: int | None = None
    """Processes, as the experiments take it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:0."""


def run(options: Options) -> int:
    """Run the experiments and build the index; prints one line each. Returns the exit code.

    What fails is told, and the others go on.

    Raises:
        UsageError: what every experiment would refuse, before the first one.
        Interrupted: a signal came.
    """
    _check_samples(options)
    names = parse_names(options.only, "--only", list(EXPERIMENTS))
    out = Path(os.path.abspath(os.path.expanduser(options.out)))
    reasons: dict[str, str] = {}
    for number, name in enumerate(EXPERIMENTS, 1):
        if name not in names:
            reasons[name] = "left out with --only"
            continue
        head = f"[{number}/{len(EXPERIMENTS)}] {name} ({EXPERIMENTS[name].what})"
        print(f"{head} ...", flush=True)
        began = time.monotonic()
        why = _run_one(options, name, out)
        print(f"{head}: {why or 'done'}, {time.monotonic() - began:.0f} s", flush=True)
        if why:
            reasons[name] = why
    reports = [out / name / "report" for name in EXPERIMENTS]
    reports = [folder for folder in reports if (folder / "summary.json").is_file()]
    there = {folder.parent.name for folder in reports}
    print(_index(reports, out / "report", {n: w for n, w in reasons.items() if n not in there}))
    failed = [name for name in names if name in reasons]
    if failed:
        print(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _check_samples(options: Options) -> None:
    """Refuse what every experiment would refuse, before the first one."""
    classes = load_preset(options.preset).num_classes
    samples, cas = options.num_samples, options.cas_samples
    if samples is not None and (samples < 1 or samples % classes):
        raise UsageError(f"--num-samples {samples}: expected a multiple of the {classes} classes")
    if cas is not None and cas < 0:
        raise UsageError(f"--cas-samples {cas}: must be 0 or more")


def _run_one(options: Options, name: str, out: Path) -> str:
    """Run one experiment; returns why it failed, empty if it did not."""
    try:
        kind = EXPERIMENTS[name].options
        known = [item.name for item in fields(kind)]
        code = command.run(name, kind(**arguments(options, name, out, known)))
        return "" if code == 0 else f"ended with exit code {code}"
    except ModuleNotFoundError as error:
        return f"no module {error.name}"
    except Exception as error:
        if not isinstance(error, UsageError):
            traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def arguments(options: Options, name: str, out: Path, known: Sequence[str]) -> dict[str, Any]:
    """What an experiment's own options are made from. known: the fields that they have."""
    experiment = EXPERIMENTS[name]
    seeds = options.seeds or ("0,1" if options.quick else "0,1,2")
    values: dict[str, Any] = {key: getattr(options, key) for key in SHARED}
    values |= {"out": out / name, "stages": out}
    values["seeds"] = seeds.partition(",")[0].partition("..")[0] if experiment.one_seed else seeds
    values |= experiment.quick if options.quick else experiment.full
    chosen = {key: getattr(options, key) for key in ("num_samples", "cas_samples")}
    values |= {key: value for key, value in chosen.items() if value is not None}
    return {key: value for key, value in values.items() if key in known}


def _index(reports: list[Path], out: Path, reasons: dict[str, str]) -> Path:
    """The index of the reports that are there, and of what did not run, with the reason."""
    from reports.not_run import write_page

    if reasons:
        told = {f"{EXPERIMENTS[name].what} ({name})": why for name, why in reasons.items()}
        reports = [*reports, write_page(out.parent / "not_run", told)]
    return build_index(reports, out)
