"""What the stages that learn from tokens share: slices of the batch, accumulation, one optimiser.

The global batch of a step follows from (seed, step). It is cut into S = processes x accumulate
slices; slice s holds the batch's rows s, s + S, s + 2S, ... and has its own dropout, seeded with
(seed, step, s). So two processes without accumulation, and one process that accumulates two slices,
take the same step; with another S only the dropout differs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskgit.common.errors import UsageError
from maskgit.presets import Optimisation
from maskgit.training.loop import Average, DataOrder, RunOptions, step_generator
from maskgit.training.tokens import TokenSource


class TokenStage:
    """One optimiser step a batch of tokens. A stage adds `inputs`, `validate` and its own loss.

    The loss is a module so that the data-parallel wrapper sees its forward:
    loss(labels (b,), tokens (b, N), *arguments) -> scalar, the mean over the b images. What it
    takes is made on the CPU and sent ahead, so that nothing waits for a GPU.
    """

    averaged: str  # name of the module, for the checkpoint and the moving average

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        train: TokenSource,
        optimisation: Optimisation,
        accelerator: Accelerator,
        options: RunOptions,
    ):
        """model: on the accelerator's device, inside `loss`; its `layers` are its blocks."""
        self.train, self.optimisation = train, optimisation
        self.accelerator, self.options = accelerator, options
        check_slices(optimisation.batch_size, accelerator, options.accumulate)
        if options.checkpoint_activations:
            recompute_activations(model.layers)
        self.model = model
        self.modules: dict[str, nn.Module] = {self.averaged: model}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            self.averaged: torch.optim.AdamW(
                model.parameters(),
                lr=optimisation.learning_rate,
                betas=optimisation.betas,
                weight_decay=optimisation.weight_decay,
                fused=True,
            )
        }
        if options.compile:
            loss.compile()
        self.loss = accelerator.prepare_model(loss)
        self.order = DataOrder(len(train), optimisation.batch_size, options.seed)

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        """Further inputs for the whole batch, (B, ...) each, from (seed, step)."""
        return ()

    def arguments(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the loss takes besides labels and tokens, from a slice (b, ...) of the inputs."""
        return inputs

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of the budget; returns the loss of the whole batch and the gradient's norm."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        accumulate, device = self.options.accumulate, self.accelerator.device
        batch, slices = self.optimisation.batch_size, world * accumulate
        picked, epochs = self.order.located(step)
        inputs = self.inputs(step)
        optimiser = self.optimisers[self.averaged]
        optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for part in range(accumulate):
            number = part * world + rank
            rows = slice(number, None, slices)
            tokens, labels = self.train.batch(picked[rows], epochs[rows])
            torch.manual_seed(step_generator(self.options.seed, step, 1 + number).initial_seed())
            last = part == accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.loss):
                more = self.arguments(*(x[rows] for x in inputs))
                sent = [send(x, device) for x in (labels, tokens, *more)]
                with self.accelerator.autocast():
                    loss = self.loss(*sent)
                # Slices can differ in size by one image; the wrapper divides by the processes.
                share = len(tokens) / batch
                self.accelerator.backward(loss * (share * world))
            total += loss.detach() * share
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.optimisation.clip_norm)
        optimiser.step()
        return {"loss": self.accelerator.reduce(total, "sum"), "gradient_norm": norm}

    def validate(self, step: int, average: Average) -> dict[str, float]:
        """Held-out measures of the averaged weights, the same in every process."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to load: every random choice follows from (seed, step)."""


def check_slices(batch_size: int, accelerator: Accelerator, accumulate: int) -> None:
    """Raises UsageError unless every slice of the batch gets an image."""
    slices = accelerator.num_processes * accumulate
    if accumulate < 1 or slices > batch_size:
        raise UsageError(
            f"--accumulate {accumulate}: expected 1 to {batch_size // accelerator.num_processes}, "
            f"so that {accelerator.num_processes} processes share a batch of {batch_size}"
        )


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """To a GPU through pinned memory, so that the host goes on at once."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` of `count` images, int64, evenly: folders are sorted by class."""
    return np.arange(min(count, limit)) * count // min(count, limit)


def recompute_activations(blocks: Any) -> None:
    """Let each block keep its input only and run forward again when its gradient is wanted."""
    for block in blocks:
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
