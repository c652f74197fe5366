"""Named configurations: plain functions whose docstrings say what they cost and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from maskgit.data import CLASS_NAMES
from maskgit.errors import UsageError
from maskgit.tokenizer import TokenizerConfig

# The seven functions of the paper's Table 3, from the most concave to the most convex.
PAPER_SCHEDULES = ("exponential", "cubic", "square", "cosine", "linear", "sqrt", "logarithmic")


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a transformer that do not follow from the tokenizer and the data."""

    width: int = 768
    layers: int = 24
    heads: int = 16
    mlp: int = 3072
    dropout: float = 0.1


@dataclass(frozen=True)
class Optimisation:
    """One training run's budget and optimiser (lengths in optimiser steps)."""

    steps: int
    batch_size: int = 256
    learning_rate: float = 1e-4
    warmup_steps: int = 5000
    decay: str = "constant"  # or "cosine", to zero at the last step
    betas: tuple[float, float] = (0.9, 0.96)
    weight_decay: float = 0.045
    ema: float = 0.999
    clip_norm: float = 1.0


@dataclass(frozen=True)
class TokenizerLoss:
    """Weights of the stage 1 losses; 0 leaves a term out."""

    commitment: float = 0.25
    codebook: float = 1.0
    entropy: float = 0.1
    perceptual: float = 0.1
    adversarial: float = 0.1
    adversarial_start: int = 0
    r1: float = 10.0
    revive_every: int = 0  # steps; 0 never revives dead codes


@dataclass(frozen=True)
class Preset:
    """Everything that a name like `embedded` stands for."""

    name: str
    num_classes: int
    image_size: int
    tokenizer: TokenizerConfig
    tokenizer_loss: TokenizerLoss
    tokenizer_training: Optimisation
    transformer: TransformerShape
    transformer_training: Optimisation
    features: str
    reference: str
    num_samples: int
    class_names: tuple[str, ...]
    label_smoothing: float = 0.1
    choice_temperature: float = 4.5
    schedules: tuple[str, ...] = field(default=PAPER_SCHEDULES)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the code grid."""
        side = self.image_size // self.tokenizer.downsampling
        return side, side

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def num_codes(self) -> int:
        return self.tokenizer.num_codes

    @property
    def channels(self) -> int:
        return self.tokenizer.channels


def embedded() -> Preset:
    """Fashion-MNIST at 32x32, 8x8 = 64 tokens, 512 codes; weights in maskgit/zoo.

    `python -m maskgit.training tokenizer|tokenize|transformer --preset embedded`. The model cards
    in maskgit/zoo hold the budget, the time and the final losses of the shipped weights.

    Differences from the official recipe, for a budget of minutes on two cores: no perceptual and
    no adversarial loss, higher learning rates with a cosine decay, Adam's first beta 0.9 and a
    tenth of the entropy loss in stage 1 (lower error in trials of some hundred steps), no dropout
    (each model sees the data a few times only), dead codes are revived.
    """
    return Preset(
        name="embedded",
        num_classes=10,
        image_size=32,
        tokenizer=TokenizerConfig(
            channels=1,
            filters=32,
            multipliers=(1, 2, 2),
            blocks=1,
            num_codes=512,
            code_dim=32,
            norm_groups=8,
        ),
        tokenizer_loss=TokenizerLoss(
            entropy=0.01, perceptual=0.0, adversarial=0.0, revive_every=100
        ),
        tokenizer_training=Optimisation(
            steps=2400,
            batch_size=64,
            learning_rate=2e-3,
            warmup_steps=100,
            decay="cosine",
            betas=(0.9, 0.99),
            weight_decay=0.0,
        ),
        transformer=TransformerShape(width=128, layers=4, heads=4, mlp=512, dropout=0.0),
        transformer_training=Optimisation(
            steps=1200,
            batch_size=128,
            learning_rate=2e-3,
            warmup_steps=100,
            decay="cosine",
            ema=0.995,
        ),
        features="fashion-resnet",
        reference="fashion-mnist-train",
        num_samples=100,
        class_names=CLASS_NAMES,
    )


PRESETS: dict[str, Callable[[], Preset]] = {"embedded": embedded}


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UsageError: no such preset; the message lists the names.
    """
    if name not in PRESETS:
        raise UsageError(f"--preset {name}: expected one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]()
