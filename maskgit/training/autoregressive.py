"""Training of the autoregressive baseline, on the tokens and with the budget of stage 2.

The paper trains all its models with a label smoothing of 0.1, and that is the default here too. A
smoothed model gives a tenth of its probability to arbitrary codes. MaskGIT's confidence takes such
draws back; a sampler that keeps each token it draws cannot, so the shipped model is trained with
`--label-smoothing 0`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from maskgit.model.causal import Autoregressive
from maskgit.model.tokenizer import Tokenizer
from maskgit.presets import Preset
from maskgit.training.images import save_grid
from maskgit.training.loop import Average, RunOptions
from maskgit.training.stage2 import VALIDATION_BATCH, VALIDATION_IMAGES, transformer_config
from maskgit.training.token_stage import TokenStage, send
from maskgit.training.tokens import TokenSource


class AutoregressiveLoss(nn.Module):
    """The training loss as one module, so that a data-parallel wrapper sees its forward."""

    def __init__(self, model: Autoregressive, label_smoothing: float):
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def forward(self, labels: Tensor, tokens: Tensor) -> Tensor:
        """labels (B,) and tokens (B, N) -> scalar loss in nats.

        Cross-entropy of every token given those before it, with label smoothing over the codes,
        averaged over each image's N tokens and then over images.
        """
        logits = self.model(labels, tokens[:, :-1]).float()
        return F.cross_entropy(
            logits.flatten(0, 1), tokens.flatten(), label_smoothing=self.label_smoothing
        )


class AutoregressiveStage(TokenStage):
    """One optimiser step a batch of pre-computed tokens; optimiser and budget of the masked one."""

    averaged = "autoregressive"

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
        self.preset, self.held_out = preset, held_out
        self.tokenizer = None if tokenizer is None else tokenizer.to(accelerator.device)
        torch.manual_seed(options.seed)
        self.autoregressive = Autoregressive(transformer_config(preset)).to(accelerator.device)
        super().__init__(
            self.autoregressive,
            AutoregressiveLoss(self.autoregressive, preset.label_smoothing),
            train,
            preset.transformer_training,
            accelerator,
            options,
        )

    @torch.inference_mode()
    def validate(self, step: int, average: Average) -> dict[str, float]:
        """NLL (nats a token, no smoothing) of held-out images; the processes share them."""
        results = {}
        with average.swapped(self.autoregressive):
            if self.held_out is not None:
                results["validation_nll"] = self._held_out_nll(self.held_out)
            if self.tokenizer is not None and self.accelerator.is_main_process:
                self._save_samples(step, self.tokenizer)
        return results

    def _held_out_nll(self, source: TokenSource) -> float:
        accelerator = self.accelerator
        measure = AutoregressiveLoss(self.autoregressive, 0.0)
        count = min(VALIDATION_IMAGES, len(source))
        total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
        mine = torch.arange(accelerator.process_index, count, accelerator.num_processes)
        for rows in mine.split(VALIDATION_BATCH):
            tokens, labels = source.batch(rows.numpy(), 0)
            sent = [send(x, accelerator.device) for x in (labels, tokens)]
            with accelerator.autocast():
                loss = measure(*sent)
            total += loss.double() * len(rows)
        return float(accelerator.reduce(total, "sum")) / count

    def _save_samples(self, step: int, tokenizer: Tokenizer) -> None:
        """Ten images of each of ten classes, one class a row."""
        from maskgit.sampling.autoregressive import generate_autoregressive

        labels = torch.arange(min(10, self.preset.num_classes)).repeat_interleave(10)
        tokens = generate_autoregressive(
            self.autoregressive, labels.to(self.accelerator.device), seed=self.options.seed
        )
        images = tokenizer.decode(tokens.view(-1, *self.preset.grid))
        save_grid(images, self.options.run_dir / "samples" / f"{step + 1:07d}.png", 10)
