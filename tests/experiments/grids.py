"""Cells of the sampler without a run: what a grid asks for, and the keys that follow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from experiments.engine.cells import Build, Sampling, Task
from experiments.sampler.resources import Resources
from experiments.studies.registry import get_experiment


def build(options: Any, name: str = "ablate_schedule") -> Build:
    """What an experiment makes of its options."""
    return get_experiment(name).build(options)


def resources_of(built: Build) -> Resources:
    """The networks and data behind it."""
    return built.computer.resources  # type: ignore[attr-defined]


def stage_keys(resources: Resources, task: Task) -> Any:
    """Keys of the stages of a task's samples."""
    return resources.stage_keys(Sampling.of(task.cell), task.cell["features"])


def keys_of(options: Any) -> SimpleNamespace:
    """The key, label, cell and stage keys of the only cell that the options ask for."""
    built = build(options)
    (task,) = built.tasks
    keys = stage_keys(resources_of(built), task)
    return SimpleNamespace(key=task.key, label=task.label, cell=task.cell, **vars(keys))
