"""Stage 2: training of the transformer by masked token prediction (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import asdict

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from maskgit.model.masking import held_out_masks, masks_from_uniforms
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer, TransformerConfig
from maskgit.presets import Preset
from maskgit.training.images import save_grid
from maskgit.training.loop import Average, RunOptions, step_generator
from maskgit.training.token_stage import TokenStage, send, spread
from maskgit.training.tokens import TokenSource

VALIDATION_IMAGES = 2000
VALIDATION_BATCH = 250


def transformer_config(preset: Preset) -> TransformerConfig:
    """The sizes of stage 2 that a preset stands for."""
    return TransformerConfig(
        num_codes=preset.num_codes,
        num_classes=preset.num_classes,
        num_tokens=preset.num_tokens,
        **asdict(preset.transformer),
    )


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
    mean over each image's masked positions and then over images. No image may have none."""
    each = 1.0 / (mask.sum(1) * len(mask))
    return mask.flatten().nonzero().squeeze(1), each.repeat_interleave(mask.sum(1))


class TransformerStage(TokenStage):
    """One optimiser step a batch of pre-computed tokens, masked by the run's own schedule."""

    averaged = "transformer"

    def __init__(
        self,
        preset: Preset,
        schedule: str,
        train: TokenSource,
        held_out: TokenSource | None,
        tokenizer: Tokenizer | None,
        accelerator: Accelerator,
        options: RunOptions,
        min_mask_ratio: float = 0.0,
    ):
        """held_out: for the validation's NLL; tokenizer: for sample grids. None goes without."""
        self.preset, self.schedule, self.min_mask_ratio = preset, schedule, min_mask_ratio
        self.held_out = held_out
        self.tokenizer = None if tokenizer is None else tokenizer.to(accelerator.device)
        torch.manual_seed(options.seed)
        self.transformer = Transformer(transformer_config(preset)).to(accelerator.device)
        super().__init__(
            self.transformer,
            MaskedLoss(self.transformer, preset.label_smoothing),
            train,
            preset.transformer_training,
            accelerator,
            options,
        )

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        """The masks (B, N) of the whole batch."""
        generator = step_generator(self.options.seed, step)
        shape = (self.optimisation.batch_size, 1 + self.preset.num_tokens)
        uniforms = torch.rand(shape, generator=generator)
        return (
            masks_from_uniforms(
                self.schedule, uniforms[:, 0], uniforms[:, 1:], self.min_mask_ratio
            ),
        )

    def arguments(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The masked positions and their weights in the loss."""
        return masked_positions(*inputs)

    @torch.inference_mode()
    def validate(self, step: int, average: Average) -> dict[str, float]:
        """NLL (nats a masked token, no smoothing) of held-out images under the run's schedule.

        The processes share the images.
        """
        results = {}
        with average.swapped(self.transformer):
            if self.held_out is not None:
                results["validation_nll"] = self._held_out_nll(self.held_out)
            if self.tokenizer is not None and self.accelerator.is_main_process:
                self._save_samples(step, self.tokenizer)
        return results

    def _held_out_nll(self, source: TokenSource) -> float:
        accelerator = self.accelerator
        device = accelerator.device
        measure = MaskedLoss(self.transformer, 0.0)
        ids = torch.from_numpy(spread(len(source), VALIDATION_IMAGES))
        total = torch.zeros((), dtype=torch.float64, device=device)
        mine = ids[accelerator.process_index :: accelerator.num_processes]
        for rows in mine.split(VALIDATION_BATCH):
            tokens, labels = source.batch(rows.numpy(), 0)
            mask = held_out_masks(self.schedule, rows, self.preset.num_tokens)
            sent = [send(x, device) for x in (labels, tokens, *masked_positions(mask))]
            with accelerator.autocast():
                loss = measure(*sent)
            total += loss.double() * len(rows)
        return float(accelerator.reduce(total, "sum")) / len(ids)

    def _save_samples(self, step: int, tokenizer: Tokenizer) -> None:
        """Ten images of each of ten classes (T = 12), one class a row."""
        from maskgit.decoding import generate

        classes = min(10, self.preset.num_classes)
        labels = torch.arange(classes).repeat_interleave(10)
        tokens = generate(
            self.transformer,
            labels.to(self.accelerator.device),
            steps=12,
            schedule=self.schedule,
            choice_temperature=self.preset.choice_temperature,
            seed=self.options.seed,
        )
        images = tokenizer.decode(tokens.view(-1, *self.preset.grid))
        save_grid(images, self.options.run_dir / "samples" / f"{step + 1:07d}.png", 10)
