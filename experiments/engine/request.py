"""From options to tasks: which weights, data and code a grid uses, and the keys that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import Cell, Task
from experiments.engine.errors import UsageError
from experiments.engine.fingerprint import fingerprint
from experiments.engine.keys import cell_key, digest, file_sha256, stage_key
from experiments.engine.sampling import DEPENDS_ON

if TYPE_CHECKING:
    from maskgit.presets import Preset

# What an image costs beside the forwards, in forwards: it orders cells and tells the time left.
# (Embedded, one core: a forward takes about 1 ms, decoding and measuring 4 to 5; see --dry-run.)
FORWARDS_PER_IMAGE = 4.0


@dataclass(frozen=True)
class StageKeys:
    """Keys of the stages of one cell, and the protocol that its result carries."""

    tokens: str
    features: str
    likelihood: str
    held_out: str
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
    sha256: dict[str, str]  # of every network's weights: schedule, "tokenizer", the extractor
    sizes: dict[str, str]  # digest of a network's configuration, under the same names
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
    networks = {**transformers, "tokenizer": tokenizer}
    sha256 = {name: weights_sha256(path) for name, path in networks.items()}
    sizes = {name: _check_network(preset, name, path) for name, path in networks.items()}
    ids = metric_ids(preset.features)
    return Request(
        preset=preset.name,
        metrics={name: ids[name] for name in metrics},
        transformers=transformers,
        tokenizer=tokenizer,
        features=preset.features,
        reference=preset.reference,
        sha256={**sha256, preset.features: reference.weights_sha256},
        sizes=sizes,
        data={
            preset.reference: reference.sha256,
            "held-out": file_sha256(find_files("test")[0]),
        },
        code=code_fingerprints(preset.features),
        cards={schedule: read_card(path) for schedule, path in transformers.items()},
    )


def _check_network(preset: Preset, name: str, path: Path) -> str:
    """Load a network once, so that a damaged one is known before any work; digest of its sizes.

    The number of heads, say, changes every number and cannot be seen in the weights.
    """
    from maskgit.checkpoints import load_tokenizer, load_transformer

    if name == "tokenizer":
        tokenizer = load_tokenizer(path).config
        pairs = [
            ("codes", tokenizer.num_codes, preset.num_codes),
            ("channels", tokenizer.channels, preset.channels),
            ("pixels per token", tokenizer.downsampling, preset.tokenizer.downsampling),
        ]
        sizes = asdict(tokenizer)
    else:
        transformer = load_transformer(path).config
        pairs = [
            ("codes", transformer.num_codes, preset.num_codes),
            ("classes", transformer.num_classes, preset.num_classes),
            ("tokens", transformer.num_tokens, preset.num_tokens),
        ]
        sizes = asdict(transformer)
    for what, got, expected in pairs:
        if got != expected:
            raise UsageError(f"{path}: {got} {what}, --preset {preset.name} has {expected}")
    return digest(sizes)


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
    transformer = [weights["transformer"], request.sizes[cell.schedule]]
    tokenizer = [weights["tokenizer"], request.sizes["tokenizer"]]
    key = cell_key(
        values,
        weights=weights,
        sizes={"transformer": transformer[1], "tokenizer": tokenizer[1]},
        data=request.data,
        metrics=request.metrics,
        code=request.code,
    )
    tokens = stage_key(
        "tokens",
        transformer=transformer,
        classes=preset.num_classes,
        code=request.code["tokens"],
        **{name: values[name] for name in DEPENDS_ON},
    )
    features = stage_key(
        "features",
        tokens=tokens,
        tokenizer=tokenizer,
        grid=list(preset.grid),
        extractor={request.features: weights[request.features]},
        code=[request.code["images"], request.code["features"]],
    )
    likelihood = stage_key(
        "likelihood",
        transformer=transformer,
        tokenizer=tokenizer,
        schedule=cell.schedule,
        images=request.data["held-out"],
        code=request.code["likelihood"],
    )
    held_out = stage_key(
        "held-out-tokens",
        tokenizer=tokenizer,
        images=request.data["held-out"],
        code=request.code["likelihood"],
    )
    protocol = {"weights": weights, "code": request.code}
    return Task(
        key=key,
        cell=values,
        group=cell.schedule,
        cost=cell.num_samples * (cell.steps + FORWARDS_PER_IMAGE),
        size=cell.num_samples,
        spec=StageKeys(tokens, features, likelihood, held_out, protocol),
    )


def check_device(device: str) -> None:
    """Whether a device named by --device is there.

    Raises:
        UsageError: it is not.
    """
    if device not in ("auto", "cpu"):
        from eval import features

        features.check_device(device)
