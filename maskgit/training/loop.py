"""The loop both stages share: order of the data, learning rate, EMA, checkpoints, progress.

Every random choice of a step (order of the data, crops, masks, dropout) is drawn from (seed, step),
so a run that was killed and resumed gives the losses of one that was not, also in the middle of an
epoch and with another number of processes (token_stage.py says what dropout then does).
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import output_file
from maskgit.training.settings import Optimisation, RunOptions

LINE_SECONDS = 60.0  # between two lines of progress where stderr is no terminal


class Stage(Protocol):
    """What the loop asks of a stage of training."""

    accelerator: Accelerator
    modules: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    averaged: str  # name of the module the EMA follows

    def step(self, step: int) -> dict[str, Tensor]: ...

    def validate(self, step: int, average: Average) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


def learning_rate(optimisation: Optimisation, step: int) -> float:
    """Linear warm-up, then constant or a cosine to zero at the last step (step from 0)."""
    peak, warmup = optimisation.learning_rate, optimisation.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if optimisation.decay == "constant":
        return peak
    done = (step - warmup) / max(1, optimisation.steps - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class DataOrder:
    """Which samples form the batch of a step: a fresh permutation an epoch, no sample left out."""

    def __init__(self, num_samples: int, batch_size: int, seed: int):
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def located(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices int64 (batch_size,) of the global batch of `step`, and the epoch of each."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        picked = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(positions // self.num_samples):
            if epoch != self._epoch:
                generator = np.random.default_rng([self.seed, int(epoch)])
                self._epoch, self._order = int(epoch), generator.permutation(self.num_samples)
            here = positions // self.num_samples == epoch
            picked[here] = self._order[positions[here] % self.num_samples]
        return picked, positions // self.num_samples


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A CPU generator that depends on (seed, step, stream) only."""
    words = np.random.SeedSequence([seed, step, stream]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


class Average:
    """Exponential moving average of a module's parameters, with a ramp over the first steps."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights after step (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = module.state_dict()
        torch._foreach_lerp_(list(self.values.values()), [now[k] for k in self.values], 1.0 - decay)

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with the averaged weights and in evaluation mode, inside a `with` block."""
        kept = {k: v.detach().clone() for k, v in module.state_dict().items()}
        training = module.training
        module.load_state_dict(self.values)
        try:
            yield module.eval()
        finally:
            module.load_state_dict(kept)
            module.train(training)


class FiniteGuard:
    """Remembers the first step with a value that is not finite, without waiting for the GPU."""

    def __init__(self) -> None:
        self.step, self.names = torch.tensor(-1), [""]
        self.values = torch.zeros(1)

    def watch(self, scalars: dict[str, Tensor], step: int) -> None:
        """Look at a step's values: a NaN gradient spoils the weights, a NaN loss the gradient."""
        values = torch.stack([v.detach().float().reshape(()) for v in scalars.values()])
        if list(scalars) != self.names or self.step.device != values.device:
            self.names, self.values = list(scalars), torch.zeros_like(values)
            self.step = self.step.to(values.device)
        first = (self.step < 0) & ~values.isfinite().all()
        self.step = torch.where(first, step, self.step)
        self.values = torch.where(first, values, self.values)

    def check(self, checkpoint: Path) -> None:
        """Raises UsageError that names the step and the value, if there was one."""
        if (step := int(self.step)) < 0:
            return
        name, value = next(
            (n, v)
            for n, v in zip(self.names, self.values.tolist(), strict=True)
            if not math.isfinite(v)
        )
        raise UsageError(
            f"step {step + 1}: {name} is {value}; stopped, the last good checkpoint is {checkpoint}"
        )


class Trainer:
    """Runs a stage from the last checkpoint (or from nothing) to the last step of its budget."""

    def __init__(self, stage: Stage, optimisation: Optimisation, options: RunOptions, config: dict):
        self.stage, self.optimisation, self.options = stage, optimisation, options
        self.config = {**config, "optimisation": asdict(optimisation), "seed": options.seed}
        self.average = Average(stage.modules[stage.averaged], optimisation.ema)
        self.path = options.run_dir / "checkpoint.pt"
        self.is_main = stage.accelerator.is_main_process
        self.guard = FiniteGuard()
        self.seconds = 0.0  # wall-clock of all runs that led here
        self.precision = options.precision
        if options.precision == "auto":
            self.precision = "bf16" if torch.cuda.is_available() else "fp32"

    def save(self, next_step: int) -> None:
        """Write the checkpoint from which `next_step` follows; only the first process does.

        Raises:
            UsageError: a weight or its average is not finite; the checkpoint before stays.
        """
        for name, values in self._weights():
            if not bool(torch.stack([v.isfinite().all() for v in values.values()]).all()):
                raise UsageError(
                    f"step {next_step}: the weights of {name} are not finite; stopped, the last "
                    f"good checkpoint is {self.path}"
                )
        if not self.is_main:
            return
        payload = {
            "config": repr(self.config),
            "next_step": next_step,
            "modules": {k: m.state_dict() for k, m in self.stage.modules.items()},
            "optimisers": {k: o.state_dict() for k, o in self.stage.optimisers.items()},
            "average": self.average.values,
            "stage": self.stage.state(),
            "seconds": self.seconds,
        }
        with output_file(self.path) as file:
            torch.save(payload, file)

    def _weights(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for name, module in self.stage.modules.items():
            yield name, module.state_dict()
        yield "the moving average", self.average.values

    def resume(self) -> int:
        """Load the checkpoint, if there is one; returns the step to go on with.

        Raises:
            UsageError: the checkpoint is of another configuration, cannot be read, or is not there
                for every process.
        """
        first = self._load() if self.path.exists() else 0
        found = self.stage.accelerator.gather(
            torch.tensor([first], device=self.stage.accelerator.device)
        )
        if len(set(found.tolist())) > 1:
            raise UsageError(
                f"{self.path}: the processes go on from steps {found.tolist()}; --runs must name a "
                "folder that all machines share"
            )
        if self.is_main:  # a kill while one was written leaves its temporary file
            for partial in self.path.parent.glob(f".tmp-{self.path.name}-*"):
                partial.unlink(missing_ok=True)
        return first

    def _load(self) -> int:
        try:
            payload = torch.load(self.path, map_location="cpu", weights_only=True)
            if payload["config"] != repr(self.config):
                raise UsageError(
                    f"{self.path}: made with another configuration; give another --runs or remove "
                    "it"
                )
            for name, module in self.stage.modules.items():
                module.load_state_dict(payload["modules"][name])
            for name, optimiser in self.stage.optimisers.items():
                optimiser.load_state_dict(payload["optimisers"][name])
            for name, value in payload["average"].items():
                self.average.values[name].copy_(value)
            self.stage.load_state(payload["stage"])
            self.seconds = payload["seconds"]
            return payload["next_step"]
        except UsageError:
            raise
        except Exception as error:  # zip, pickle, key and shape errors alike: the file is not ours
            raise UsageError(
                f"{self.path}: not a readable checkpoint ({one_line(error)})"
            ) from error

    def fit(self) -> dict[str, float]:
        """Train; returns the last validation's scalars.

        Raises:
            UsageError: a loss or a gradient is not finite; the last good checkpoint stays.
        """
        first = self.resume()
        total, options = self.optimisation.steps, self.options
        writer = self._writer()
        recent: deque[dict[str, float]] = deque(maxlen=10)  # the loss, by its names
        start, before = time.monotonic(), self.seconds
        results: dict[str, float] = {}
        next_line = LINE_SECONDS
        lines = self.is_main and not Console(stderr=True).is_terminal
        on_cpu = self.stage.accelerator.device.type == "cpu"
        every = {
            "log": options.log_every,
            "validate": options.validate_every,
            "checkpoint": options.checkpoint_every,
        }
        for step, rate in self._steps(first):
            for optimiser in self.stage.optimisers.values():
                for group in optimiser.param_groups:
                    group["lr"] = rate
            scalars = self.stage.step(step)
            self.guard.watch(scalars, step)
            self.average.update(self.stage.modules[self.stage.averaged], step)
            last = step + 1 == total
            due = {k: (step + 1) % n == 0 or last for k, n in every.items()}
            elapsed = time.monotonic() - start
            self.seconds = before + elapsed
            # Reading the values makes a GPU's queue run empty, so it is done only where it must be.
            if any(due.values()) or on_cpu:
                self.guard.check(self.path)
            if due["log"]:
                values = {k: float(v) for k, v in scalars.items()}
                recent.append({k: v for k, v in values.items() if k.split("/")[0] == "loss"})
                self._log(writer, {**values, "learning_rate": rate}, step)
            if lines and elapsed >= next_line:
                next_line = elapsed + LINE_SECONDS
                self._print_line(step, float(scalars["loss"]), elapsed / (step + 1 - first))
            if due["validate"]:
                results = self.stage.validate(step, self.average)
                self._log(writer, results, step)
                if self.is_main:
                    shown = ", ".join(f"{k} {v:.4f}" for k, v in results.items())
                    print(f"step {step + 1}/{total}: {shown}", file=sys.stderr, flush=True)
            if due["checkpoint"]:
                if writer is not None:
                    writer.flush()  # a run that goes on from here does not log these steps again
                self.save(step + 1)
            if options.stop_at == step + 1:
                break
        if first >= total:
            results = self.stage.validate(total - 1, self.average)
        if writer is not None:
            writer.close()
        names = recent[0] if recent else ()
        return results | {f"train_{k}": sum(x[k] for x in recent) / len(recent) for k in names}

    def _print_line(self, step: int, loss: float, seconds: float) -> None:
        """The progress of a run whose stderr is a file; seconds: of a step."""
        total, rate = self.optimisation.steps, self.optimisation.batch_size / seconds
        left = (total - step - 1) * seconds / 60
        line = f"step {step + 1}/{total}: loss {loss:.4f}, {rate:.0f} images/s, {left:.0f} min left"
        print(line, file=sys.stderr, flush=True)

    def _steps(self, first: int) -> Iterator[tuple[int, float]]:
        """The steps left with their learning rates, under a progress bar on stderr."""
        total, batch = self.optimisation.steps, self.optimisation.batch_size
        columns = (
            TextColumn("{task.completed}/{task.total} steps"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        with Progress(
            *columns, console=console, disable=not (self.is_main and console.is_terminal)
        ) as bar:
            task = bar.add_task("", total=total, completed=first, rate="")
            start = time.monotonic()
            for step in range(first, total):
                yield step, learning_rate(self.optimisation, step)
                images = (step + 1 - first) * batch
                rate = images / (time.monotonic() - start)
                bar.update(task, completed=step + 1, rate=f"{rate:.0f} img/s")

    def _writer(self) -> Any:
        if not self.is_main:
            return None
        # This imports TensorFlow where that is installed, whose threads no fork survives.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.options.run_dir / "tensorboard"))

    @staticmethod
    def _log(writer: Any, values: dict[str, float], step: int) -> None:
        if writer is not None:
            for name, value in values.items():
                writer.add_scalar(name, value, step + 1)
