"""One classifier of the Classification Accuracy Score: train, checkpoint, resume, validate.

On a GPU it computes in bfloat16 where torch's autocast does so; on a CPU in float32 (docs/cas.md
has the measurement). A checkpoint is written in the middle of an epoch too, and what follows is
bit by bit what would have followed: batches come from (seed, epoch, index), the rate from the step.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.cas.data import Geometry, Labelled, TrainingBatches, ValidationImages, normalize
from eval.cas.recipe import Recipe, build_network, build_optimizer
from maskgit.common.errors import UsageError
from maskgit.common.files import output_file, read_json, write_json

if TYPE_CHECKING:
    import torch

FORMAT = 1  # of the files; another number and they are made again
VALIDATION_BATCH = 250
Progress = Callable[[str, int, int], None]


class Training:
    """A training that can be interrupted at any time and goes on from its last checkpoint.

    Args:
        name: `samples` or `real`; begins the names of its files.
        train, validation: the images.
        num_classes: outputs of the network.
        shape: input of the network.
        recipe: settings.
        seed: of the weights, the order and the augmentation.
        folder: for NAME-FINGERPRINT.json (the result; it is not computed twice) and .pt (the
            checkpoint, until there is a result); None keeps nothing.
        device: torch device.
        workers: processes that load images; 0 loads them in this one. Changes no number.
        checkpoint_seconds: time between checkpoints.

    Raises:
        UsageError: fewer images than a batch.
    """

    def __init__(
        self,
        name: str,
        train: Labelled,
        validation: Labelled,
        num_classes: int,
        shape: Geometry,
        recipe: Recipe,
        seed: int,
        *,
        folder: Path | None = None,
        device: torch.device | None = None,
        workers: int = 0,
        checkpoint_seconds: float = 60,
    ) -> None:
        import torch

        if len(train) < recipe.batch_size:
            raise UsageError(
                f"{train.name}: {len(train)} images to train on, expected at least a batch of "
                f"{recipe.batch_size}"
            )
        self.name, self.recipe, self.seed = name, recipe, seed
        self.train, self.validation, self.num_classes = train, validation, num_classes
        self.shape, self.workers = shape, workers
        self.device = torch.device("cpu") if device is None else device
        self.checkpoint_seconds = checkpoint_seconds
        self.steps_per_epoch = len(train) // recipe.batch_size
        self.steps = recipe.epochs * self.steps_per_epoch
        identity = {
            "format": FORMAT,
            "train": train.sha256,
            "validation": validation.sha256,
            "classes": num_classes,
            "recipe": recipe.describe(),
            "input": shape.describe(),
            "seed": seed,
            "device": self.device.type,
        }
        text = json.dumps(identity, sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        stem = f"{name}-{self.fingerprint[:16]}"
        self.result_path = None if folder is None else folder / f"{stem}.json"
        self.checkpoint_path = None if folder is None else folder / f"{stem}.pt"

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Train, or go on with the training, then validate and return the result.

        Returns:
            top1, top5 in [0, 1] (top5 is None for up to 5 classes), per_class (top-1 by class,
            None for a class without validation images), final_train_loss (nats an image, mean of
            the last epoch's batches, augmented, with label smoothing), images, steps, seconds
            (wall) and cpu_seconds of all attempts (of this process and its finished children).

        Raises:
            UsageError: the loss is not finite, an image cannot be read, or a file not written.
        """
        import torch

        result = self._finished()
        if result is not None:
            return result
        with (
            torch.random.fork_rng(devices=[]),
            torch.backends.cudnn.flags(enabled=True, deterministic=True),
        ):
            model, spent, loss = self._fit(progress)
            before = _clocks()
            ranks = self._ranks(model, progress)
        labels = self.validation.labels
        counts = np.bincount(labels, minlength=self.num_classes)
        hits = np.bincount(labels[ranks == 0], minlength=self.num_classes)
        seconds = spent + _clocks() - before
        result = {
            "top1": float((ranks == 0).mean()),
            "top5": float((ranks < 5).mean()) if self.num_classes > 5 else None,
            "per_class": [float(h / c) if c else None for h, c in zip(hits, counts, strict=True)],
            "final_train_loss": loss,
            "images": len(self.train),
            "validation_images": len(self.validation),
            "steps": self.steps,
            "seed": self.seed,
            "seconds": round(float(seconds[0]), 1),
            "cpu_seconds": round(float(seconds[1]), 1),
        }
        self._finish(result)
        return result

    def _fit(self, progress: Progress | None) -> tuple[Any, np.ndarray, float]:
        """The trained network, wall and CPU seconds, and the last epoch's mean loss."""
        import torch
        import torch.nn.functional as F
        from torch.utils.data import DataLoader

        model = build_network(self.recipe.stem, self.num_classes, self.seed)
        model = model.to(self.device).train()
        if self.device.type == "cuda":  # a CPU is a tenth slower with weights in the images' order
            model = model.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(model, self.recipe)
        first, spent, losses = 0, np.zeros(2), torch.zeros((), dtype=torch.float64)
        if (saved := self._read_checkpoint()) is not None:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            first, losses = saved["step"], saved["losses"]
            spent = np.array([saved["seconds"], saved["cpu_seconds"]])
        losses = losses.to(self.device)
        start = _clocks() - spent
        saved_at = time.monotonic()

        data = TrainingBatches(self.train, self.shape, self.recipe.randaugment, self.seed)
        keys = data.keys(first, self.steps, self.recipe.batch_size)
        loader: Any = DataLoader(data, batch_sampler=keys, **self._loading())  # type: ignore[arg-type]
        for step, (images, labels) in enumerate(_batches(loader), first):
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate_at(step, self.steps_per_epoch)
            images = normalize(images.to(self.device, non_blocking=True))
            labels = labels.to(self.device, non_blocking=True)
            with self._autocast():
                logits = model(images)
            loss = F.cross_entropy(
                logits.float(), labels, label_smoothing=self.recipe.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % self.steps_per_epoch == 0:
                losses = torch.zeros_like(losses)
            losses += loss.detach().double()
            done = step + 1
            if done % self.steps_per_epoch == 0:
                self._check(losses, done)
            if progress is not None:
                progress(f"train on {self.name}, seed {self.seed}", done, self.steps)
            if time.monotonic() - saved_at >= self.checkpoint_seconds and done < self.steps:
                self._check(losses, done)
                self._write_checkpoint(done, model, optimizer, losses, _clocks() - start)
                saved_at = time.monotonic()
        return model, _clocks() - start, float(losses) / self.steps_per_epoch

    def _ranks(self, model: Any, progress: Progress | None) -> np.ndarray:
        """For each validation image, how many classes the network prefers to the true one; of
        equal logits the class that comes first is preferred."""
        import torch
        from torch.utils.data import DataLoader

        model.eval()
        data: Any = ValidationImages(self.validation, self.shape)
        loader: Any = DataLoader(data, batch_size=VALIDATION_BATCH, **self._loading())
        ranks: list[np.ndarray] = []
        done = 0
        for images, labels in _batches(loader):
            labels = labels.to(self.device)[:, None]
            with torch.inference_mode(), self._autocast():
                logits = model(normalize(images.to(self.device))).float()
            true = logits.gather(1, labels)
            before = torch.arange(logits.shape[1], device=self.device)[None] < labels
            better = (logits > true) | ((logits == true) & before)
            ranks.append(better.sum(1).cpu().numpy())
            done += len(labels)
            if progress is not None:
                progress(f"validate {self.name}, seed {self.seed}", done, len(data))
        return np.concatenate(ranks)

    def _loading(self) -> dict[str, Any]:
        return {"num_workers": self.workers, "pin_memory": self.device.type == "cuda"}

    def _autocast(self) -> Any:
        import torch

        cuda = self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=cuda)

    def _check(self, losses: torch.Tensor, step: int) -> None:
        if not losses.isfinite():
            raise UsageError(
                f"training on {self.train.name}: the loss is not finite at step {step}, try a "
                f"lower --rate than {self.recipe.rate:g}"
            )

    def _finished(self) -> dict[str, Any] | None:
        """The result of an earlier run, or None if it is missing or damaged."""
        if self.result_path is None:
            return None
        try:
            content = read_json(self.result_path)
        except UsageError:
            return None
        result = content.get("result")
        whole = content.get("fingerprint") == self.fingerprint and isinstance(result, dict)
        return result if whole else None

    def _finish(self, result: dict[str, Any]) -> None:
        if self.result_path is None or self.checkpoint_path is None:
            return
        write_json(self.result_path, {"fingerprint": self.fingerprint, "result": result})
        self.checkpoint_path.unlink(missing_ok=True)

    def _write_checkpoint(
        self, step: int, model: Any, optimizer: Any, losses: torch.Tensor, spent: np.ndarray
    ) -> None:
        import torch

        if self.checkpoint_path is None:
            return
        content = {
            "fingerprint": self.fingerprint,
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "losses": losses.cpu(),
            "seconds": float(spent[0]),
            "cpu_seconds": float(spent[1]),
        }
        with output_file(self.checkpoint_path) as file:
            torch.save(content, file)

    def _read_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint; None if there is none, it is damaged, or of another training."""
        import torch

        if self.checkpoint_path is None or not self.checkpoint_path.is_file():
            return None
        try:
            content = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
            return content if content["fingerprint"] == self.fingerprint else None
        except Exception:  # torch.load raises whatever the broken bytes lead it to
            return None


def _batches(loader: Any) -> Iterator[Any]:
    """The loader's batches. An error in one of its processes comes with that process's traceback
    in its message; ours are one line."""
    try:
        yield from loader
    except UsageError as error:
        last = str(error).strip().splitlines()[-1]
        raise UsageError(last.removeprefix("maskgit.common.errors.UsageError: ")) from error


def _clocks() -> np.ndarray:
    """Wall seconds, and CPU seconds of this process and its finished children, so far."""
    return np.array([time.monotonic(), sum(os.times()[:4])])
