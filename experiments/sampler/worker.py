"""The worker of an experiment: one process's networks and data, and the stages of a cell.

    tokens -> images (memory only) -> features -> metrics

Each stage is served from its file if it is there. Networks and references are loaded at their first
use; a worker keeps one sampling network of a backend, so cells arrive ordered by their network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.features.registry import Features
from eval.metrics.metric import Entry, PreparedReference, Settings
from eval.metrics.registry import METRICS, measure
from experiments.engine.cells import Outcome, Sampling, Task, plain_reason
from experiments.engine.keys import digest
from experiments.engine.store.blocks import Blocks
from experiments.engine.store.stages import Stages
from experiments.sampler import imaging, likelihood
from experiments.sampler.feature_networks import class_columns
from experiments.sampler.networks import trim_memory
from experiments.sampler.resources import Resources
from experiments.sampler.samplers import IMAGING, SAMPLERS, sampling
from experiments.sampler.samples import shown_samples
from maskgit.common.device import resolve_device, worker_threads
from maskgit.common.errors import Unavailable
from maskgit.common.versions import version_of

if TYPE_CHECKING:
    from eval.features.registry import Extractor
    from maskgit.presets import Preset

# As many real images as samples.
SETTINGS = Settings(equal_sizes=True)


@cache
def library_versions(backend: str = "torch") -> dict[str, str]:
    """Versions of the libraries that compute."""
    names = ("torch", "numpy", "maskgit-bench", *(("jax",) if backend == "jax" else ()))
    return {name: version_of(name) for name in names}


class Worker:
    """Computes the cells of an experiment; picklable until `start`.

    Args:
        resources: networks, data and keys.
        run: folder with the stages, and with the classifiers of the CAS.
        batch_size: images in one forward of the transformer; None: what suits the device.
        asked_device: `auto`, `cpu`, `cuda`, `cuda:0`, ...
    """

    def __init__(
        self,
        resources: Resources,
        run: Path,
        batch_size: int | None = None,
        asked_device: str = "auto",
    ):
        self.resources, self.run = resources, run
        self.batch_size, self.asked_device = batch_size, asked_device

    def start(self, worker: int, workers: int) -> None:
        """Share the cores among the workers and pick the device."""
        import torch

        self._threads = worker_threads(workers)
        torch.set_num_threads(self._threads)
        self.device = resolve_device(self.asked_device, worker)
        self._loaded: dict[str, Any] = {}
        self._networks: dict[str, tuple[str, Any]] = {}
        self._seconds: dict[str, float] = {}

    def compute(self, task: Task) -> Outcome:
        """One cell, by the experiment's own module."""
        self._seconds = {}
        outcome: Outcome = self.resources.module.compute(self, task.cell)
        backend = task.cell.get("backend", "torch")
        shared = {"versions": library_versions(backend), "code": {"cell": self.resources.code}}
        timing = {"stages": self._seconds, "device": self.device, "threads": self._threads}
        return replace(
            outcome,
            protocol={**shared, **outcome.protocol},
            timing={**timing, **outcome.timing},
        )

    def help(self, task: Task) -> bool:
        """Make one block that the cell needs and that nobody is at; whether there was one."""
        self._seconds = {}
        shared = getattr(self.resources.module, "shared", None)
        return shared is not None and any(part.help() for part in shared(self, task.cell))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage's in timing.json."""
        began = time.monotonic()
        try:
            yield
        finally:
            passed = time.monotonic() - began
            self._seconds[stage] = self._seconds.get(stage, 0.0) + passed

    # ---- networks --------------------------------------------------------------------------------

    @property
    def preset(self) -> Preset:
        """The preset."""
        return self.resources.preset

    def sampler(self, settings: Sampling) -> Any:
        """The network that samples with these settings.

        The one before is let go first: never two of a backend at a time in memory.
        """
        network, backend = self.resources.network(settings), settings.backend
        identity = digest([network.identity, settings.precision, settings.mode])
        if self._networks.get(backend, ("",))[0] != identity:
            self._networks.pop(backend, None)
            load = SAMPLERS[settings.sampler].code[backend].module.load
            codes = self.preset.num_codes
            model = load(network.path, codes, self._device_for(backend), settings)
            network.check(model)
            self._networks[backend] = identity, model
            trim_memory()
        return self._networks[backend][1]

    def _device_for(self, backend: str) -> str:
        # JAX takes the accelerators it finds; only --device cpu as it was asked for keeps it off.
        return self.device if backend == "torch" else self.asked_device

    @property
    def mask_id(self) -> int:
        """The token that stands for an unknown one, for every sampler."""
        return self.preset.num_codes + self.preset.num_classes

    def settings(self, cell: dict[str, Any], sampler: str = "maskgit") -> Sampling:
        """A sampler's settings from a cell's seed and, where it has them, steps and precision."""
        given = {name: cell[name] for name in ("precision",) if name in cell}
        steps, seed = cell.get("steps", 1), cell["seed"]
        return sampling(self.preset, sampler, steps=steps, seed=seed, num_samples=1, **given)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, in torch."""
        return self._tokenizer("torch")

    def _tokenizer(self, backend: str) -> Any:
        network, load = self.resources.networks["tokenizer"], IMAGING[backend].module.load

        def checked() -> Any:
            model = load(network.path, self._device_for(backend))
            network.check(model)
            return model

        return self.once(f"tokenizer {backend}", checked)

    def extractor(self, features: str) -> Extractor | None:
        """A feature network, or None if its weights are not here."""
        network = self.resources.features[features]
        if network.why_missing:
            return None
        return self.once(f"extractor {features}", lambda: network.extractor(self.device))

    def reference(self, features: str) -> PreparedReference | None:
        """The reference on a feature network, or None if it is not here."""
        network = self.resources.features[features]
        if network.why_no_reference:
            return None
        return self.once(f"reference {features}", network.load_reference)

    def once(self, name: str, load: Callable[[], Any]) -> Any:
        """What was loaded under this name, which is loaded at its first use."""
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]

    # ---- stages ----------------------------------------------------------------------------------

    @cached_property
    def stages(self) -> Stages:
        """Where tokens, features and likelihoods are kept."""
        return Stages(self.run)

    def token_blocks(self, settings: Sampling) -> Blocks:
        """The tokens of a cell's samples, uint16 (num_samples, N), block by block.

        Sample i depends on its seed, i and i's class only, so all cells that differ in their number
        of samples, and all experiments, take the first ones of the same pool.
        """

        def make(ids: np.ndarray) -> np.ndarray:
            with self.timed("tokens"):
                return self.sample(settings, ids)

        key = self.resources.stage_keys(settings).tokens
        size = self.preset.block
        return Blocks(self.stages, "tokens", key, settings.num_samples, size, make)

    def blocks_of(
        self, settings: Sampling, key: str, make: Callable[[np.ndarray, np.ndarray], Any]
    ) -> Blocks:
        """What is computed from each block of a cell's samples, and kept among the features.

        key: of the content. make: (tokens (n, N), their numbers (n,)) -> named arrays, a row each.
        """
        tokens = self.token_blocks(settings)

        def rows(ids: np.ndarray) -> Any:
            drawn = tokens.of(ids)
            with self.timed("features"):
                return make(drawn, ids)

        return Blocks(self.stages, "features", key, settings.num_samples, tokens.size, rows)

    def shared(self, settings: Sampling, *features: str) -> list[Blocks]:
        """The blocks of a cell measured on these feature networks; of tokens where one is not here.

        What a study's `shared(worker, cell)` returns: the blocks that other processes may make
        while one computes the cell.
        """
        return [
            self.feature_blocks(settings, name) or self.token_blocks(settings) for name in features
        ]

    def tokens(self, settings: Sampling, count: int = 0) -> np.ndarray:
        """Tokens uint16 (count, N) of the first samples (0: the cell's num_samples)."""
        found: np.ndarray = self.token_blocks(
            replace(settings, num_samples=count or settings.num_samples)
        ).read()
        return found

    def sample(self, settings: Sampling, ids: np.ndarray | None = None) -> np.ndarray:
        """Tokens uint16 (n, N) of a cell's samples, or of those with numbers `ids`, sampled now."""
        ids = np.arange(settings.num_samples) if ids is None else ids
        labels = ids % self.preset.num_classes
        tokens = self.draw(settings, labels, sample_ids=ids, batch_size=self.batch_size)
        if settings.backend == "torch":
            tokens = tokens.cpu()
        return np.asarray(tokens).astype(np.uint16)

    def draw(self, settings: Sampling, labels: np.ndarray, **more: Any) -> Any:
        """Tokens of one image for each class, int64 (n,), or their trace; see `sampling.draw`."""
        module = SAMPLERS[settings.sampler].code[settings.backend].module
        return module.draw(self.sampler(settings), settings, labels, **more)

    def decode(self, tokens: np.ndarray, backend: str = "torch") -> Iterator[np.ndarray]:
        """Images uint8 (m, H, W, C) of tokens (n, N), a few at a time."""
        module = IMAGING[backend].module
        return module.decode_batches(self._tokenizer(backend), tokens, self.preset.grid)

    def images(self, tokens: np.ndarray, backend: str = "torch") -> np.ndarray:
        """Images uint8 (n, H, W, C) of tokens (n, N), all at once: for few of them."""
        return np.concatenate(list(self.decode(tokens, backend)))

    def feature_blocks(
        self, settings: Sampling, features: str, keep: dict[int, np.ndarray] | None = None
    ) -> Blocks | None:
        """Features and logits of a cell's samples, block by block; None if the feature network is
        not here. keep: see `features`."""
        extractor = self.extractor(features)
        if extractor is None:
            return None
        wanted = {} if keep is None else keep

        def extract(tokens: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
            def batches() -> Iterator[np.ndarray]:
                start = int(ids[0])
                for images in self.decode(tokens, settings.backend):
                    for i in wanted.keys() & range(start, start + len(images)):
                        wanted[i] = images[i - start].copy()
                    start += len(images)
                    yield images

            return extractor.extract_batches(batches())._asdict()

        key = self.resources.stage_keys(settings, features).features
        return self.blocks_of(settings, key, extract)

    def features(
        self, settings: Sampling, features: str, keep: dict[int, np.ndarray] | None = None
    ) -> Features | None:
        """Features of a cell's samples; None if the feature network is not here.

        keep: numbers of samples whose images are wanted; they are put in where they are decoded on
        the way, which they are not where the features are served from a file.
        """
        blocks = self.feature_blocks(settings, features, keep)
        return None if blocks is None else Features(**blocks.read())

    def shown(self, settings: Sampling) -> np.ndarray:
        """Numbers of the samples that a cell keeps as pictures."""
        return shown_samples(settings.num_samples, self.preset.num_classes)

    def measure(
        self,
        features: str,
        samples: Features | None,
        reference: PreparedReference | None = None,
        names: Sequence[str] = (),
    ) -> tuple[dict[str, Entry], dict[str, str]]:
        """(metrics, missing) of samples on a feature network; see `eval.metrics.registry.measure`.

        reference: by default the preset's. names: by default all that the request measures on this
        feature network.
        """
        network = self.resources.features[features]
        on_this = [name for name, on in self.resources.metrics.items() if on == features]
        with self.timed("metrics"):
            metrics, missing = measure(
                names or on_this,
                features,
                samples,
                reference or self.reference(features),
                SETTINGS,
                no_features=network.why_missing,
                no_reference=network.why_no_reference,
            )
        return metrics, {name: plain_reason(why) for name, why in missing.items()}

    def classify(self, name: str, batches: Iterable[np.ndarray]) -> tuple[np.ndarray | None, str]:
        """(probabilities float64 (n, classes) or None, the reason where there are none) of images.

        name: of a feature network, whose classes are matched with the preset's by their names; the
            probabilities are among these. batches: uint8 (m, H, W, C) each.
        """
        extractor = self.extractor(name)
        if extractor is None:
            return None, self.resources.features[name].why_missing
        try:
            columns = class_columns(extractor, self.preset)
        except Unavailable as error:
            return None, plain_reason(error)
        return softmax(extractor.extract_batches(batches).logits[:, columns]), ""

    def measured_on(self, features: str, num_samples: int) -> dict[str, Any]:
        """What numbers on a feature network depend on, in words and hashes, for a protocol."""
        network, reference = self.resources.features[features], self.reference(features)
        protocol: dict[str, Any] = {"features": features, "reference": network.reference}
        protocol["rounding"] = imaging.ROUNDING
        extractor = self.extractor(features)
        if extractor is not None:
            protocol |= {"extractor": extractor.protocol, "resize": extractor.protocol["resize"]}
        if reference is not None:
            found = reference.reference
            protocol |= {"reference_n": found.n, "reference_sha256": found.sha256}
            protocol |= {"reference_geometry": found.geometry} if found.geometry else {}
            protocol["real_n"] = len(found.features[:num_samples])
        return protocol

    def nll(self, settings: Sampling) -> Entry:
        """The metric `nll` of a transformer and a schedule, computed once for all cells of both."""
        held_out = self.resources.held_out
        keys = self.resources.stage_keys(settings)

        def make() -> dict[str, Any]:
            # All transformers of a grid share the tokenizer, so the codes are kept too.
            tokens = self.stages.kept(
                "tokens",
                keys.held_out,
                lambda: likelihood.encode_images(
                    self.tokenizer, (images for images, _, _ in held_out.numbered())
                ),
                len(held_out),
            )
            usual = replace(settings, backend="torch", precision="float32", mode="eager")
            value, masked = likelihood.negative_log_likelihood(
                self.sampler(usual),
                settings.schedule,
                tokens,
                np.array(held_out.labels, np.int64),
            )
            return {"value": value, "images": len(held_out), "masked_tokens": masked}

        with self.timed("likelihood"):
            stage = self.stages.kept("likelihood", keys.likelihood, make)
        return {"id": METRICS["nll"].id(), "value": stage["value"]}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 (n, L) of logits (n, L)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return weights / weights.sum(axis=1, keepdims=True)
