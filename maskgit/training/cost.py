"""What a preset's training takes: counted FLOPs, over GPUs' peaks times a utilisation.

The FLOPs are those of matrix products and convolutions, counted by torch on the meta device while
this package's own networks go through one training step; nothing is estimated from parameter
counts. What is assumed is the utilisation, and the output says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16

from maskgit.common.errors import UsageError
from maskgit.model.discriminator import Discriminator
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from maskgit.presets import Preset, load_preset
from maskgit.schedules import mask_ratio
from maskgit.training.stage1 import TokenizerPass
from maskgit.training.token_stage import recompute_activations

# Dense bfloat16 tensor-core peaks in TFLOP/s, without sparsity, from NVIDIA's data sheets:
# A100 (A100 Tensor Core GPU data sheet, 312), H100 SXM and H200 (data sheets print 1,979 with
# sparsity, 989 without), RTX 4090 (Ada architecture whitepaper: 165.2, accumulating in float32).
PEAK_TFLOPS = {"a100": 312.0, "h100": 989.0, "h200": 989.0, "rtx4090": 165.2}


@dataclass(frozen=True)
class Line:
    """One part of the work: name, FLOPs an image, images."""

    name: str
    flops: float
    images: float

    @property
    def total(self) -> float:
        return self.flops * self.images


def print_cost(
    preset: str,
    gpu: str,
    count: int,
    utilisation: float,
    epochs: float | None = None,
    heads: int | None = None,
    crops: int = 10,
    checkpoint_activations: bool = False,
) -> None:
    """Print the table of `python -m maskgit.training cost`.

    Raises:
        UsageError: an unknown preset or GPU, or a number that makes no sense.
    """
    if gpu not in PEAK_TFLOPS:
        raise UsageError(f"--gpu {gpu}: expected one of {', '.join(PEAK_TFLOPS)}")
    if not 0.0 < utilisation <= 1.0:
        raise UsageError(f"--utilisation {utilisation}: expected a share of the peak in (0, 1]")
    for name, value in (("count", count), ("crops", crops), ("epochs", epochs)):
        if value is not None and value <= 0:
            raise UsageError(f"--{name} {value}: expected a number above 0")
    chosen = load_preset(preset, heads)
    lines = cost_lines(chosen, epochs, crops, checkpoint_activations)
    speed = PEAK_TFLOPS[gpu] * 1e12 * utilisation
    (height, width), budget = chosen.size, chosen.transformer_training
    steps = math.ceil(lines[-1].images / budget.batch_size)
    print(
        f"{chosen.name}: {height}x{width}, {chosen.num_tokens} tokens, "
        f"{chosen.train_images:,} training images\n"
        f"{count} x {gpu}: peak {PEAK_TFLOPS[gpu]:g} TFLOP/s in bf16 (data sheet), "
        f"utilisation {utilisation:g} (assumed unless you measured it)\n"
        f"stage 2: {lines[-1].images / chosen.train_images:.0f} epochs, {steps:,} steps of "
        f"{budget.batch_size}\n"
    )
    print(f"{'':34}{'GFLOP/image':>12}{'images':>15}{'EFLOP':>10}{'GPU-hours':>11}{'days':>8}")
    for line in lines:
        print(_row(line.name, f"{line.flops / 1e9:.1f}", line.images, line.total, speed, count))
    total = sum(line.total for line in lines)
    print(_row("all", "", None, total, speed, count))
    print(
        "\nFLOPs: two for each multiplication and addition in matrix products and convolutions,\n"
        "counted on this code's networks; reading images and validation are not in it. The\n"
        "discriminator runs in float32, which reaches less of the peak."
    )


def _row(name: str, each: str, images: float | None, total: float, speed: float, count: int) -> str:
    shown = "" if images is None else f"{images:,.0f}"
    hours = total / speed / 3600
    return (
        f"{name:34}{each:>12}{shown:>15}{total / 1e18:>10,.4g}{hours:>11,.4g}"
        f"{hours / 24 / count:>8.1f}"
    )


def cost_lines(
    preset: Preset, epochs: float | None, crops: int, checkpoint_activations: bool = False
) -> list[Line]:
    """The work of stage 1, of tokenize and of stage 2, in this order."""
    side = preset.crop_size
    first = preset.tokenizer_training
    seen = first.steps * first.batch_size
    second = preset.transformer_training
    passes = preset.epochs if epochs is None else epochs
    lines = [Line("stage 1: tokenizer", tokenizer_step_flops(preset, side), seen)]
    if preset.tokenizer_loss.perceptual:
        lines.append(Line("stage 1: perceptual loss (VGG16)", perceptual_flops(side), seen))
    if preset.tokenizer_loss.adversarial:
        lines.append(Line("stage 1: discriminator and R1", discriminator_flops(preset, side), seen))
    encode = encoder_flops(preset)
    crops = crops if preset.augments else 1
    lines.append(
        Line(f"tokenize, {crops} crop{'s' * (crops > 1)}", encode, crops * preset.train_images)
    )
    steps = math.ceil(passes * preset.train_images / second.batch_size)
    each = transformer_step_flops(preset, checkpoint_activations)
    lines.append(Line("stage 2: transformer", each, steps * second.batch_size))
    return lines


def transformer_step_flops(preset: Preset, checkpoint_activations: bool = False) -> float:
    """FLOPs an image of forward and backward in stage 2, cosine schedule.

    The head and the last layer see masked tokens only, so their mean number is what counts.
    """
    # Mean over r uniform in (0, 1), by the midpoint rule.
    ratios = mask_ratio("cosine", (torch.arange(1000).numpy() + 0.5) / 1000, preset.num_tokens)
    ratio = float(ratios.clip(preset.min_mask_ratio).mean())
    shape = replace(preset.transformer, dropout=0.0)
    with torch.device("meta"):
        model = Transformer(replace(preset, transformer=shape).transformer_config)
        tokens = torch.zeros(1, 1 + preset.num_tokens, dtype=torch.int64)
        masked = torch.zeros(math.ceil(ratio * preset.num_tokens), dtype=torch.int64)
    if checkpoint_activations:
        recompute_activations(model.layers)
    return count_flops(lambda: model.logits(model.hidden(tokens, masked)).sum().backward())


def tokenizer_step_flops(preset: Preset, side: tuple[int, int]) -> float:
    """FLOPs an image of forward and backward of encoder, quantiser and decoder."""
    with torch.device("meta"):
        model = TokenizerPass(Tokenizer(preset.tokenizer))
        images = torch.zeros(1, preset.channels, *side)

    def step() -> None:
        out = model(images)
        (out["reconstruction"].sum() + out["mean_p"].sum()).backward()

    return count_flops(step)


def encoder_flops(preset: Preset) -> float:
    """FLOPs of the encoder and the nearest code, for one image of stage 2's size."""

    with torch.device("meta"):
        model = Tokenizer(preset.tokenizer)
        images = torch.zeros(1, preset.channels, *preset.size)
    return count_flops(lambda: model.encode(images))


def discriminator_flops(preset: Preset, side: tuple[int, int]) -> float:
    """FLOPs an image of the generator's adversarial term and of the discriminator's step."""
    with torch.device("meta"):
        model = Discriminator(preset.channels, side)
        fake = torch.zeros(1, preset.channels, *side, requires_grad=True)
        real = torch.zeros(1, preset.channels, *side, requires_grad=True)

    def step() -> None:
        model.requires_grad_(False)
        model(fake).sum().backward()
        model.requires_grad_(True)
        inner = real * 1.0  # the counter's hooks do not take a leaf
        logits = model(inner)
        (gradient,) = torch.autograd.grad(logits.sum(), inner, create_graph=True)
        (logits.sum() + model(fake.detach()).sum() + gradient.square().sum()).backward()

    return count_flops(step)


def perceptual_flops(side: tuple[int, int]) -> float:
    """FLOPs an image of VGG16's convolutions on two images, and back to the first one."""
    with torch.device("meta"):
        # LPIPS ends at the last activation; the fully connected layers are not used.
        model = vgg16(weights=None).features[:-1].requires_grad_(False)
        image = torch.zeros(1, 3, *side)
        made = torch.zeros(1, 3, *side, requires_grad=True)

    def step() -> None:
        model(image)
        model(made).sum().backward()

    return count_flops(step)


def count_flops(work: Callable[[], object]) -> float:
    """FLOPs of matrix products and convolutions in `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
