"""Stage 1: training of the tokenizer (reconstruction, quantiser, optional perceptual and GAN).

The batch is cut into slices as in maskgit.training.token_stage. All terms but one are means over
images; the entropy of the mean use of the codes is not, so that mean is taken over the whole batch
(`negative_mean_entropy`), and any number of processes and slices takes the whole batch's step.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from maskgit.data.source import ImageSource, spread
from maskgit.model.discriminator import Discriminator
from maskgit.model.tokenizer import CodeUsage, ResBlock, Tokenizer
from maskgit.presets import Preset
from maskgit.training.feed import Feed
from maskgit.training.images import save_grid, to_tensor
from maskgit.training.loop import Average, DataOrder, step_generator
from maskgit.training.settings import RunOptions
from maskgit.training.token_stage import adamw, check_slices, recompute_activations, send

VALIDATION_IMAGES = 10_000
VALIDATION_BATCH = 250
_EPS = 1e-5  # official losses.py, entropy_loss


class TokenizerPass(nn.Module):
    """Encoder, quantiser and decoder as one module, so that the wrapper sees its forward."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images (B, C, H, W) -> what the losses need, float32 also under autocast.

        reconstruction (B, C, H, W) not clipped, with the straight-through estimator; indices
        (B, h, w); rows (B*h*w, D), the encoder's output, detached; the scalars commitment,
        codebook and sample_entropy; mean_p (K,), the mean over rows of softmax(-distance / 0.01).
        """
        quantizer = self.tokenizer.quantizer
        features = self.tokenizer.encoder(images)
        b, d, h, w = features.shape
        # Squared distances divided by 0.01 need every bit of float32.
        with _float32(images.device.type):
            rows = features.float().permute(0, 2, 3, 1).reshape(-1, d)
            distances = quantizer.distances(rows)
            indices = distances.argmin(1)
            chosen = F.embedding(indices, quantizer.codebook)
            log_p = F.log_softmax(-distances / 0.01, dim=-1)
            p = log_p.exp()
            terms = {
                "commitment": F.mse_loss(rows, chosen.detach()),
                "codebook": F.mse_loss(chosen, rows.detach()),
                "sample_entropy": -(p * log_p).sum(-1).mean(),
                "mean_p": p.mean(0),
            }
            passed = rows + (chosen - rows).detach()
        decoded = self.tokenizer.decoder(passed.view(b, h, w, d).permute(0, 3, 1, 2).contiguous())
        return {
            **terms,
            "reconstruction": decoded.float(),
            "indices": indices.view(b, h, w),
            "rows": rows.detach(),
        }

    @torch.no_grad()
    def mean_p(self, images: Tensor) -> Tensor:
        """mean_p of `forward`, at the price of the encoder."""
        rows = self.tokenizer.encoder(images).float().permute(0, 2, 3, 1).flatten(0, 2)
        with _float32(images.device.type):
            return F.softmax(-self.tokenizer.quantizer.distances(rows) / 0.01, dim=-1).mean(0)


def _float32(device: str) -> AbstractContextManager:
    """No autocast in this block; the meta device, on which FLOPs are counted, knows none."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()


def negative_mean_entropy(mean_p: Tensor, slice_p: Tensor, share: float, slices: int) -> Tensor:
    """One slice's part of sum(m log(m + eps)), m = mean_p (K,) of the whole batch.

    slice_p (K,) is the slice's own mean and share its part of the batch, so m is the sum of
    share * slice_p. The parts' values add up to the term, and so do their gradients.
    """
    m = mean_p.detach()
    slope = (m + _EPS).log() + m / (m + _EPS)
    linear = (slope * slice_p).sum() * share
    return (m * (m + _EPS).log()).sum() / slices + (linear - linear.detach())


class TokenizerStage:
    """One generator step a batch, and where the preset asks for it one discriminator step."""

    averaged = "tokenizer"

    def __init__(
        self,
        preset: Preset,
        train: ImageSource,
        test: ImageSource | None,
        accelerator: Accelerator,
        options: RunOptions,
        perceptual: nn.Module | None = None,
    ):
        """train and test: images of the preset's tokenizer_image_size; test=None: no validation;
        perceptual: two images to a loss."""
        self.preset, self.test = preset, test
        self.accelerator, self.options = accelerator, options
        self.weights = preset.tokenizer_loss
        self.budget = preset.tokenizer_training
        check_slices(self.budget.batch_size, accelerator, options.accumulate)
        torch.manual_seed(options.seed)
        device = accelerator.device
        self.tokenizer = Tokenizer(preset.tokenizer).to(device)
        self.tokenizer.to(memory_format=torch.channels_last)
        if options.checkpoint_activations:
            recompute_activations(m for m in self.tokenizer.modules() if isinstance(m, ResBlock))
        self.modules: dict[str, nn.Module] = {"tokenizer": self.tokenizer}
        self.optimisers = {"tokenizer": adamw(self.tokenizer, self.budget)}
        self.perceptual = perceptual
        if self.weights.adversarial:
            discriminator = Discriminator(preset.channels, preset.crop_size).to(device)
            self.modules["discriminator"] = discriminator
            self.optimisers["discriminator"] = adamw(discriminator, self.budget)
        self.inner = TokenizerPass(self.tokenizer)
        self.wrapped = accelerator.prepare_model(self.inner)
        self.order = DataOrder(len(train), self.budget.batch_size, options.seed)
        self.feed = Feed(train, self.order, accelerator, options.accumulate, options.workers)
        self.usage = CodeUsage(preset.num_codes)
        self.dead = 0

    def _images(self, step: int, part: int) -> Tensor:
        images = send(to_tensor(self.feed.images(step, part)), self.accelerator.device)
        return images.to(memory_format=torch.channels_last)

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of the budget; returns the loss, its terms and the gradients' norms."""
        parts = [self._images(step, part) for part in range(self.options.accumulate)]
        mean_p = None
        if self.weights.entropy and len(parts) > 1:
            with self.accelerator.autocast():
                shares = [self.inner.mean_p(x) * self._share(x) for x in parts]
            mean_p = self.accelerator.reduce(torch.stack(shares).sum(0), "sum")
        self.optimisers["tokenizer"].zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        kept = []
        for number, images in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                scalars, made = self._generator_slice(step, images, mean_p)
            for name, value in scalars.items():
                totals[name] = totals.get(name, 0.0) + value
            kept.append(made)
        norms = {"gradient_norm": self._update("tokenizer")}
        if self._adversarial(step):
            scalars = self._discriminator_step(parts, [m["reconstruction"] for m in kept])
            norms["discriminator_gradient_norm"] = self._update("discriminator")
            totals |= scalars
        if self.weights.revive_every:
            self._revive(step, kept)
        values = self.accelerator.reduce(torch.stack(list(totals.values())), "sum")
        return {**dict(zip(totals, values, strict=True)), **norms}

    def _share(self, images: Tensor) -> float:
        return len(images) / self.budget.batch_size

    def _adversarial(self, step: int) -> float:
        return self.weights.adversarial if step >= self.weights.adversarial_start else 0.0

    def _generator_slice(
        self, step: int, images: Tensor, mean_p: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Forward and backward of one slice: its part of each term, and tensors for later."""
        w, share, world = self.weights, self._share(images), self.accelerator.num_processes
        with self.accelerator.autocast():
            out = self.wrapped(images)
        reconstruction, slice_p = out["reconstruction"], out["mean_p"]
        if mean_p is None:
            mean_p = self.accelerator.reduce(slice_p.detach() * share, "sum")
        terms = {
            "reconstruction": F.mse_loss(reconstruction, images) * share,
            "commitment": out["commitment"] * share,
            "codebook": out["codebook"] * share,
            "entropy": out["sample_entropy"] * share
            + negative_mean_entropy(mean_p, slice_p, share, world * self.options.accumulate),
        }
        if self.perceptual is not None and w.perceptual:
            with self.accelerator.autocast():
                distance = self.perceptual(reconstruction, images)
            terms["perceptual"] = distance.float().mean() * share
        adversarial = self._adversarial(step)
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(False)
            terms["adversarial"] = F.softplus(-discriminator(reconstruction)).mean() * share
            discriminator.requires_grad_(True)
        factors = {"reconstruction": 1.0, **vars(w), "adversarial": adversarial}
        loss = torch.stack([factors[name] * value for name, value in terms.items()]).sum()
        self.accelerator.backward(loss * world)  # the wrapper divides by the processes
        made = {k: out[k].detach() for k in ("reconstruction", "indices", "rows")}
        return {"loss": loss.detach(), **{k: v.detach() for k, v in terms.items()}}, made

    def _discriminator_step(self, parts: list[Tensor], fakes: list[Tensor]) -> dict[str, Tensor]:
        """Non-saturating logistic loss with the R1 penalty on real images, in float32.

        The penalty is r1 * mean |gradient|^2, without a half (official losses.py,
        r1_gradient_penalty). Gradients are summed over the processes by hand: the wrapper does not
        follow the gradient of a gradient.
        """
        discriminator = self.modules["discriminator"]
        self.optimisers["discriminator"].zero_grad(set_to_none=True)
        totals = torch.zeros(2, device=self.accelerator.device)
        for images, fake in zip(parts, fakes, strict=True):
            share = self._share(images)
            real = images.detach().requires_grad_(True)
            real_logits = discriminator(real)
            loss = F.softplus(discriminator(fake)).mean() + F.softplus(-real_logits).mean()
            (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
            ((loss + self.weights.r1 * penalty) * share).backward()
            totals += torch.stack([loss.detach(), penalty.detach()]) * share
        if self.accelerator.num_processes > 1:
            for parameter in discriminator.parameters():
                assert parameter.grad is not None  # every part of it is used
                torch.distributed.all_reduce(parameter.grad)
        return {"discriminator": totals[0], "r1": totals[1]}

    def _update(self, name: str) -> Tensor:
        parameters = self.modules[name].parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self.budget.clip_norm)
        self.optimisers[name].step()
        return norm

    def _revive(self, step: int, kept: list[dict[str, Tensor]]) -> None:
        """Put dead codes on encoder outputs: all of them after the first step, then every window
        of the first half of the run. Counts and candidates are those of the whole batch."""
        reduce = self.accelerator.reduce
        if step > 0:
            indices = torch.cat([m["indices"].flatten() for m in kept])
            counts = torch.bincount(indices, minlength=self.preset.num_codes)
            self.usage.counts += reduce(counts, "sum").cpu()
        windows = step < self.budget.steps / 2
        if step == 0 or (windows and (step + 1) % self.weights.revive_every == 0):
            rows = kept[0]["rows"]
            each = len(rows) // len(kept[0]["indices"])  # rows an image
            everyone = rows.new_zeros(self.budget.batch_size, each, rows.shape[1])
            slices = self.accelerator.num_processes * len(kept)
            for part, made in enumerate(kept):
                number = part * self.accelerator.num_processes + self.accelerator.process_index
                everyone[number::slices] = made["rows"].view(-1, each, rows.shape[1])
            generator = step_generator(self.options.seed, step, stream=1)
            self.dead = self.usage.revive(
                self.tokenizer.quantizer.codebook.data,
                reduce(everyone, "sum").flatten(0, 1),
                generator,
            )

    @torch.inference_mode()
    def validate(self, step: int, average: Average) -> dict[str, float]:
        """PSNR (dB, over all pixels) and code use of the averaged weights on the test images,
        which the processes share; of more than 10,000, every k-th."""
        if self.test is None:
            return {}
        device, preset = self.accelerator.device, self.preset
        total = torch.zeros((), dtype=torch.float64, device=device)
        used = torch.zeros(preset.num_codes, device=device)
        ids = spread(len(self.test), VALIDATION_IMAGES)
        mine = ids[self.accelerator.process_index :: self.accelerator.num_processes]
        with average.swapped(self.tokenizer):
            for i in range(0, len(mine), VALIDATION_BATCH):
                images = to_tensor(self.test.batch(mine[i : i + VALIDATION_BATCH], 0)).to(device)
                indices = self.tokenizer.encode(images)
                back = self.tokenizer.decode(indices).clamp(0.0, 1.0)
                total += (back - images).square().mean((1, 2, 3)).sum().double()
                used[indices.flatten()] = 1.0
                if i == 0 and self.accelerator.is_main_process:
                    pairs = torch.stack([images[:40], back[:40]], 1).flatten(0, 1)
                    save_grid(pairs, self.options.run_dir / "samples" / f"{step + 1:07d}.png", 10)
        mse = float(self.accelerator.reduce(total, "sum")) / len(ids)
        return {
            "test_psnr": -10.0 * float(np.log10(mse)),
            "codes_used": float((self.accelerator.reduce(used, "sum") > 0).sum()),
            "revived": float(self.dead),
        }

    def state(self) -> dict[str, Any]:
        return {"counts": self.usage.counts, "dead": self.dead}

    def load_state(self, state: dict[str, Any]) -> None:
        self.usage.counts.copy_(state["counts"])
        self.dead = state["dead"]
