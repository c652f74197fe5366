"""All experiments in turn: their flags in a full and in a quick run, one after the other.

Budgets of a quick run on embedded, in minutes on two idle cores, stand beside each experiment: an
aim that their flags were chosen for, not a measurement; every run prints what each took.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.reproduce import Options


@dataclass(frozen=True)
class Experiment:
    """One script of experiments/.

    what: of the paper. minutes: budget of a quick run. quick, full: options beside the shared ones.
    seeds: whether it takes several; one that shows pictures takes the first.
    """

    what: str
    minutes: float
    quick: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)
    seeds: bool = True


# Sampling comes first: later experiments find its tokens and features.
EXPERIMENTS = {
    "class_conditional": Experiment("Table 1, Figures 5 and 11 to 13", 3.0),
    "rejection_sampling": Experiment("Table 4", 1.5),
    "diversity": Experiment("Table 5", 3.0),
    "ablate_schedule": Experiment(
        "Table 3, Figure 8", 2.5, {"T": "4,8,10,12,16,32,60", "num_samples": 50}, {"T": "4..60"}
    ),
    "decoding_trace": Experiment("Figure 2", 0.2, seeds=False),
    "runtime": Experiment("Figure 4", 1.5, {"batch_sizes": "1", "tokens": "64,256"}, seeds=False),
    "editing": Experiment("Table 2, Figures 6, 7, 14 and 16 to 20", 1.0),
    "panorama": Experiment("Figure 15", 0.4),
    "reconstruction": Experiment(
        "Figures 9 and 10", 1.0, {"ratios": "0,0.1..0.7:0.2,0.8..0.95:0.05,0.98"}
    ),
    "failure_cases": Experiment("Figure 21", 0.5),
}
SHARED = ("preset", "weights", "weights_dir", "data", "workers", "device")


def reproduce(options: Options, names: Sequence[str]) -> int:
    """Run these experiments and build the index; prints one line each. Returns the exit code.

    What fails is told, and the others go on.
    """
    from experiments.engine.run.signals import Interrupted

    out = Path(os.path.abspath(options.out.expanduser()))
    reasons: dict[str, str] = {}
    for number, name in enumerate(EXPERIMENTS, 1):
        if name not in names:
            reasons[name] = "left out with --only"
            continue
        head = f"[{number}/{len(EXPERIMENTS)}] {name} ({EXPERIMENTS[name].what})"
        print(f"{head} ...", flush=True)
        began = time.monotonic()
        try:
            code = _run(options, name, out)
            why = "" if code == 0 else f"ended with exit code {code}"
        except Interrupted:
            raise
        except ModuleNotFoundError as error:
            why = f"no module {error.name}"
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            if not _is_usage(error):
                traceback.print_exc(file=sys.stderr)
        seconds = time.monotonic() - began
        print(f"{head}: {why if why else 'done'}, {seconds:.0f} s", flush=True)
        if why:
            reasons[name] = why
    reports = [out / name / "report" for name in EXPERIMENTS]
    reports = [folder for folder in reports if (folder / "summary.json").is_file()]
    there = {folder.parent.name for folder in reports}
    failed = [name for name in names if name in reasons]
    absent = {name: why for name, why in reasons.items() if name not in there}
    print(_index(reports, out / "report", absent))
    if failed:
        print(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def check_samples(options: Options, classes: int) -> None:
    """What every experiment would refuse is refused before the first one.

    Raises:
        UsageError: --num-samples is not as many of each class, --cas-samples is negative.
    """
    samples, cas = options.num_samples, options.cas_samples
    if samples is not None and (samples < 1 or samples % classes):
        raise UsageError(f"--num-samples {samples}: expected a multiple of the {classes} classes")
    if cas is not None and cas < 0:
        raise UsageError(f"--cas-samples {cas}: must be 0 or more")


def arguments(options: Options, name: str, out: Path, known: Sequence[str]) -> dict[str, Any]:
    """What an experiment's own Options are made from. known: the fields that they have."""
    experiment = EXPERIMENTS[name]
    seeds = options.seeds or ("0,1" if options.quick else "0,1,2")
    values: dict[str, Any] = {key: getattr(options, key) for key in SHARED}
    values |= {"out": out / name, "stages": out, "quick": options.quick}
    values["seeds"] = seeds if experiment.seeds else seeds.partition(",")[0].partition("..")[0]
    values |= experiment.quick if options.quick else experiment.full
    chosen = {name: getattr(options, name) for name in ("num_samples", "cas_samples")}
    values |= {name: value for name, value in chosen.items() if value is not None}
    return {key: value for key, value in values.items() if key in known}


def _run(options: Options, name: str, out: Path) -> int:
    module = importlib.import_module(f"experiments.{name}")
    known = [item.name for item in fields(module.Options)]
    return int(module.run(module.Options(**arguments(options, name, out, known))))


def _is_usage(error: Exception) -> bool:
    from experiments.engine.cli import is_usage_error

    return is_usage_error(error)


def _index(reports: list[Path], out: Path, reasons: dict[str, str]) -> Path:
    """The index of the reports that are there, and of what did not run, with the reason."""
    from reports.index import build_index
    from reports.not_run import write_page

    if reasons:
        told = {f"{EXPERIMENTS[name].what} ({name})": why for name, why in reasons.items()}
        reports = [*reports, write_page(out.parent / "not_run", told)]
    return build_index(reports, out)
