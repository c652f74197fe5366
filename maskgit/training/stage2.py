"""Stage 2: training of the transformer by masked token prediction (paper, section 3.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from maskgit.masking import held_out_masks, masks_from_uniforms
from maskgit.presets import Preset
from maskgit.tokenizer import Tokenizer
from maskgit.training.images import save_grid, to_tensor
from maskgit.training.loop import Average, DataOrder, RunOptions, step_generator
from maskgit.transformer import Transformer, TransformerConfig

VALIDATION_IMAGES = 2000


class MaskedLoss(nn.Module):
    """The training loss as one module, so that a data-parallel wrapper sees its forward."""

    def __init__(self, transformer: Transformer, label_smoothing: float):
        super().__init__()
        self.transformer, self.label_smoothing = transformer, label_smoothing

    def forward(self, labels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """labels (B,), tokens (B, N) and mask (B, N) -> scalar loss in nats.

        Cross-entropy at the masked positions with label smoothing over the whole vocabulary,
        averaged over each image's masked tokens and then over images.
        """
        config = self.transformer.config
        masked = tokens.masked_fill(mask, config.mask_id)
        sequence = torch.cat([config.num_codes + labels[:, None], masked], 1)
        hidden = self.transformer.hidden(sequence, mask)
        logits = self.transformer.logits(hidden).float()
        each = F.cross_entropy(
            logits, tokens[mask], label_smoothing=self.label_smoothing, reduction="none"
        )
        per_image = (1.0 / mask.sum(1)).repeat_interleave(mask.sum(1))
        return (each * per_image).sum() / len(tokens)


class TransformerStage:
    """One optimiser step a batch of pre-computed tokens, masked by the run's own schedule."""

    averaged = "transformer"

    def __init__(
        self,
        preset: Preset,
        schedule: str,
        train: tuple[np.ndarray, np.ndarray],
        test: tuple[np.ndarray, np.ndarray],
        tokenizer: Tokenizer,
        accelerator: Accelerator,
        options: RunOptions,
        min_mask_ratio: float = 0.0,
    ):
        """train: tokens uint16 (n, N) and labels (n,); test: images uint8 (n, H, W, C), labels."""
        self.preset, self.schedule, self.min_mask_ratio = preset, schedule, min_mask_ratio
        self.accelerator, self.options = accelerator, options
        device = accelerator.device
        self.tokens = torch.from_numpy(train[0].astype(np.int64))
        self.labels = torch.from_numpy(train[1])
        self.tokenizer = tokenizer.to(device)
        images = to_tensor(test[0][:VALIDATION_IMAGES]).to(device)
        self.test_tokens = torch.cat([tokenizer.encode(x).flatten(1) for x in images.split(250)])
        self.test_labels = torch.from_numpy(test[1][:VALIDATION_IMAGES]).to(device)
        torch.manual_seed(options.seed)
        shape = preset.transformer
        config = TransformerConfig(
            num_codes=preset.num_codes,
            num_classes=preset.num_classes,
            num_tokens=preset.num_tokens,
            width=shape.width,
            layers=shape.layers,
            heads=shape.heads,
            mlp=shape.mlp,
            dropout=shape.dropout,
        )
        self.transformer = Transformer(config).to(device)
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer}
        budget = preset.transformer_training
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "transformer": torch.optim.AdamW(
                self.transformer.parameters(),
                lr=budget.learning_rate,
                betas=budget.betas,
                weight_decay=budget.weight_decay,
                fused=True,
            )
        }
        self.loss = accelerator.prepare_model(MaskedLoss(self.transformer, preset.label_smoothing))
        self.order = DataOrder(len(self.tokens), budget.batch_size, options.seed)

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of the budget; returns the loss."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batch = self.preset.transformer_training.batch_size
        generator = step_generator(self.options.seed, step)
        uniforms = torch.rand(batch, 1 + self.preset.num_tokens, generator=generator)
        mask = masks_from_uniforms(
            self.schedule, uniforms[:, 0], uniforms[:, 1:], self.min_mask_ratio
        )
        torch.manual_seed(step_generator(self.options.seed, step, 1 + rank).initial_seed())
        picked = torch.from_numpy(self.order.batch(step))[rank::world]
        device = self.accelerator.device
        with self.accelerator.autocast():
            loss = self.loss(
                self.labels[picked].to(device),
                self.tokens[picked].to(device),
                mask[rank::world].to(device),
            )
        optimiser = self.optimisers["transformer"]
        optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        parameters = self.transformer.parameters()
        nn.utils.clip_grad_norm_(parameters, self.preset.transformer_training.clip_norm)
        optimiser.step()
        return {"loss": loss.detach()}

    @torch.inference_mode()
    def validate(self, step: int, average: Average) -> dict[str, float]:
        """NLL (nats a masked token, no smoothing) of held-out images under the run's schedule."""
        device = self.accelerator.device
        with average.swapped(self.transformer):
            measure = MaskedLoss(self.transformer, 0.0)
            ids = torch.arange(len(self.test_tokens))
            mask = held_out_masks(self.schedule, ids, self.preset.num_tokens).to(device)
            total = 0.0
            for rows in ids.split(250):
                part = measure(self.test_labels[rows], self.test_tokens[rows], mask[rows])
                total += float(part) * len(rows)
            if self.accelerator.is_main_process:
                self._save_samples(step)
        return {"validation_nll": total / len(ids)}

    def _save_samples(self, step: int) -> None:
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
        images = self.tokenizer.decode(tokens.view(-1, *self.preset.grid))
        save_grid(images, self.options.run_dir / "samples" / f"{step + 1:07d}.png", 10)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to load: every random choice follows from (seed, step)."""
