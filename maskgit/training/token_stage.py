"""What the stages that learn from tokens share: slices of the batch, accumulation, one optimiser.

The global batch of a step follows from (seed, step). It is cut into S = processes x accumulate
slices; slice s holds the batch's rows s, s + S, s + 2S, ... and has its own dropout, seeded with
(seed, step, s). So two processes without accumulation, and one process that accumulates two slices,
take the same step; with another S only the dropout differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskgit.common.errors import UsageError
from maskgit.data.source import spread
from maskgit.model.config import TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.presets import Preset
from maskgit.training.images import save_grid
from maskgit.training.loop import Average, DataOrder, step_generator
from maskgit.training.settings import Optimisation, RunOptions
from maskgit.training.tokens import TokenSource

VALIDATION_IMAGES = 2000
VALIDATION_BATCH = 250


class TokenStage(ABC):
    """One optimiser step a batch of tokens. A stage adds its network, its loss and a sampler.

    The loss is a module so that the data-parallel wrapper sees its forward:
    loss(labels (b,), tokens (b, N), *arguments) -> scalar, the mean over the b images. What it
    takes is made on the CPU and sent ahead, so that nothing waits for a GPU.
    """

    averaged: str  # name of the network, for the checkpoint and the moving average
    shape: tuple[int, ...] = ()  # of the loss: (S,) where S networks are trained at once
    data_parallel = True  # the loss goes into accelerate's wrapper, which reduces the gradients

    def __init__(
        self,
        preset: Preset,
        train: TokenSource,
        held_out: TokenSource | None,
        tokenizer: Tokenizer | None,
        accelerator: Accelerator,
        options: RunOptions,
    ):
        """held_out is for the validation, tokenizer for the sample grids; None goes without."""
        self.preset, self.train, self.held_out = preset, train, held_out
        self.accelerator, self.options = accelerator, options
        self.tokenizer = None if tokenizer is None else tokenizer.to(accelerator.device)
        self.optimisation = optimisation = preset.transformer_training
        check_slices(optimisation.batch_size, accelerator, options.accumulate)
        torch.manual_seed(options.seed)
        self.model = self.network(preset.transformer_config).to(accelerator.device)
        if options.checkpoint_activations:
            self.recompute_activations()
        self.modules: dict[str, nn.Module] = {self.averaged: self.model}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            self.averaged: adamw(self.model, optimisation, fused=True)
        }
        loss = self.loss_module(preset.label_smoothing)
        if options.compile:
            loss.compile()
        self.loss = accelerator.prepare_model(loss) if self.data_parallel else loss
        self.order = DataOrder(len(train), optimisation.batch_size, options.seed)

    @abstractmethod
    def network(self, config: TransformerConfig) -> Any:
        """The network to train; its `layers` are its blocks."""

    @abstractmethod
    def loss_module(self, label_smoothing: float) -> nn.Module:
        """The loss of `self.model`, see the class."""

    @abstractmethod
    def sample(self, labels: Tensor) -> Tensor:
        """Tokens (B, N) of one image a label, for the sample grid."""

    def recompute_activations(self) -> None:
        """Save memory as --checkpoint-activations says."""
        recompute_activations(self.model.layers)

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        """Further inputs for the whole batch, (B, ...) each, from (seed, step)."""
        return ()

    def held_out_inputs(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The same for held-out images `rows (b,)`, by which alone they are determined."""
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
        total = torch.zeros(self.shape, device=device)
        for part in range(accumulate):
            number = part * world + rank
            rows = slice(number, None, slices)
            tokens, labels = self.train.batch(picked[rows], epochs[rows])
            torch.manual_seed(step_generator(self.options.seed, step, 1 + number).initial_seed())
            last = part == accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.loss):
                more = self.arguments(*(x[rows] for x in inputs))
                sent = [send(x, device) for x in (labels, tokens, *more)]
                # Slices can differ in size by one image; the wrapper divides by the processes.
                share = len(tokens) / batch
                total += self.learn(sent, share * world) * share
        norm = self.clip()
        optimiser.step()
        total = self.accelerator.reduce(total, "sum")
        return self.named("loss", total) | self.named("gradient_norm", norm)

    def learn(self, inputs: list[Tensor], scale: float) -> Tensor:
        """Add a slice's gradient, times `scale`; returns its loss."""
        with self.accelerator.autocast():
            loss = self.loss(*inputs)
        self.accelerator.backward((loss * scale).sum())
        return loss.detach()

    def clip(self) -> Tensor:
        """Clip the gradient; returns its norm before."""
        return nn.utils.clip_grad_norm_(self.model.parameters(), self.optimisation.clip_norm)

    def named(self, name: str, values: Tensor) -> dict[str, Tensor]:
        """A value of the step or the validation, of the loss's shape, by name."""
        return {name: values}

    @torch.inference_mode()
    def validate(self, step: int, average: Average) -> dict[str, float]:
        """NLL (nats a predicted token, no smoothing) of held-out images by the averaged weights.

        The processes share the images.
        """
        results: dict[str, float] = {}
        with average.swapped(self.model):
            if self.held_out is not None:
                measured = self.named("validation_nll", self._held_out_nll(self.held_out))
                results = {name: float(value) for name, value in measured.items()}
            if self.tokenizer is not None and self.accelerator.is_main_process:
                self._save_samples(step, self.tokenizer)
        return results

    def _held_out_nll(self, source: TokenSource) -> Tensor:
        accelerator = self.accelerator
        measure = self.loss_module(0.0)
        ids = torch.from_numpy(spread(len(source), VALIDATION_IMAGES))
        total = torch.zeros(self.shape, dtype=torch.float64, device=accelerator.device)
        mine = ids[accelerator.process_index :: accelerator.num_processes]
        for rows in mine.split(VALIDATION_BATCH):
            tokens, labels = source.batch(rows.numpy(), 0)
            more = self.arguments(*self.held_out_inputs(rows))
            sent = [send(x, accelerator.device) for x in (labels, tokens, *more)]
            with accelerator.autocast():
                loss = measure(*sent)
            total += loss.double() * len(rows)
        return accelerator.reduce(total, "sum") / len(ids)

    def _save_samples(self, step: int, tokenizer: Tokenizer) -> None:
        """Ten images of each of ten classes, one class a row."""
        labels = torch.arange(min(10, self.preset.num_classes)).repeat_interleave(10)
        tokens = self.sample(labels.to(self.accelerator.device))
        grids = tokens.view(-1, *self.preset.grid).split(len(labels))
        images = torch.cat([tokenizer.decode(x) for x in grids])
        save_grid(images, self.options.run_dir / "samples" / f"{step + 1:07d}.png", 10)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Nothing to load: every random choice follows from (seed, step)."""


def adamw(module: nn.Module, budget: Optimisation, **more: Any) -> torch.optim.Optimizer:
    """The optimiser of all stages."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=budget.learning_rate,
        betas=budget.betas,
        weight_decay=budget.weight_decay,
        **more,
    )


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


def recompute_activations(blocks: Any) -> None:
    """Let each block keep its input only and run forward again when its gradient is wanted."""
    for block in blocks:
        block.forward = partial(recomputed, block.forward)


def recomputed(forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """forward(*inputs), whose activations are computed anew when the gradient is wanted."""
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
