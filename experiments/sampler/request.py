"""From options to tasks: which weights, data and code a grid uses, and the keys that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import BACKENDS, PRECISIONS, SAMPLERS, USUAL, Cell, Task
from experiments.engine.keys import cell_key, digest, stage_key
from experiments.engine.reasons import MISSING
from experiments.sampler.held_out_images import HeldOut, find_held_out
from experiments.sampler.networks import (
    Network,
    check_jax,
    find_networks,
    give_back,
    network_name,
)
from experiments.sampler.sides import Side, find_side
from experiments.sampler.stage_code import code_fingerprints
from maskgit.common.errors import UsageError
from maskgit.sampling.compiled import MODES

if TYPE_CHECKING:
    from maskgit.presets import Preset

# What an image costs beside the forwards, in forwards: it orders cells and tells the time left.
# (Embedded, one core: a forward takes about 1 ms, decoding and measuring 4 to 5; see --dry-run.)
FORWARDS_PER_IMAGE = 4.0
# What of a cell's configuration its tokens depend on, beside the weights.
DEPENDS_ON = {
    "maskgit": (
        *("schedule", "steps", "seed", "num_samples"),
        *("choice_temperature", "sampling_temperature"),
    ),
    "autoregressive": ("seed", "num_samples", "sampling_temperature"),
}
NOT_MASKED = "the likelihood of masked tokens is not defined for the autoregressive sampler"


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
    """The networks, data and code that the cells of a grid share."""

    preset: str
    metrics: tuple[str, ...]
    networks: dict[str, Network]  # by name: see networks.network_name, and "tokenizer"
    sides: dict[str, Side]  # name of a feature network -> it and the reference
    held_out: HeldOut

    def network(self, cell: dict[str, Any]) -> Network:
        """The network that samples a cell."""
        return self.networks[network_name(cell)]

    def unavailable(self) -> dict[str, str]:
        """What will be missing from the results because a file is not here: what -> why."""
        found = {}
        for side in self.sides.values():
            if side.no_features:
                found[f"every metric on {side.features}"] = side.no_features
            elif side.no_reference:
                found[f"FID, KID, precision and recall on {side.features}"] = side.no_reference
        if "nll" in self.metrics and self.held_out.why:
            found["NLL"] = self.held_out.why
        return found


def resolve(
    cells: Sequence[Cell],
    metrics: Sequence[str],
    *,
    weights: Path | None = None,
    weights_dir: Path | None = None,
    data: Path | None = None,
) -> Request:
    """Find and check everything that cells of one preset need.

    Args:
        cells: at least one.
        metrics: names of measuring.metric_ids.
        weights: folder with the networks (None: see maskgit.checkpoints.paths.model_path).
        weights_dir: folder with the weights of feature networks (None: see eval.weights.files).
        data: folder with held-out images (None: those that ship, if any).

    Raises:
        UsageError: (of any of our packages) something is missing without which there are no
            samples, or is damaged or foreign. Feature networks, references and held-out images may
            be missing: then the metrics that need them are, see `Request.unavailable`.
    """
    from maskgit.presets import get_preset

    presets = {cell.preset for cell in cells}
    if len(presets) != 1:
        raise ValueError(f"cells of {len(presets)} presets in one grid")
    preset = get_preset(presets.pop())
    values = [resolved(preset, cell) for cell in cells]
    if any(value["backend"] == "jax" for value in values):
        check_jax()
    names = list(dict.fromkeys(map(network_name, values)))
    networks = find_networks(preset, [*names, "tokenizer"], weights)
    shape = (preset.image_size, preset.image_size, preset.channels)
    sides = {
        features: find_side(features, preset.reference, weights_dir, shape)
        for features in dict.fromkeys(value["features"] for value in values)
    }
    give_back()
    held_out = HeldOut(MISSING, "not asked for")
    if "nll" in metrics:
        held_out = find_held_out(preset, data)
    return Request(preset.name, tuple(metrics), networks, sides, held_out)


def resolved(preset: Preset, cell: Cell) -> dict[str, Any]:
    """A cell's values, with the preset's where it leaves them open.

    Raises:
        UsageError: a backend, sampler, precision or mode that there is not, or not together.
    """
    values = cell.as_dict()
    values["features"] = values["features"] or preset.features
    choices: dict[str, tuple[str, ...]] = {"backend": BACKENDS, "sampler": SAMPLERS}
    choices |= {"precision": PRECISIONS, "mode": MODES}
    for name, known in choices.items():
        if values[name] not in known:
            raise UsageError(f"--{name} {values[name]}: expected one of {', '.join(known)}")
    if (values["backend"], values["sampler"]) == ("jax", "autoregressive"):
        raise UsageError("--backend jax: the autoregressive sampler needs --backend torch")
    if values["precision"] != "float32" and values["backend"] == "jax":
        raise UsageError("--precision bfloat16: needs --backend torch; JAX samples in float32")
    if values["mode"] != "eager" and (values["backend"], values["sampler"]) != ("torch", "maskgit"):
        raise UsageError(f"--mode {values['mode']}: only for MaskGIT's sampler in --backend torch")
    return values


def make_task(request: Request, cell: Cell) -> Task:
    """The task of a cell, with its key and those of its stages."""
    from experiments.sampler.measuring import metric_ids
    from maskgit.presets import get_preset

    preset = get_preset(request.preset)
    values = resolved(preset, cell)
    side = request.sides[values["features"]]
    sampler, tokenizer = request.network(values), request.networks["tokenizer"]
    code = code_fingerprints(side.features, values["backend"], values["sampler"])
    ids = metric_ids(side.features)
    parallel = values["sampler"] == "maskgit"
    likelihood = "nll" in request.metrics and parallel
    if not likelihood:
        del code["likelihood"]
    role = "transformer" if parallel else values["sampler"]
    weights = {
        role: sampler.sha256,
        "tokenizer": tokenizer.sha256,
        side.features: side.weights,
    }
    data = {side.reference: side.statistics}
    if likelihood:
        data["held-out"] = request.held_out.sha256
    key = cell_key(
        values,
        weights=weights,
        sizes={role: sampler.identity[1], "tokenizer": tokenizer.identity[1]},
        data=data,
        metrics={name: ids[name] for name in request.metrics},
        code=code,
    )
    # Only where they are not the usual ones, so that further ones leave old keys as they are.
    other = {name: values[name] for name, usual in USUAL.items() if values[name] != usual}
    tokens = stage_key(
        "tokens",
        transformer=sampler.identity,
        classes=preset.num_classes,
        code=code["tokens"],
        **{name: values[name] for name in DEPENDS_ON[values["sampler"]]},
        **other,
    )
    features = stage_key(
        "features",
        tokens=tokens,
        tokenizer=tokenizer.identity,
        grid=list(preset.grid),
        extractor={side.features: side.weights},
        code=[code["images"], code["features"]],
    )
    nll_keys = {"likelihood": "", "held_out": ""}
    if likelihood:
        held_out = {"tokenizer": tokenizer.identity, "images": request.held_out.sha256}
        held_out["code"] = code["likelihood"]
        nll_keys["held_out"] = stage_key("held-out-tokens", **held_out)
        nll_keys["likelihood"] = stage_key(
            "likelihood", transformer=sampler.identity, schedule=values["schedule"], **held_out
        )
    return Task(
        key=key,
        cell=values,
        group=digest([values["backend"], *sampler.identity])[:16],
        cost=cell.num_samples * (cell.steps + FORWARDS_PER_IMAGE),
        size=cell.num_samples,
        spec=StageKeys(
            tokens=tokens,
            features=features,
            protocol={"weights": weights, "code": code},
            **nll_keys,
        ),
    )


def check_device(device: str) -> None:
    """Whether a device named by --device is there.

    Raises:
        UsageError: it is not.
    """
    if device not in ("auto", "cpu"):
        from eval.features import registry as features

        features.check_device(device)
