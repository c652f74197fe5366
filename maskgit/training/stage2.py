"""Stage 2: training of the transformer by masked token prediction (paper, section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit.decoding import generate
from maskgit.model.config import TransformerConfig
from maskgit.model.masking import held_out_masks, masks_from_uniforms
from maskgit.model.transformer import Transformer
from maskgit.training.loop import step_generator
from maskgit.training.token_stage import TokenStage

ROW_COUNTS = 16


class MaskedLoss(nn.Module):
    """The training loss as one module, so that a data-parallel wrapper sees its forward."""

    def __init__(self, transformer: Transformer, label_smoothing: float):
        super().__init__()
        self.transformer, self.label_smoothing = transformer, label_smoothing

    def forward(self, labels: Tensor, tokens: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
        """labels (B,), tokens (B, N) and the mask as of `masked_positions` -> scalar loss in nats.

        Cross-entropy at the masked positions with label smoothing over the whole vocabulary,
        averaged over each image's masked tokens and then over images.
        """
        config, all_tokens = self.transformer.config, tokens.flatten()
        masked = all_tokens.index_fill(0, positions, config.mask_id).view_as(tokens)
        sequence = torch.cat([config.num_codes + labels[:, None], masked], 1)
        hidden = self.transformer.hidden(sequence, positions)
        logits = self.transformer.logits(hidden).float()
        each = F.cross_entropy(
            logits, all_tokens[positions], label_smoothing=self.label_smoothing, reduction="none"
        )
        return (each * weights).sum()


def masked_positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where mask (B, N) bool is set: int64 (M,) of the B*N, and float32 weights (M,) that take the
    mean over each image's masked positions and then over images. No image may have none.

    M is rounded up to one of ROW_COUNTS numbers, by the first one with the weight 0: oneDNN keeps a
    compiled product for every number of rows it has seen, and memory would grow with the steps."""
    positions = mask.flatten().nonzero().squeeze(1)
    weights = (1.0 / (mask.sum(1) * len(mask))).repeat_interleave(mask.sum(1))
    missing = -len(positions) % max(1, mask.numel() // ROW_COUNTS)
    positions = torch.cat([positions, positions[:1].expand(missing)])  # all are shown as masks
    return positions, F.pad(weights, (0, missing))


def step_uniforms(seed: int, step: int, batch: int, num_tokens: int) -> tuple[Tensor, Tensor]:
    """What a step's masks are made of: uniforms of the ratio (B,), of the order (B, N)."""
    uniforms = torch.rand((batch, 1 + num_tokens), generator=step_generator(seed, step))
    return uniforms[:, 0], uniforms[:, 1:]


class TransformerStage(TokenStage):
    """One optimiser step a batch of pre-computed tokens, masked by the run's own schedule."""

    averaged = "transformer"

    def __init__(self, *args: Any, schedule: str, min_mask_ratio: float = 0.0, **more: Any):
        """schedule: the mask schedule. min_mask_ratio: lower bound of the mask ratio in training.
        The other arguments are those of TokenStage."""
        self.schedule, self.min_mask_ratio = schedule, min_mask_ratio
        super().__init__(*args, **more)

    def network(self, config: TransformerConfig) -> Transformer:
        """See TokenStage."""
        return Transformer(config)

    def loss_module(self, label_smoothing: float) -> MaskedLoss:
        """See TokenStage."""
        return MaskedLoss(self.model, label_smoothing)

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        """The masks (B, N) of the whole batch."""
        size, tokens = self.optimisation.batch_size, self.preset.num_tokens
        uniforms = step_uniforms(self.options.seed, step, size, tokens)
        return (masks_from_uniforms(self.schedule, *uniforms, self.min_mask_ratio),)

    def held_out_inputs(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The masks (b, N) of held-out images."""
        return (held_out_masks(self.schedule, rows, self.preset.num_tokens),)

    def arguments(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The masked positions and their weights in the loss."""
        return masked_positions(*inputs)

    def sample(self, labels: Tensor) -> Tensor:
        """See TokenStage; T is 12."""
        return generate(
            self.model,
            labels,
            steps=12,
            schedule=self.schedule,
            choice_temperature=self.preset.choice_temperature,
            seed=self.options.seed,
        )
