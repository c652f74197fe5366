"""From options to tasks: which weights, data and code a grid uses, and the keys that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.engine.cells import Cell, Task
from experiments.engine.errors import UsageError
from experiments.engine.fingerprint import fingerprint
from experiments.engine.keys import cell_key, file_sha256, stage_key
from experiments.engine.sampling import DEPENDS_ON

# Cost of a cell in forwards of the transformer: an iteration, and what an image costs beside them.
FORWARDS_PER_IMAGE = 4.0


@dataclass(frozen=True)
class StageKeys:
    """Keys of the stages of one cell, and the protocol that its result carries."""

    tokens: str
    features: str
    likelihood: str
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """The networks, data and code that all cells of a grid share."""

    preset: str
    metrics: dict[str, str]  # name -> id
    transformers: dict[str, Path]  # schedule -> folder
    tokenizer: Path
    features: str
    reference: str
    sha256: dict[str, str]  # of every network: schedule, "tokenizer", the extractor
    data: dict[str, str]  # sha256 of the reference statistics and of the held-out images
    code: dict[str, str]  # stage -> fingerprint
    cards: dict[str, dict[str, Any]]  # schedule -> model card


def code_fingerprints(features: str) -> dict[str, str]:
    """Fingerprint of the sources that compute each stage (see `fingerprint.py`).

    The tokenizer's sources are left out of the tokens' fingerprint, although `checkpoints.py`
    imports them: sampling needs none. The extractor is found through a registry of names, which
    imports do not show, so its module is named.
    """
    from eval.features import EXTRACTORS

    extractor = EXTRACTORS[features].partition(":")[0]
    engine = "experiments.engine"
    return {
        "tokens": fingerprint(
            f"{engine}.sampling",
            "maskgit.checkpoints",
            "maskgit.transformer",
            without=("maskgit.tokenizer",),
        ),
        "images": fingerprint(f"{engine}.imaging", "maskgit.checkpoints", "maskgit.tokenizer"),
        "features": fingerprint("eval.features", extractor),
        "metrics": fingerprint(f"{engine}.measuring"),
        "likelihood": fingerprint(
            f"{engine}.held_out",
            "maskgit.checkpoints",
            "maskgit.transformer",
            "maskgit.tokenizer",
            "maskgit.data",
        ),
    }


def resolve(
    preset_name: str, schedules: Sequence[str], metrics: Sequence[str], weights: Path | None
) -> Request:
    """Find and check everything that cells of this preset need.

    Raises:
        UsageError: (of any of our packages) a folder or file is missing, damaged or foreign.
    """
    from eval.statistics import load_reference
    from experiments.engine.measuring import metric_ids
    from maskgit.checkpoints import read_card, weights_sha256, zoo_path
    from maskgit.data import find_files
    from maskgit.presets import get_preset

    preset = get_preset(preset_name)
    if weights is not None and not weights.is_dir():
        raise UsageError(
            f"--weights {weights}: no such folder; it should hold the folders tokenizer and "
            f"{', '.join(f'transformer-{schedule}' for schedule in schedules)}"
        )

    def folder(name: str) -> Path:
        if weights is None:
            return zoo_path(name)
        if not (weights / name).is_dir():
            raise UsageError(f"--weights {weights}: has no folder {name}")
        return weights / name

    transformers = {schedule: folder(f"transformer-{schedule}") for schedule in schedules}
    tokenizer = folder("tokenizer")
    reference = load_reference(preset.reference, preset.features)
    sha256 = {schedule: weights_sha256(path) for schedule, path in transformers.items()}
    sha256 |= {
        "tokenizer": weights_sha256(tokenizer),
        preset.features: reference.weights_sha256,
    }
    ids = metric_ids(preset.features)
    return Request(
        preset=preset.name,
        metrics={name: ids[name] for name in metrics},
        transformers=transformers,
        tokenizer=tokenizer,
        features=preset.features,
        reference=preset.reference,
        sha256=sha256,
        data={
            preset.reference: reference.sha256,
            "held-out": file_sha256(find_files("test")[0]),
        },
        code=code_fingerprints(preset.features),
        cards={schedule: read_card(path) for schedule, path in transformers.items()},
    )


def make_task(request: Request, cell: Cell) -> Task:
    """The task of a cell, with its key and those of its stages."""
    from maskgit.presets import get_preset

    preset = get_preset(request.preset)
    values = cell.as_dict()
    weights = {
        "transformer": request.sha256[cell.schedule],
        "tokenizer": request.sha256["tokenizer"],
        request.features: request.sha256[request.features],
    }
    key = cell_key(
        values, weights=weights, data=request.data, metrics=request.metrics, code=request.code
    )
    tokens = stage_key(
        "tokens",
        transformer=weights["transformer"],
        classes=preset.num_classes,
        code=request.code["tokens"],
        **{name: values[name] for name in DEPENDS_ON},
    )
    features = stage_key(
        "features",
        tokens=tokens,
        tokenizer=weights["tokenizer"],
        grid=list(preset.grid),
        extractor={request.features: weights[request.features]},
        code=[request.code["images"], request.code["features"]],
    )
    likelihood = stage_key(
        "likelihood",
        transformer=weights["transformer"],
        tokenizer=weights["tokenizer"],
        schedule=cell.schedule,
        images=request.data["held-out"],
        code=request.code["likelihood"],
    )
    return Task(
        key=key,
        cell=values,
        group=cell.schedule,
        cost=cell.num_samples * (cell.steps + FORWARDS_PER_IMAGE),
        size=cell.num_samples,
        spec=StageKeys(tokens, features, likelihood, {"weights": weights, "code": request.code}),
    )
