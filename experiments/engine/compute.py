"""The computer of sampler grids: one cell from tokens to metrics, each stage served from its file.

    tokens -> images (memory only) -> features -> metrics

The networks and the reference are loaded once per process; a process keeps one transformer, so
cells arrive ordered by schedule.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.engine.cells import Outcome, Task
from experiments.engine.request import Request, StageKeys
from experiments.engine.stages import Stages

if TYPE_CHECKING:
    from eval.features import Extractor, Features
    from maskgit.tokenizer import Tokenizer
    from maskgit.transformer import Transformer

PER_CLASS = 2  # images of each class kept for the report


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(device: str, worker: int = 0) -> str:
    """The torch device of a worker: `auto` is a GPU if there is one; `cuda` spreads over all."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        return f"cuda:{worker % torch.cuda.device_count()}"
    return device


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that compute."""
    return {name: version(name) for name in ("torch", "numpy", "maskgit-bench")}


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
        self._transformer: tuple[str, Transformer] | None = None

    def transformer(self, schedule: str) -> Transformer:
        """The transformer of a schedule; the one before is let go."""
        from maskgit.checkpoints import load_transformer

        if self._transformer is None or self._transformer[0] != schedule:
            self._transformer = None  # never two at a time in memory
            model = load_transformer(self.request.transformers[schedule])
            self._transformer = schedule, model.to(self._where).eval()
        return self._transformer[1]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded at its first use."""
        from maskgit.checkpoints import load_tokenizer

        return self._once(
            "tokenizer", lambda: load_tokenizer(self.request.tokenizer).to(self._where).eval()
        )

    def extractor(self) -> Extractor:
        """The feature network, loaded at its first use."""
        from eval.features import get_extractor

        return self._once(
            "extractor", lambda: get_extractor(self.request.features, device=self._where)
        )

    def _once(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]

    def compute(self, task: Task) -> Outcome:
        """All stages of one cell. What a stage's file holds is not computed again."""
        from eval.statistics import load_reference
        from experiments.engine.imaging import ROUNDING
        from experiments.engine.measuring import measure, real_subset

        keys: StageKeys = task.spec
        cell, seconds = task.cell, dict[str, float]()
        reference = load_reference(self.request.reference, self.request.features)
        with _timed(seconds, "tokens"):
            tokens = self.tokens(task)
        with _timed(seconds, "features"):
            images, features = self.images_and_features(cell, keys, tokens)
        with _timed(seconds, "metrics"):
            metrics, missing = measure(list(self.request.metrics), features, reference)
        if "nll" in self.request.metrics:
            with _timed(seconds, "likelihood"):
                metrics["nll"] = self.nll(cell["schedule"], keys)
        extractor = self.extractor()
        protocol = {
            **keys.protocol,
            "features": self.request.features,
            "extractor": extractor.protocol,
            "reference": reference.name,
            "reference_n": reference.n,
            "reference_sha256": reference.sha256,
            "real_n": len(real_subset(reference, cell["num_samples"])),
            "resize": extractor.protocol["resize"],
            "rounding": ROUNDING,
            "versions": library_versions(),
        }
        return Outcome(
            metrics=metrics,
            missing=missing,
            protocol=protocol,
            arrays=images,
            timing={"stages": seconds, "device": self._where, "threads": self._threads},
        )

    def tokens(self, task: Task) -> np.ndarray:
        """Tokens uint16 (n, N) of a cell."""
        from experiments.engine.sampling import sample_tokens

        cell = task.cell
        return self._stages.tokens(
            task.spec.tokens,
            cell["num_samples"],
            lambda: sample_tokens(self.transformer(cell["schedule"]), cell, self.batch_size),
        )

    def images_and_features(
        self, cell: dict[str, Any], keys: StageKeys, tokens: np.ndarray
    ) -> tuple[dict[str, np.ndarray], Features]:
        """({images uint8, labels} of the first few of each class, features of all)."""
        from eval.features import Features
        from experiments.engine.imaging import decode_images
        from experiments.engine.sampling import labels_of
        from maskgit.presets import get_preset

        preset = get_preset(self.request.preset)
        shown = min(len(tokens), PER_CLASS * preset.num_classes)
        decoded: list[np.ndarray] = []

        def extract() -> dict[str, np.ndarray]:
            decoded.append(decode_images(self.tokenizer(), tokens, preset.grid))
            found = self.extractor().extract(decoded[0])
            return {"features": found.features, "logits": found.logits}

        arrays = self._stages.arrays("features", keys.features, len(tokens), extract)
        if not decoded:  # the features were there; decode only what is shown
            decoded.append(decode_images(self.tokenizer(), tokens[:shown], preset.grid))
        samples = {
            "images": decoded[0][:shown],
            "labels": labels_of(shown, preset.num_classes),
        }
        return samples, Features(arrays["features"], arrays["logits"])

    def nll(self, schedule: str, keys: StageKeys) -> dict[str, Any]:
        """The metric `nll` of a schedule's transformer, computed once for all cells of it."""
        from experiments.engine.held_out import (
            IMAGES,
            encode_images,
            negative_log_likelihood,
        )
        from maskgit.data import load_split

        def make() -> dict[str, Any]:
            images, labels = load_split("test")
            images, labels = images[:IMAGES], labels[:IMAGES]
            # All transformers of a grid share the tokenizer, so the codes are kept too.
            tokens = self._stages.tokens(
                keys.held_out, len(images), lambda: encode_images(self.tokenizer(), images)
            )
            value, masked = negative_log_likelihood(
                self.transformer(schedule), schedule, tokens, labels
            )
            return {"value": value, "images": len(images), "masked_tokens": masked}

        stage = self._stages.value("likelihood", keys.likelihood, make)
        return {"id": self.request.metrics["nll"], "value": stage["value"]}


class _timed:
    """Adds the seconds of its block to a dict."""

    def __init__(self, seconds: dict[str, float], name: str):
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = time.monotonic() - self._began
