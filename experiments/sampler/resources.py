"""What the cells of an experiment share: networks, feature networks, held-out images, and the keys
and the code that follow from them.

`find_resources` looks for all of it before any work, so that what is missing, damaged or foreign is
told in one line. `Resources.task` makes the task of a cell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.features.registry import EXTRACTORS
from eval.metrics.registry import METRICS
from experiments.engine.cells import Sampling, Task, plain_reason
from experiments.engine.fingerprint import fingerprint
from experiments.engine.keys import cell_key, digest, stage_key
from experiments.own import chosen_preset
from experiments.sampler.feature_networks import FeatureNetwork, find_feature_network
from experiments.sampler.held_out import (
    NOT_ASKED_FOR,
    ImageSelection,
    find_held_out,
    usual_count,
)
from experiments.sampler.networks import Network, find_networks, trim_memory
from experiments.sampler.samplers import IMAGING, SAMPLERS, network_of
from maskgit.checkpoints.paths import model_path
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from eval.metrics.metric import Metric
    from experiments.engine.options import RunOptions
    from maskgit.presets import Preset


@dataclass(frozen=True)
class StageKeys:
    """Keys of what is kept on the way to a cell's numbers; empty where there is no such stage."""

    tokens: str
    features: str = ""
    held_out: str = ""
    likelihood: str = ""


@dataclass(frozen=True)
class Resources:
    """The networks, data and code that the cells of an experiment share; picklable.

    Attributes:
        experiment: its name; experiments/studies/NAME/compute.py computes a cell, and declares in
            METRICS the metrics that only this experiment knows.
        metrics: names of the metrics asked for, of eval's registry -> the feature network each is
            computed on, or "" for one that needs none.
        networks: by name, see `samplers.Sampler.network`, and "tokenizer".
        features: the feature networks, by name.
        held_out: the held-out images, or why there are none.
        data, feature_weights: as the options.
        backend: library that samples and decodes.
    """

    experiment: str
    preset: Preset
    networks: dict[str, Network]
    features: dict[str, FeatureNetwork] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    held_out: ImageSelection = NOT_ASKED_FOR
    data: Path | None = None
    feature_weights: Path | None = None
    backend: str = "torch"

    @property
    def module(self) -> ModuleType:
        """The module that computes a cell."""
        return import_module(f"experiments.studies.{self.experiment}.compute")

    @property
    def own_metrics(self) -> dict[str, Metric]:
        """The metrics that only this experiment knows."""
        return {metric.name: metric for metric in self.module.METRICS}

    def metric_ids(self) -> dict[str, str]:
        """Name of each metric -> its id with version."""
        ids = {name: METRICS[name].id(features) for name, features in self.metrics.items()}
        return ids | {name: metric.id(self.experiment) for name, metric in self.own_metrics.items()}

    def unavailable(self) -> dict[str, str]:
        """What will be missing from the results because a file is not here: what -> why."""
        found = {}
        for network in self.features.values():
            if network.why_missing:
                found[f"every metric on {network.name}"] = network.why_missing
            elif network.why_no_reference and network.name in self.metrics.values():
                what = f"FID, KID, precision and recall on {network.name}"
                found[what] = network.why_no_reference
        if "nll" in self.metrics and self.held_out.why:
            found["NLL"] = self.held_out.why
        return found

    def check(self) -> None:
        """Load each network once and let it go again, so that what is damaged is known before work.

        Raises:
            UsageError: a network cannot be loaded, or a feature network does not take the images.
        """
        for network in self.networks.values():
            network.load()
        shape = (1, *self.preset.size, self.preset.channels)
        for measuring in self.features.values():
            if not measuring.why_missing:
                measuring.extractor("cpu").prepare(np.zeros(shape, np.uint8))
        trim_memory()

    # ---- keys ------------------------------------------------------------------------------------

    def task(
        self, cell: Mapping[str, Any], *, cost: float, size: int, networks: Collection[str] = ()
    ) -> Task:
        """The task of a cell, with its key.

        cost: in forwards of one image. size: images, for the progress. networks: names of those
        that the cell depends on; by default all.
        """
        # Content, for two files that say the same are one preset, whatever they are called.
        content = digest(self.preset.content())
        cell = {"experiment": self.experiment, "preset": content[:16], **cell}
        used = [self.networks[name] for name in networks or self.networks]
        weights = {network.role: network.sha256 for network in used}
        weights |= {network.name: network.weights_sha256 for network in self.features.values()}
        data = {network.reference: network.reference_sha256 for network in self.features.values()}
        key = cell_key(
            cell,
            weights=weights,
            sizes={network.role: network.identity[1] for network in used},
            data=data | {"held-out": self.held_out.sha256},
            metrics=self.metric_ids(),
            code={"cell": self.code},
        )
        group = digest([self.backend, *sorted(weights.items())])[:16]
        is_shared = hasattr(self.module, "shared") and "num_samples" in cell
        blocks = -(-size // self.preset.block) if is_shared else 1
        return Task(key=key, cell=cell, group=group, cost=cost, size=size, blocks=blocks)

    @property
    def code(self) -> str:
        """Fingerprint of the sources that compute a cell."""
        roles = {network.role for network in self.networks.values()}
        samplers = tuple(name for name, sampler in SAMPLERS.items() if sampler.role in roles)
        return _code(self.module.__name__, samplers, self.backend, tuple(self.features))

    def network(self, settings: Sampling) -> Network:
        """The network that samples with these settings."""
        return self.networks[network_of(settings)]

    def stage_keys(self, settings: Sampling, features: str = "") -> StageKeys:
        """Keys of the stages of samples.

        features: the feature network; empty if there is none to be measured on.
        """
        sampler, tokenizer = SAMPLERS[settings.sampler], self.networks["tokenizer"]
        network, values = self.network(settings), settings.as_dict()
        # How the forwards run is in the key only where it is not the usual way.
        usual = {"backend": "torch", "precision": "float32", "mode": "eager"}
        tokens = stage_key(
            "tokens",
            sampler=settings.sampler,
            network=network.identity,
            classes=self.preset.num_classes,
            block=self.preset.block,
            code=sampler.code[settings.backend].fingerprint,
            settings={name: values[name] for name in sampler.settings},
            forwards={name: values[name] for name in usual if values[name] != usual[name]},
        )
        features_key, held_out, likelihood = "", "", ""
        if features:
            features_key = stage_key(
                "features",
                tokens=tokens,
                tokenizer=tokenizer.identity,
                grid=list(self.preset.grid),
                extractor={features: self.features[features].weights_sha256},
                code=[IMAGING[settings.backend].fingerprint, _extractor_code(features)],
            )
        if "nll" in self.metrics and not sampler.why_no_likelihood:
            content = {"tokenizer": tokenizer.identity, "images": self.held_out.sha256}
            content["code"] = _likelihood_code()
            held_out = stage_key("held-out-tokens", **content)
            likelihood = stage_key(
                "likelihood", network=network.identity, schedule=settings.schedule, **content
            )
        return StageKeys(tokens, features_key, held_out, likelihood)


@cache
def _code(module: str, samplers: tuple[str, ...], backend: str, features: tuple[str, ...]) -> str:
    codes = [IMAGING[backend], IMAGING["torch"]]
    for name in samplers:
        known = SAMPLERS[name].code
        codes.append(known.get(backend, known["torch"]))
    roots = [module, "experiments.sampler.worker", "experiments.sampler.likelihood"]
    for code in codes:
        roots += [code.name, *code.also]
    roots += [EXTRACTORS[name].partition(":")[0] for name in features]
    return fingerprint(*dict.fromkeys(roots))


def _extractor_code(features: str) -> str:
    return fingerprint("eval.features.registry", EXTRACTORS[features].partition(":")[0])


def _likelihood_code() -> str:
    return fingerprint(
        "experiments.sampler.likelihood",
        "experiments.sampler.held_out",
        "maskgit.checkpoints",
        "maskgit.model.transformer",
        "maskgit.model.tokenizer",
        "maskgit.data.registry",
        without=("maskgit.model.causal",),
    )


def find_resources(
    experiment: str,
    options: RunOptions,
    samplers: Iterable[Sampling | str],
    *,
    metrics: Mapping[str, str] | None = None,
    features: Collection[str] = (),
    held_out: bool = False,
) -> Resources:
    """Find and check everything that the cells of an experiment need.

    Args:
        experiment: its name.
        options: its options.
        samplers: names of samplers, or settings of cells; their networks and the tokenizer are
            found.
        metrics: see `Resources`; their feature networks are found too.
        features: further feature networks.
        held_out: whether the cells cannot do without held-out images.

    Raises:
        UsageError: something is missing without which there are no samples, or is damaged or
            foreign. Feature networks, references and (but for `held_out`) held-out images may be
            missing: then the metrics that need them are, see `Resources.unavailable`.
    """
    # The device of a SLURM job is another machine's; the CPU is always there.
    if options.slurm is None and options.device not in ("auto", "cpu"):
        check_device(options.device)
    preset, metrics = chosen_preset(options), dict(metrics or {})
    data = getattr(options, "data", None)
    folder = getattr(options, "feature_weights", None)
    names = dict.fromkeys([*features, *filter(None, metrics.values())])
    networks = [*dict.fromkeys(network_of(sampler) for sampler in samplers), "tokenizer"]
    found = find_networks(preset, networks, options.weights)
    shape = (*preset.size, preset.channels)
    measuring = {
        name: find_feature_network(name, preset.reference, folder, shape) for name in names
    }
    images = NOT_ASKED_FOR
    if held_out or "nll" in metrics:
        count = getattr(options, "held_out", None) or usual_count(preset, held_out)
        images = find_held_out(preset, data, count)
    if held_out and images.why:
        raise UsageError(images.why)
    return Resources(
        experiment,
        preset,
        found,
        measuring,
        metrics,
        images,
        data,
        folder,
        getattr(options, "backend", "torch"),
    )


def why_no_network(options: RunOptions, name: str) -> str:
    """Why a network that an experiment can do without is not here; empty if it is."""
    try:
        model_path(chosen_preset(options), name, options.weights)
    except UsageError as error:
        return plain_reason(error)
    return ""
