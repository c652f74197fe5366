"""What the tests of the editing studies share: small networks, scripts run in this process."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest


def run_script(monkeypatch, capsys, module, *flags):
    """(exit code, stdout, stderr) of an experiment's script."""
    # Test processes share the cores: two threads each would wait for one another.
    monkeypatch.setattr("experiments.sampler.worker.worker_threads", lambda workers: 1)
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        module.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def cells_of(folder):
    """[(cell, result, arrays)] of a run, in the grid's order."""
    found = []
    for item in json.loads((folder / "grid.json").read_text())["cells"]:
        place = folder / "cells" / item["key"]
        result = json.loads((place / "result.json").read_text())
        arrays = {}
        if (place / "samples.npz").exists():
            with np.load(place / "samples.npz") as stored:
                arrays = dict(stored)
        found.append((item["cell"], result, arrays))
    return found


def report_of(folder):
    """File -> bytes of a run's report."""
    return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}


def embedded_worker(folder):
    """A worker with the shipped networks, as `fill` and the like ask for one."""
    from experiments.sampler.resources import find_resources
    from experiments.sampler.samplers import SAMPLERS
    from experiments.sampler.worker import Worker
    from experiments.studies.editing.experiment import Options

    worker = Worker(find_resources("editing", Options(), SAMPLERS), folder, asked_device="cpu")
    worker.start(0, 1)
    return worker
