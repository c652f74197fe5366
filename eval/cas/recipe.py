"""Recipes of the Classification Accuracy Score: how its classifier is built and trained, which is
all that a score depends on besides the images.

The network is torchvision's ResNet-50 with random weights. Its stem is stated, because the
original one (7x7, stride 2, then a max pool: a quarter of the side is left) throws away most of a
small image: `stride-1` is the stem that CIFAR networks have, `stride-2` and `stride-4` cost a
quarter and a sixteenth of it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.metrics.metric import Metric
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

# Recipe and size stand in the id where others have the feature network.
METRIC = Metric("cas", 1, "CAS", 3, "higher", needs=frozenset({"held_out"}))
# name -> (kernel, stride of the first convolution, whether the max pool of stride 2 follows)
STEMS = {
    "imagenet": (7, 2, True),
    "stride-4": (3, 2, True),
    "stride-2": (3, 2, False),
    "stride-1": (3, 1, False),
}
SMALL = 64  # pixels: images of up to this side are not cropped and resized, but shifted
STEPS_AT = (30 / 90, 60 / 90, 80 / 90)  # of the epochs, where the schedule `steps` divides by 10
RANDAUGMENT = (2, 9)  # operations and magnitude (of 30), torchvision's defaults


@dataclass(frozen=True)
class Recipe:
    """Settings of one training: SGD with momentum, on cross-entropy.

    Attributes:
        name: of the recipe it comes from.
        stem: of STEMS.
        epochs: passes over the training images; a last batch that is not full is left out.
        batch_size: images of a step.
        rate: highest learning rate, for a batch of 256; it grows in proportion to the batch.
        warmup_epochs: the rate rises linearly from 0 that long.
        schedule: after that: `cosine` to 0, or `steps`: a tenth at 1/3, 2/3 and 8/9 of the epochs.
        momentum: of SGD.
        nesterov: Nesterov's form of it.
        weight_decay: of all weights but those of the normalisation and the biases.
        label_smoothing: probability that is spread evenly over all classes.
        randaugment: RandAugment (2 operations, magnitude 9) after crop or shift and flip.
    """

    name: str
    stem: str
    epochs: int
    batch_size: int
    rate: float
    warmup_epochs: float
    schedule: str
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-5
    label_smoothing: float = 0.1
    randaugment: bool = False

    def check(self) -> None:
        """Raise a UsageError if a setting cannot be trained with."""
        if self.stem not in STEMS:
            raise UsageError(f"--stem {self.stem}: expected one of {', '.join(STEMS)}")
        if self.schedule not in ("cosine", "steps"):
            raise UsageError(f"schedule {self.schedule!r}: expected cosine or steps")
        for flag, value, low in (("epochs", self.epochs, 1), ("batch-size", self.batch_size, 2)):
            if not isinstance(value, int) or value < low:
                raise UsageError(f"--{flag} {value}: expected a whole number from {low}")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise UsageError(f"--rate {self.rate}: a number above 0 is needed")
        shares = {"momentum": self.momentum, "label smoothing": self.label_smoothing}
        for what, share in shares.items():
            if not 0 <= share < 1:
                raise UsageError(f"{what} {share}: expected a number from 0 to below 1")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UsageError(
                f"warm-up of {self.warmup_epochs:g} epochs: expected fewer than the {self.epochs} "
                "that are trained"
            )

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of step 0 .. epochs * steps_per_epoch - 1."""
        peak = self.rate * self.batch_size / 256
        warmup, total = self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        if self.schedule == "cosine":
            return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
        return peak * 0.1 ** sum(step >= share * total for share in STEPS_AT)

    def describe(self) -> dict[str, Any]:
        """All settings as a protocol states them (JSON-able)."""
        kernel, stride, pool = STEMS[self.stem]
        stem = f"{kernel}x{kernel} stride {stride}, {'3x3 max pool' if pool else 'no max pool'}"
        settings = dataclasses.asdict(self)
        settings["stem"] = f"{self.stem} ({stem})"
        settings["rate"] = f"{self.rate:g} * batch / 256"
        settings["network"] = "torchvision resnet50 from scratch, last norm of each block from 0"
        return settings


# `long` is Goyal et al. 2017 (arXiv:1706.02677): what ResNet-50 is trained with on ImageNet.
# `short` spends about a sixth of it, `embedded` is what two cores do in minutes at 32x32; how it
# was chosen is in docs/cas.md.
RECIPES = {
    "embedded": Recipe("embedded", "stride-4", 6, 64, 0.2, 1, "cosine", weight_decay=5e-4),
    "short": Recipe("short", "imagenet", 16, 256, 0.5, 2, "cosine"),
    "long": Recipe(
        "long", "imagenet", 90, 256, 0.1, 5, "steps", weight_decay=1e-4, label_smoothing=0.0
    ),
}


def get_recipe(name: str, image_size: int, **changes: Any) -> Recipe:
    """A recipe of RECIPES with some settings changed.

    Args:
        name: registry name; `auto` is embedded for images of up to 64 pixels, else short.
        image_size: the longer side. Small images get a stem that leaves them something.
        changes: settings of `Recipe`; None leaves a setting as it is.

    Raises:
        UsageError: unknown name, or a setting out of range.
    """
    if name == "auto":
        name = "embedded" if image_size <= SMALL else "short"
    if name not in RECIPES:
        raise UsageError(f"--recipe {name}: expected auto, {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if image_size <= SMALL and recipe.stem == "imagenet":
        recipe = dataclasses.replace(recipe, stem="stride-1")
    changes = {key: value for key, value in changes.items() if value is not None}
    recipe = dataclasses.replace(recipe, **changes)
    if "epochs" in changes and "warmup_epochs" not in changes:  # a short trial warms up too
        share = RECIPES[name].warmup_epochs / RECIPES[name].epochs
        recipe = dataclasses.replace(
            recipe, warmup_epochs=min(recipe.warmup_epochs, share * recipe.epochs)
        )
    recipe.check()
    return recipe


def build_network(stem: str, num_classes: int, seed: int) -> nn.Module:
    """ResNet-50 with random weights of `seed`: float32 (n, 3, H, W) -> logits (n, num_classes)."""
    import torch
    from torch import nn
    from torchvision.models import resnet50

    kernel, stride, pool = STEMS[stem]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = resnet50(num_classes=num_classes, zero_init_residual=True)
        if kernel != 7:
            model.conv1 = nn.Conv2d(3, 64, kernel, stride, padding=kernel // 2, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        if not pool:
            model.maxpool = nn.Identity()
    return model


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD that decays the weights of convolutions and of the last layer only."""
    import torch

    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others},
    ]
    return torch.optim.SGD(
        groups,
        lr=recipe.rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=0.0,
        fused=True,  # half of the step's time on a CPU
    )
