"""What all studies share: from plain cells to tasks, the networks of a worker, running, reporting.

A study is a module with a dict METRICS (name -> id with version) and a function
`compute(context, cell) -> Outcome`, where a cell is a dict of plain data. Everything else (keys,
leases, workers, resume, the report) is the engine's, as for sweeps of the sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import USUAL, Cell, Outcome, Task
from experiments.engine.fingerprint import fingerprint
from experiments.engine.grid import grid_json
from experiments.engine.keys import cell_key, digest
from experiments.engine.options import SweepOptions
from experiments.engine.sweep import run_tasks
from experiments.sampler.compute import SamplerComputer, library_versions
from experiments.sampler.request import Request, check_device, make_task, resolve
from experiments.sampler.stage_code import code_fingerprints

if TYPE_CHECKING:
    from eval.features.registry import Extractor
    from experiments.engine.store.stages import Stages
    from experiments.sampler.measuring import Real
    from maskgit.presets import Preset

SCHEDULE = "cosine"  # of the studies that need one transformer: the paper's choice


@dataclass(frozen=True)
class Study:
    """One study with its request.

    module: with METRICS and `compute`. request: networks, feature networks, held-out images.
    metrics: those asked for. samplers: which networks sample. data, weights_dir: as the options.
    """

    experiment: str
    module: str
    request: Request
    features: tuple[str, ...]
    samplers: tuple[str, ...]
    data: Path | None = None
    weights_dir: Path | None = None

    @property
    def preset(self) -> Preset:
        """The preset of the request."""
        from maskgit.presets import get_preset

        return get_preset(self.request.preset)

    @property
    def metrics(self) -> dict[str, str]:
        """Name -> id of every metric of the study."""
        return import_module(self.module).METRICS

    def task(self, cell: dict[str, Any], cost: float, size: int) -> Task:
        """The task of a cell. cost: in forwards of one image; size: images, for the progress."""
        cell = {"experiment": self.experiment, "preset": self.request.preset, **cell}
        networks = self.request.networks
        data = {side.reference: side.statistics for side in self.request.sides.values()}
        data["held-out"] = self.request.held_out.sha256
        weights = {name: network.sha256 for name, network in networks.items()}
        weights |= {name: side.weights for name, side in self.request.sides.items()}
        key = cell_key(
            cell,
            weights=weights,
            sizes={name: network.identity[1] for name, network in networks.items()},
            data=data,
            metrics=self.metrics,
            code=self.code,
        )
        return Task(key=key, cell=cell, group=digest(sorted(weights.items())), cost=cost, size=size)

    @cached_property
    def code(self) -> dict[str, str]:
        """Fingerprints of the sources that compute a cell."""
        from eval.features.registry import EXTRACTORS

        extractors = [EXTRACTORS[name].partition(":")[0] for name in self.features]
        roots = [
            self.module,
            "maskgit.checkpoints",
            "maskgit.model.transformer",
            "maskgit.model.tokenizer",
        ]
        code = {"study": fingerprint(*roots, "eval.features.registry", *extractors)}
        # What `Context.sampled` and `Context.decode` reach by names that imports do not show.
        for sampler in self.samplers:
            stages = code_fingerprints(self.features[0], sampler=sampler)
            code |= {f"tokens-{sampler}": stages["tokens"], "images": stages["images"]}
        return code

    def protocol(self) -> dict[str, Any]:
        """What holds for all cells, for grid.json: plain data without paths."""
        preset = self.preset
        facts: dict[str, Any] = {
            "features": ", ".join(self.features),
            "reference": ", ".join(s.reference for s in self.request.sides.values()),
            "metrics": self.metrics,
            "num_tokens": preset.num_tokens,
            "image_size": preset.image_size,
            "class_names": list(preset.class_names),
            "held_out": self.request.held_out.words,
            "code": self.code,
        }
        missing = self.request.unavailable()
        return facts | ({"missing": missing} if missing else {})


class Context:
    """The networks and data of one worker, loaded at first use."""

    def __init__(self, study: Study, computer: SamplerComputer):
        self.study, self.computer = study, computer

    @property
    def preset(self) -> Preset:
        """The preset of the study."""
        return self.study.preset

    @property
    def device(self) -> str:
        """Where the networks are: "cpu", "cuda:0", ..."""
        return self.computer.where

    @property
    def transformer(self) -> Any:
        """MaskGIT's transformer of the cosine schedule."""
        return self.computer.sampler(self._cell("maskgit"))

    @property
    def autoregressive(self) -> Any:
        """The autoregressive baseline."""
        return self.computer.sampler(self._cell("autoregressive"))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.computer.tokenizer()

    def extractor(self, features: str) -> Extractor | None:
        """A feature network, or None if its weights are not here."""
        side = self.study.request.sides[features]
        return None if side.no_features else self.computer.extractor(features)

    def real(self, features: str) -> Real | None:
        """The reference of a feature network, or None if it is not here."""
        return self.computer.real(features)

    def why_missing(self, features: str) -> str:
        """Why numbers on this feature network are missing; empty if they are not."""
        side = self.study.request.sides[features]
        return side.no_features or side.no_reference

    @property
    def stages(self) -> Stages:
        """Kept intermediates, shared by all studies that are given the same --stages."""
        from experiments.engine.store.stages import Stages

        return Stages(self.computer.run)

    def sampled(self, cell: Cell) -> np.ndarray:
        """Tokens uint16 (n, N) of a cell of the sampler, from its stage file if they are there."""
        return self.computer.tokens(make_task(self.study.request, cell))

    def decode(self, tokens: np.ndarray) -> Iterator[np.ndarray]:
        """Images uint8 (m, H, W, C) of tokens (n, N), a few at a time."""
        return self.computer.decode(tokens, "torch")

    def held_out(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first held-out images uint8 (n, H, W, C), at most `count`, and classes int64 (n,)."""
        held_out = self.study.request.held_out
        parts, have = [], 0
        for batch in held_out.batches():
            parts.append(batch)
            have += len(batch)
            if have >= count:
                break
        labels = np.array(held_out.labels[: min(have, count)], np.int64)
        return np.concatenate(parts)[:count], labels

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that compute, for a result's protocol."""
        return library_versions()

    def _cell(self, sampler: str) -> dict[str, Any]:
        return {**USUAL, "sampler": sampler, "schedule": SCHEDULE}


class StudyComputer:
    """Computes the cells of a study in a worker; picklable until `start`."""

    def __init__(self, study: Study, computer: SamplerComputer):
        self.study, self.computer = study, computer

    @property
    def request(self) -> Request:
        """The study's request, for the engine's choice of the number of workers."""
        return self.study.request

    def start(self, worker: int, workers: int) -> None:
        """Share the cores among the workers and pick the device."""
        self.computer.start(worker, workers)
        self.context = Context(self.study, self.computer)
        self.module = import_module(self.study.module)

    def compute(self, task: Task) -> Outcome:
        """One cell."""
        return self.module.compute(self.context, task.cell)


def make_study(
    experiment: str,
    module: str,
    options: SweepOptions,
    *,
    features: Sequence[str] = (),
    autoregressive: bool = False,
    held_out: bool = True,
) -> Study:
    """Find and check what a study needs.

    features: names of feature networks; by default the preset's. autoregressive: whether it needs
    the baseline. held_out: whether it needs held-out images; then their absence is an error.

    Raises:
        UsageError: (of any of our packages) something is missing, damaged or foreign.
    """
    from maskgit.common.errors import UsageError

    for name in ("backend", "precision", "mode"):
        value, usual = getattr(options, name), USUAL[name]
        if value != usual:
            raise UsageError(
                f"--{name} {value}: {experiment} takes {usual} only; ablate_schedule takes others"
            )
    if options.slurm is None:  # else it is the device of another machine
        check_device(options.device)
    kinds = ["maskgit", *(["autoregressive"] if autoregressive else [])]
    cells = [
        Cell(experiment, options.preset, SCHEDULE, 1, 0, 1, features=name, sampler=kind)
        for name in (features or [options.features or ""])
        for kind in kinds
    ]
    request = resolve(
        cells,
        ("nll",) if held_out else (),
        weights=options.weights,
        weights_dir=options.weights_dir,
        data=options.data,
    )
    if held_out and request.held_out.why:
        raise UsageError(request.held_out.why)
    return Study(
        experiment,
        module,
        request,
        tuple(request.sides),
        tuple(kinds),
        options.data,
        options.weights_dir,
    )


def run_study(
    study: Study,
    options: SweepOptions,
    tasks: Sequence[Task],
    protocol: dict[str, Any] | None = None,
) -> int:
    """Run the tasks and write the report; returns the exit code, as `run_sweep` does.

    protocol: what holds for all cells beside `Study.protocol`, for the report.
    """
    run, _ = options.folders(study.experiment)
    computer = SamplerComputer(
        study.request, options.stages or run, options.batch_size, options.device
    )
    cards = {name: n.card for name, n in study.request.networks.items() if name != "tokenizer"}
    grid = grid_json(
        study.experiment,
        study.request.preset,
        tasks,
        {**study.protocol(), **(protocol or {})},
        cards,
    )
    return run_tasks(study.experiment, options, tasks, StudyComputer(study, computer), grid)
