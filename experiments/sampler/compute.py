"""The computer of sampler grids: one cell from tokens to metrics, each stage served from its file.

    tokens -> images (memory only) -> features -> metrics

Networks and references are loaded once per process; a process keeps one transformer of a backend,
so cells arrive ordered by their transformer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import USUAL, Outcome, Task
from experiments.engine.keys import digest
from experiments.engine.store.stages import Stages
from experiments.sampler.labels import labels_of, shown_samples
from experiments.sampler.networks import give_back
from experiments.sampler.request import NOT_MASKED, Request, StageKeys

if TYPE_CHECKING:
    from eval.features.registry import Extractor, Features
    from experiments.sampler.measuring import Real

# One module each with `sample_tokens` and `decode_batches`, so that a stage's fingerprint covers
# what it runs and no more.
SAMPLING = {
    ("torch", "maskgit"): "experiments.sampler.sampling",
    ("torch", "autoregressive"): "experiments.sampler.sampling_autoregressive",
    ("jax", "maskgit"): "experiments.sampler.sampling_jax",
}
IMAGING = {"torch": "experiments.sampler.imaging", "jax": "experiments.sampler.imaging_jax"}

PART = 1000  # samples whose tokens are kept at a time


def sample_parts(count: int, num_classes: int, size: int = PART) -> list[np.ndarray]:
    """The numbers of `count` samples in parts of `size`, int64 (size,) or, the last, fewer.

    All samples of a class stand together, as they share its first forward.
    """
    by_class = np.argsort(labels_of(count, num_classes), kind="stable")
    return np.split(by_class, range(size, count, size))


def available_cores() -> int:
    """Cores that this process may use; in a SLURM job those it asked for, even if it sees more."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(cores, int(given))) if given.isdigit() else cores


def resolve_device(device: str, worker: int = 0) -> str:
    """The torch device of a worker: `auto` is a GPU if there is one; `cuda` spreads over all."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        return f"cuda:{worker % torch.cuda.device_count()}"
    return device


def gpu_count(device: str) -> int:
    """How many GPUs the workers of a --device spread over; 0 for a CPU."""
    import torch

    if not resolve_device(device).startswith("cuda"):
        return 0
    return torch.cuda.device_count() if device in ("auto", "cuda") else 1


@cache
def library_versions(backend: str = "torch") -> dict[str, str]:
    """Versions of the libraries that compute."""
    names = ("torch", "numpy", "maskgit-bench", *(("jax",) if backend == "jax" else ()))
    return {name: version(name) for name in names}


class SamplerComputer:
    """Computes cells of `Request`; picklable until `start`.

    Args:
        request: networks, data and keys.
        run: folder of the store, for the stages.
        batch_size: images in one forward of the transformer; None: what suits the device.
        device: `auto`, `cpu`, `cuda`, `cuda:0`, ...
    """

    def __init__(
        self, request: Request, run: Path, batch_size: int | None = None, device: str = "auto"
    ):
        self.request, self.run = request, run
        self.batch_size, self.device = batch_size, device

    def start(self, worker: int, workers: int) -> None:
        """Share the cores among the workers and pick the device."""
        import torch

        self._threads = max(1, available_cores() // workers)
        torch.set_num_threads(self._threads)
        self._where = resolve_device(self.device, worker)
        self._stages = Stages(self.run)
        self._loaded: dict[str, Any] = {}
        self._samplers: dict[str, tuple[str, Any]] = {}

    @property
    def where(self) -> str:
        """The torch device of this worker."""
        return self._where

    def sampler(self, cell: dict[str, Any], backend: str | None = None) -> Any:
        """The network that samples a cell, in that backend (by default the cell's).

        The one before is let go first: never two of a backend at a time in memory.
        """
        backend = backend or cell["backend"]
        network = self.request.network(cell)
        identity = digest([network.identity, cell["precision"], cell["mode"]])
        if self._samplers.get(backend, ("",))[0] != identity:
            self._samplers.pop(backend, None)
            self._samplers[backend] = identity, self._load(cell, backend, network.path)
            give_back()
        return self._samplers[backend][1]

    def _load(self, cell: dict[str, Any], backend: str, path: Path) -> Any:
        import torch

        from maskgit import checkpoints
        from maskgit.presets import get_preset

        place = {"device": self._where, "dtype": getattr(torch, cell["precision"])}
        if cell["sampler"] == "autoregressive":
            return checkpoints.load_autoregressive(path).to(**place).eval()
        codes = get_preset(self.request.preset).num_codes
        if backend == "jax":
            self._place_jax()
            from maskgit.jax import load_transformer

            return load_transformer(path, num_codes=codes)
        from experiments.sampler.sampling import compile_for_sampling

        transformer = checkpoints.load_transformer(path, num_codes=codes).to(**place).eval()
        return compile_for_sampling(transformer, cell["mode"])

    def tokenizer(self, backend: str = "torch") -> Any:
        """The tokenizer, loaded at its first use."""
        path = self.request.networks["tokenizer"].path

        def load() -> Any:
            if backend == "jax":
                self._place_jax()
                from maskgit.jax import load_tokenizer

                return load_tokenizer(path)
            from maskgit import checkpoints

            return checkpoints.load_tokenizer(path).to(self._where).eval()

        return self._once(f"tokenizer {backend}", load)

    def _place_jax(self) -> None:
        # JAX takes the accelerators it finds; --device cpu is to hold for it too.
        if self.device == "cpu":
            import jax

            jax.config.update("jax_platforms", "cpu")

    def extractor(self, features: str) -> Extractor:
        """A feature network, loaded at its first use."""
        side = self.request.sides[features]
        return self._once(f"extractor {features}", lambda: side.extractor(self._where))

    def real(self, features: str) -> Real | None:
        """The reference of a feature network, loaded at its first use; None if it is not here."""
        from experiments.sampler.measuring import Real

        side = self.request.sides[features]
        if side.no_reference:
            return None
        return self._once(f"reference {features}", lambda: Real(side.real()))

    def _once(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]

    def compute(self, task: Task) -> Outcome:
        """All stages of one cell. What a stage's file holds is not computed again."""
        from experiments.sampler.measuring import measure

        keys: StageKeys = task.spec
        cell, seconds = task.cell, dict[str, float]()
        side, real = self.request.sides[cell["features"]], self.real(cell["features"])
        with _timed(seconds, "tokens"):
            tokens = self.tokens(task)
        with _timed(seconds, "features"):
            images, features = self.images_and_features(cell, keys, tokens)
        with _timed(seconds, "metrics"):
            metrics, missing = measure(
                self.request.metrics,
                side.features,
                features,
                real,
                side.no_features,
                side.no_reference,
            )
        if "nll" in self.request.metrics:
            if cell["sampler"] != "maskgit":
                missing["nll"] = NOT_MASKED
            elif self.request.held_out.why:
                missing["nll"] = self.request.held_out.why
            else:
                with _timed(seconds, "likelihood"):
                    metrics["nll"] = self.nll(cell, keys)
        return Outcome(
            metrics=metrics,
            missing=missing,
            protocol={**keys.protocol, **self.protocol(cell)},
            arrays=images,
            timing={"stages": seconds, "device": self._where, "threads": self._threads},
        )

    def protocol(self, cell: dict[str, Any]) -> dict[str, Any]:
        """What a cell's numbers depend on, in words and hashes; what is missing is left out."""
        from experiments.sampler.imaging import ROUNDING

        side, real = self.request.sides[cell["features"]], self.real(cell["features"])
        protocol: dict[str, Any] = {
            "features": side.features,
            "reference": side.reference,
            "rounding": ROUNDING,
            "versions": library_versions(cell["backend"]),
        }
        if not side.no_features:
            extractor = self.extractor(side.features)
            protocol |= {"extractor": extractor.protocol, "resize": extractor.protocol["resize"]}
        if real is not None:
            protocol |= {
                "reference_n": real.reference.n,
                "reference_sha256": real.reference.sha256,
                "real_n": len(real.reference.features[: cell["num_samples"]]),
            }
        return protocol

    def tokens(self, task: Task) -> np.ndarray:
        """Tokens uint16 (n, N) of a cell; of a large one, part by part."""
        from maskgit.presets import get_preset

        count, key = task.cell["num_samples"], task.spec.tokens
        if count <= PART:
            return self._stages.tokens(key, count, lambda: self.sample(task.cell))
        parts = sample_parts(count, get_preset(self.request.preset).num_classes)
        return self._stages.tokens_in_parts(key, parts, lambda ids: self.sample(task.cell, ids=ids))

    def sample(self, cell: dict[str, Any], **ids: np.ndarray) -> np.ndarray:
        """Tokens uint16 (n, N) of a cell, sampled now; with `ids`, of these samples only."""
        module = import_module(SAMPLING[cell["backend"], cell["sampler"]])
        return module.sample_tokens(self.sampler(cell), cell, self.batch_size, **ids)

    def decode(self, tokens: np.ndarray, backend: str) -> Iterator[np.ndarray]:
        """Images uint8 (m, H, W, C) of tokens (n, N), a few at a time."""
        from maskgit.presets import get_preset

        module = import_module(IMAGING[backend])
        grid = get_preset(self.request.preset).grid
        return module.decode_batches(self.tokenizer(backend), tokens, grid)

    def images_and_features(
        self, cell: dict[str, Any], keys: StageKeys, tokens: np.ndarray
    ) -> tuple[dict[str, np.ndarray], Features | None]:
        """({images uint8, labels} of a few samples, features of all or None without a network)."""
        from eval.features.registry import Features
        from maskgit.presets import get_preset

        classes = get_preset(self.request.preset).num_classes
        shown = shown_samples(len(tokens), classes)
        kept: list[np.ndarray] = []

        def batches() -> Iterator[np.ndarray]:
            start = 0
            for images in self.decode(tokens, cell["backend"]):
                here = shown[(start <= shown) & (shown < start + len(images))]
                kept.extend(images[i - start].copy() for i in here)
                start += len(images)
                yield images

        def extract() -> dict[str, np.ndarray]:
            found = self.extractor(cell["features"]).extract_batches(batches())
            return {"features": found.features, "logits": found.logits}

        features = None
        if not self.request.sides[cell["features"]].no_features:
            arrays = self._stages.arrays("features", keys.features, len(tokens), extract)
            features = Features(arrays["features"], arrays["logits"])
        if not kept:  # no features, or they were there; decode only what is shown
            for images in self.decode(tokens[shown], cell["backend"]):
                kept.extend(images)
        return {"images": np.stack(kept), "labels": shown % classes}, features

    def nll(self, cell: dict[str, Any], keys: StageKeys) -> dict[str, Any]:
        """The metric `nll` of a transformer and a schedule, computed once for all cells of both."""
        from eval.metrics.likelihood import METRIC
        from experiments.sampler.held_out import encode_images, negative_log_likelihood

        held_out = self.request.held_out

        def make() -> dict[str, Any]:
            # All transformers of a grid share the tokenizer, so the codes are kept too.
            tokens = self._stages.tokens(
                keys.held_out,
                len(held_out),
                lambda: encode_images(self.tokenizer(), held_out.batches()),
            )
            value, masked = negative_log_likelihood(
                self.sampler({**cell, **USUAL}, "torch"),
                cell["schedule"],
                tokens,
                np.array(held_out.labels, np.int64),
            )
            return {"value": value, "images": len(held_out), "masked_tokens": masked}

        stage = self._stages.value("likelihood", keys.likelihood, make)
        return {"id": METRIC.id(), "value": stage["value"]}


class _timed:
    """Adds the seconds of its block to a dict."""

    def __init__(self, seconds: dict[str, float], name: str):
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = time.monotonic() - self._began
