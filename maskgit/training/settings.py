"""What a training run is told: its budget, the weights of its losses, and how it is carried out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    clip_norm: float = 1.0  # of the gradient; math.inf never clips


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
class RunOptions:
    """What a run needs besides the preset; none of it but `seed` changes the result (`compile` the
    dropout, and the losses by rounding)."""

    run_dir: Path
    seed: int = 0
    precision: str = "auto"  # auto | fp32 | bf16; auto is bf16 on a GPU and fp32 elsewhere
    checkpoint_every: int = 500  # steps
    validate_every: int = 500
    log_every: int = 20
    stop_at: int | None = None  # leave after this step, as a kill would; for tests
    accumulate: int = 1  # slices of the batch that one process takes one after the other
    checkpoint_activations: bool = False  # recompute activations in backward: less memory
    compile: bool = False  # stage 2 through torch.compile
    workers: int = 0  # processes that decode images, for each training process
