"""From resources and tasks to the `Build` of an experiment: its worker and its grid.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from eval.metrics.registry import METRICS
from experiments.engine.cells import Build, Task
from experiments.engine.grid import grid_json
from experiments.engine.options import RunOptions, command
from experiments.sampler.resources import Resources
from experiments.sampler.worker import Worker
from maskgit.common.device import available_cores, gpu_count

MAX_WORKERS = 8  # by default; each holds the networks in memory
GPU_WORKERS = 2  # per GPU: while one measures, which is the CPU's work, the other samples
LARGE = 2**24  # parameters of a network from which one worker has the whole CPU


def make_build(
    resources: Resources,
    options: RunOptions,
    tasks: Sequence[Task],
    protocol: Mapping[str, Any],
    *,
    models: Mapping[str, Any] | None = None,
    missing: Mapping[str, str] | None = None,
    **more: Any,
) -> Build:
    """What the command line and a SLURM job run.

    Args:
        resources: what the cells share.
        options: of the experiment.
        tasks: made by `Resources.task`.
        protocol: what holds for all cells beside what the resources say, for the report.
        models: name -> card; by default the cards of all networks that sample.
        missing: what will be missing beside `Resources.unavailable`, or in its place, and why; an
            empty reason says that it will not be.
        more: further fields of `Build`.
    """
    worker = Worker(
        resources,
        options.stages_folder(resources.experiment),
        getattr(options, "batch_size", None),
        options.device,
    )
    if models is None:
        models = {name: n.card for name, n in resources.networks.items() if name != "tokenizer"}
    reasons = resources.unavailable() | dict(missing or {})
    absent = {what: why for what, why in reasons.items() if why}
    metrics = {name: METRICS[name] for name in resources.metrics} | resources.own_metrics
    grid = grid_json(
        resources.experiment,
        resources.preset.name,
        tasks,
        {**shared_protocol(resources), **protocol, **({"missing": absent} if absent else {})},
        dict(models),
        metrics={
            name: {
                "label": metric.label,
                "digits": metric.digits,
                "direction": metric.direction,
                "unit": metric.unit,
            }
            for name, metric in metrics.items()
        },
        command=command(resources.experiment, options),
    )
    return Build(tasks, worker, grid, partial(_ready, resources, options), **more)


def _ready(resources: Resources, options: RunOptions) -> int:
    resources.check()
    return usual_workers(resources, options.device)


def shared_protocol(resources: Resources) -> dict[str, Any]:
    """What holds for all cells, for grid.json: plain data without paths."""
    preset = resources.preset
    references = [network.reference for network in resources.features.values()]
    return {
        "features": ", ".join(resources.features),
        "reference": ", ".join(dict.fromkeys(references)),
        "metrics": resources.metric_ids(),
        "num_tokens": preset.num_tokens,
        "image_size": preset.image_size,
        **({"image_width": preset.image_width} if preset.image_width else {}),
        "class_names": list(preset.class_names),
        "held_out": resources.held_out.words,
        "code": {"cell": resources.code},
    }


def usual_workers(resources: Resources, device: str) -> int:
    """Two per GPU; or one per core up to a few, but one for large networks and JAX.

    A large network uses all cores by itself, and each worker would hold a copy of it.
    """
    if resources.backend == "jax":
        return 1
    if gpus := gpu_count(device):
        return GPU_WORKERS * gpus
    if max(network.parameters for network in resources.networks.values()) > LARGE:
        return 1
    return min(available_cores(), MAX_WORKERS)
