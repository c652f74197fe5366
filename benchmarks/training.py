"""Speed of training: real optimiser steps of maskgit.training beside the machine's matrix product.

    python benchmarks/training.py                    # all three stages at the embedded sizes
    python benchmarks/training.py --quick            # the same, fewer steps
    python benchmarks/training.py --sizes imagenet256 --stages transformer --batch 8

A step is the package's own (`TransformerStage.step` and its sisters: masks, forward, backward,
clipping, AdamW) and the update of the moving average, as `Trainer.fit` takes them; data are random
and in memory, weights random. Prints a table and the targets; --out FILE.json writes a result file,
or adds to it. Each case runs in a fresh process.

FLOPs are maskgit.training.cost's, forward and backward, at the mean number of masked tokens. Their
rate over the matmul rate (benchmarks/rates.py) is the share. Stage 1 goes without the perceptual
loss, whose network is a download; its convolutions are compared with a matrix product all the same.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import runner
from benchmarks.runner import Columns, Row, number
from benchmarks.sampling import SIZES
from maskgit.common.cli import exit_code
from maskgit.common.errors import UsageError

STAGES = ("tokenizer", "transformer", "autoregressive")
MODES = ("eager", "compiled")  # compiled: stage 2 only
GPU_SHARE = 0.5
COLUMNS: Columns = {
    "stage": lambda row: (
        f"{row['stage']} {row['size']}, batch {row['batch']}, {row['precision']}"
        + (", compiled" if row.get("mode") == "compiled" else "")
    ),
    "images/s": number("images_per_second"),
    "s a step": lambda row: runner.shown(runner.median(row)),
    "GFLOP an image": number("gflop_per_image"),
    "GFLOP/s": number("gflops"),
    "share": lambda row: f"{row['share_of_matmul_rate']:.2f}",
    "peak MiB": runner.peak,
}


@dataclass(frozen=True)
class Case:
    """What is timed; batch None is the preset's."""

    stage: str
    size: str = "embedded"
    batch: int | None = None
    precision: str = "float32"
    device: str = "cpu"
    repeats: int = 5
    threads: int | None = None
    mode: str = "eager"

    @property
    def name(self) -> str:
        """A few words, different for different cases."""
        words = [self.stage, self.size, f"x{self.batch or 'preset'}", self.precision]
        words += [self.mode] if self.mode != "eager" else []
        return " ".join(words + ([self.device] if self.device != "cpu" else []))


def preset_of(case: Case) -> tuple[Any, Any]:
    """The preset of a case without the perceptual loss, and the training budget of its stage."""
    from maskgit.presets import load_preset

    preset = load_preset(case.size)
    which = "tokenizer_training" if case.stage == "tokenizer" else "transformer_training"
    budget = getattr(preset, which)
    budget = replace(budget, batch_size=case.batch or budget.batch_size)
    loss = replace(preset.tokenizer_loss, perceptual=0.0)
    return replace(preset, tokenizer_loss=loss, **{which: budget}), budget


def build_stage(case: Case, folder: Path) -> Any:
    """The stage of maskgit.training on random data."""
    import numpy as np

    from maskgit.training.commands import make_accelerator
    from maskgit.training.settings import RunOptions
    from maskgit.training.tokens import ArrayTokens

    precision = {"float32": "fp32", "bfloat16": "bf16"}[case.precision]
    accelerator = make_accelerator(precision)
    options = RunOptions(folder, precision=precision, compile=case.mode == "compiled")
    (preset, budget), rng = preset_of(case), np.random.default_rng(0)
    count = 2 * budget.batch_size
    if case.stage == "tokenizer":
        from maskgit.data.source import ArrayImages
        from maskgit.training.stage1 import TokenizerStage

        shape = (count, *preset.crop_size, preset.channels)
        source = ArrayImages(rng.integers(0, 256, shape, dtype=np.uint8))
        return TokenizerStage(preset, source, None, accelerator, options)
    tokens = rng.integers(0, preset.num_codes, (count, preset.num_tokens))
    data = ArrayTokens(tokens, rng.integers(0, preset.num_classes, count))
    if case.stage == "autoregressive":
        from maskgit.training.autoregressive import AutoregressiveStage

        return AutoregressiveStage(preset, data, None, None, accelerator, options)
    from maskgit.training.stage2 import TransformerStage

    more = {"schedule": "cosine", "min_mask_ratio": preset.min_mask_ratio}
    return TransformerStage(preset, data, None, None, accelerator, options, **more)


def flops_of(stage: str, preset: Any) -> float:
    """Forward and backward of one image."""
    from maskgit.training import cost

    side = preset.crop_size
    if stage == "tokenizer":
        more = cost.discriminator_flops(preset, side) if preset.tokenizer_loss.adversarial else 0.0
        return cost.tokenizer_step_flops(preset, side) + more
    if stage == "transformer":
        return cost.transformer_step_flops(preset)
    import torch

    from maskgit.model.causal import Autoregressive

    shape = replace(preset.transformer, dropout=0.0)
    with torch.device("meta"):
        model = Autoregressive(replace(preset, transformer=shape).transformer_config)
        labels = torch.zeros(1, dtype=torch.int64)
        tokens = torch.zeros(1, preset.num_tokens - 1, dtype=torch.int64)
    return cost.count_flops(lambda: model(labels, tokens).sum().backward())


def measure(case: Case) -> Row:
    """The row of a case."""
    import torch

    from benchmarks.rates import timed
    from maskgit.training.commands import flushed_denormals
    from maskgit.training.loop import Average

    if case.threads:
        torch.set_num_threads(case.threads)
    preset, budget = preset_of(case)
    each = flops_of(case.stage, preset)
    with tempfile.TemporaryDirectory() as folder, flushed_denormals():
        stage = build_stage(case, Path(folder))
        average = Average(stage.modules[stage.averaged], budget.ema)
        step = 0

        def once() -> None:
            nonlocal step
            stage.step(step)
            average.update(stage.modules[stage.averaged], step)
            step += 1

        row = {"name": case.name, **asdict(case), "batch": budget.batch_size} | timed(
            once,
            each * budget.batch_size,
            preset.transformer,
            budget.batch_size * (1 + preset.num_tokens),
            dtype=getattr(torch, case.precision),
            device=case.device,
            repeats=case.repeats,
            warm=2,  # the first step allocates the optimiser's state
        )
    row["images_per_second"] = budget.batch_size / runner.median(row)
    row["gflop_per_image"] = each / 1e9
    return runner.rounded(row)


def targets(rows: list[Row]) -> list[str]:
    """The target is a GPU's; of a CPU the shares are said without a verdict."""
    said = []
    for row in rows:
        name, share = f"{row['name']}, share of the matmul rate", row["share_of_matmul_rate"]
        if row["device"] == "cpu":
            said.append(f"{name}: {share:.2f} (the target, {GPU_SHARE:g}, is a GPU's)")
        else:
            said.append(runner.verdict(name, share, GPU_SHARE))
    return said


def cases_of(flags: Any) -> list[Case]:
    """Every combination of the flags' values."""
    if flags.quick:
        return [Case(stage, repeats=3, device=flags.device) for stage in STAGES]
    shared = {"device": flags.device, "repeats": flags.repeats, "threads": flags.threads}
    return [
        Case(stage, size, flags.batch, precision, **shared, mode=mode)
        for size, stage, precision, mode in product(
            flags.sizes, flags.stages, flags.precision, flags.mode
        )
        if (stage, mode) != ("tokenizer", "compiled")
    ]


def parser() -> runner.Parser:
    """The command line."""
    found = runner.Parser(__doc__)
    found.add_cases(SIZES, MODES, repeats=5)
    found.add_argument("--stages", type=runner.several(STAGES), default=list(STAGES))
    found.add_argument("--batch", type=runner.at_least_one, help="default: the preset's")
    return found


def main() -> int:
    """Parse the flags, run the cases, print."""
    flags = parser().parse_args()
    if flags.case:
        print(json.dumps(measure(Case(**json.loads(flags.case)))))
        return 0
    if flags.device not in ("cpu", "cuda"):
        raise UsageError(f"--device {flags.device}: expected cpu or cuda")
    if not (cases := cases_of(flags)):
        raise UsageError("--mode compiled: expected --stages transformer or autoregressive")
    import torch

    # The package trains on a GPU wherever there is one.
    if torch.cuda.is_available() != (flags.device == "cuda"):
        here = "there is a GPU, so cuda" if flags.device == "cpu" else "there is no GPU, so cpu"
        raise UsageError(f"--device {flags.device}: {here} is what training would use")
    results = runner.Results("training", flags.device, flags.out)
    return runner.run_cases(__file__, cases, results, COLUMNS, targets, flags.device)


if __name__ == "__main__":
    sys.exit(exit_code(main))
