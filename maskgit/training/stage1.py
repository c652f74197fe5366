"""Stage 1: training of the tokenizer (reconstruction, quantiser, optional perceptual and GAN)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from maskgit.presets import Preset
from maskgit.tokenizer import CodeUsage, Tokenizer
from maskgit.training.images import save_grid, to_tensor
from maskgit.training.loop import Average, DataOrder, RunOptions, step_generator


class TokenizerStage:
    """One generator step a batch, and where the preset asks for it one discriminator step."""

    averaged = "tokenizer"

    def __init__(
        self,
        preset: Preset,
        train: np.ndarray,
        test: np.ndarray,
        accelerator: Accelerator,
        options: RunOptions,
        perceptual: nn.Module | None = None,
    ):
        """train and test are uint8 (n, H, W, C); perceptual maps two images to a loss."""
        self.preset, self.train, self.test = preset, train, test
        self.accelerator, self.options = accelerator, options
        self.weights = preset.tokenizer_loss
        budget = preset.tokenizer_training
        torch.manual_seed(options.seed)
        device = accelerator.device
        self.tokenizer = Tokenizer(preset.tokenizer).to(device)
        self.tokenizer.to(memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"tokenizer": self.tokenizer}
        self.optimisers = {"tokenizer": self._adam(self.tokenizer)}
        self.perceptual = perceptual
        if self.weights.adversarial:
            from maskgit.discriminator import Discriminator

            discriminator = Discriminator(preset.channels, preset.image_size).to(device)
            self.modules["discriminator"] = discriminator
            self.optimisers["discriminator"] = self._adam(discriminator)
        self.wrapped = {k: accelerator.prepare_model(m) for k, m in self.modules.items()}
        self.order = DataOrder(len(train), budget.batch_size, options.seed)
        self.usage = CodeUsage(preset.num_codes)
        self.dead = 0

    def _adam(self, module: nn.Module) -> torch.optim.Optimizer:
        budget = self.preset.tokenizer_training
        return torch.optim.AdamW(
            module.parameters(),
            lr=budget.learning_rate,
            betas=budget.betas,
            weight_decay=budget.weight_decay,
        )

    def _images(self, step: int) -> Tensor:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        images = self.train[self.order.batch(step)[rank::world]]
        return to_tensor(images).to(
            self.accelerator.device, memory_format=torch.channels_last, non_blocking=True
        )

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of the budget; returns the loss and its terms."""
        images, w = self._images(step), self.weights
        adversarial = w.adversarial if step >= w.adversarial_start else 0.0
        with self.accelerator.autocast():
            reconstruction, indices, terms, rows = self.wrapped["tokenizer"](images)
        reconstruction = reconstruction.float()
        scalars = {"reconstruction": F.mse_loss(reconstruction, images), **terms}
        if self.perceptual is not None and w.perceptual:
            scalars["perceptual"] = self.perceptual(reconstruction, images).mean()
        if adversarial:
            scalars["adversarial"] = F.softplus(
                -self.wrapped["discriminator"](reconstruction)
            ).mean()
        factors = {"reconstruction": 1.0, **vars(w), "adversarial": adversarial}
        loss = sum(factors[name] * value for name, value in scalars.items())
        self._update("tokenizer", loss)
        if adversarial:
            scalars |= self._discriminator_step(images, reconstruction.detach())
        if w.revive_every:
            self._revive(step, indices, rows.float())
        return {"loss": loss.detach(), **{k: v.detach() for k, v in scalars.items()}}

    def _revive(self, step: int, indices: Tensor, rows: Tensor) -> None:
        """Put dead codes on encoder outputs: all of them after the first step, then every window
        of the first half of the run."""
        if step > 0:
            self.usage.add(indices)
        windows = step < self.preset.tokenizer_training.steps / 2
        if step == 0 or (windows and (step + 1) % self.weights.revive_every == 0):
            book = self.tokenizer.quantizer.codebook
            generator = step_generator(self.options.seed, step, stream=1)
            self.dead = self.usage.revive(book.data, rows, generator)

    def _discriminator_step(self, images: Tensor, fakes: Tensor) -> dict[str, Tensor]:
        """Non-saturating logistic loss with the R1 penalty on real images."""
        discriminator = self.wrapped["discriminator"]
        real = images.detach().requires_grad_(True)
        real_logits = discriminator(real)
        loss = F.softplus(discriminator(fakes)).mean() + F.softplus(-real_logits).mean()
        (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)).mean()
        self._update("discriminator", loss + 0.5 * self.weights.r1 * penalty)
        return {"discriminator": loss, "r1": penalty}

    def _update(self, name: str, loss: Tensor) -> None:
        optimiser, module = self.optimisers[name], self.modules[name]
        optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        clip = self.preset.tokenizer_training.clip_norm
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimiser.step()

    def validate(self, step: int, average: Average) -> dict[str, float]:
        """PSNR (dB, over all pixels) and code use of the averaged weights on the test images."""
        tokenizer = self.tokenizer
        errors, used = [], set()
        with average.swapped(tokenizer):
            for i in range(0, len(self.test), 250):
                images = to_tensor(self.test[i : i + 250]).to(self.accelerator.device)
                indices = tokenizer.encode(images)
                back = tokenizer.decode(indices).clamp(0.0, 1.0)
                errors.append(float((back - images).square().mean((1, 2, 3)).sum()))
                used.update(indices.unique().tolist())
                if i == 0 and self.accelerator.is_main_process:
                    pairs = torch.stack([images[:40], back[:40]], 1).flatten(0, 1)
                    save_grid(pairs, self.options.run_dir / "samples" / f"{step + 1:07d}.png", 10)
        mse = sum(errors) / len(self.test)
        return {
            "test_psnr": -10.0 * float(np.log10(mse)),
            "codes_used": float(len(used)),
            "revived": float(self.dead),
        }

    def state(self) -> dict[str, Any]:
        return {"counts": self.usage.counts, "dead": self.dead}

    def load_state(self, state: dict[str, Any]) -> None:
        self.usage.counts.copy_(state["counts"])
        self.dead = state["dead"]
