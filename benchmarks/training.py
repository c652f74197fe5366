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
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also without an install

from benchmarks.common import (
    BenchmarkError,
    Parser,
    Results,
    Row,
    at_least_one,
    fail,
    in_fresh_process,
    peak_mib,
    seconds_of,
    several,
    shown,
    table,
    verdict,
)

SIZES = ("embedded", "imagenet256", "imagenet512")
STAGES = ("tokenizer", "transformer", "autoregressive")
PRECISIONS = ("float32", "bfloat16")
MODES = ("eager", "compiled")  # compiled: stage 2 only
GPU_SHARE = 0.5
HEAD = ("case", "img/s", "s/step", "GFLOP/img", "GFLOP/s", "matmul", "share", "peak MiB")


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
        """In a few words."""
        words = [self.stage, self.size, f"x{self.batch or 'preset'}", self.precision]
        words += [self.mode] if self.mode != "eager" else []
        return " ".join(words + ([self.device] if self.device != "cpu" else []))


def build_stage(case: Case, folder: Path) -> Any:
    """The stage of maskgit.training on random data, with its preset as `.preset`."""
    import numpy as np

    from maskgit.presets import get_preset
    from maskgit.training.commands import make_accelerator
    from maskgit.training.loop import RunOptions
    from maskgit.training.tokens import ArrayTokens

    precision = {"float32": "fp32", "bfloat16": "bf16"}[case.precision]
    accelerator = make_accelerator(precision)
    options = RunOptions(folder, precision=precision, compile=case.mode == "compiled")
    preset, rng = get_preset(case.size), np.random.default_rng(0)
    which = "tokenizer_training" if case.stage == "tokenizer" else "transformer_training"
    budget = getattr(preset, which)
    preset = replace(preset, **{which: replace(budget, batch_size=case.batch or budget.batch_size)})
    count = 2 * getattr(preset, which).batch_size
    if case.stage == "tokenizer":
        from maskgit.training.feed import ArrayImages
        from maskgit.training.stage1 import TokenizerStage

        preset = replace(preset, tokenizer_loss=replace(preset.tokenizer_loss, perceptual=0.0))
        side = preset.tokenizer_image_size or preset.image_size
        shape = (count, side, side, preset.channels)
        source = ArrayImages(rng.integers(0, 256, shape, dtype=np.uint8))
        return TokenizerStage(preset, source, None, accelerator, options)
    tokens = rng.integers(0, preset.num_codes, (count, preset.num_tokens))
    data = ArrayTokens(tokens, rng.integers(0, preset.num_classes, count))
    if case.stage == "autoregressive":
        from maskgit.training.autoregressive import AutoregressiveStage

        return AutoregressiveStage(preset, data, None, None, accelerator, options)
    from maskgit.training.stage2 import TransformerStage

    return TransformerStage(
        preset, "cosine", data, None, None, accelerator, options, preset.min_mask_ratio
    )


def flops_of(stage: str, preset: Any) -> float:
    """Forward and backward of one image."""
    from maskgit.training import cost

    side = preset.tokenizer_image_size or preset.image_size
    if stage == "tokenizer":
        more = cost.discriminator_flops(preset, side) if preset.tokenizer_loss.adversarial else 0.0
        return cost.tokenizer_step_flops(preset, side) + more
    if stage == "transformer":
        return cost.transformer_step_flops(preset)
    import torch

    from maskgit.model.causal import Autoregressive
    from maskgit.training.stage2 import transformer_config

    shape = replace(preset.transformer, dropout=0.0)
    with torch.device("meta"):
        model = Autoregressive(transformer_config(replace(preset, transformer=shape)))
        labels = torch.zeros(1, dtype=torch.int64)
        tokens = torch.zeros(1, preset.num_tokens - 1, dtype=torch.int64)
    return cost.count_flops(lambda: model(labels, tokens).sum().backward())


def measure(case: Case) -> Row:
    """The row of a case."""
    import tempfile

    import torch

    from benchmarks.rates import SECONDS, Rates, synchronise
    from maskgit.training.commands import flushed_denormals
    from maskgit.training.loop import Average

    if case.threads:
        torch.set_num_threads(case.threads)
    with tempfile.TemporaryDirectory() as folder, flushed_denormals():
        stage = build_stage(case, Path(folder))
        preset = stage.preset
        which = "tokenizer_training" if case.stage == "tokenizer" else "transformer_training"
        budget = getattr(preset, which)
        average = Average(stage.modules[stage.averaged], budget.ema)
        step = 0

        def once() -> None:
            nonlocal step
            stage.step(step)
            average.update(stage.modules[stage.averaged], step)
            synchronise(case.device)
            step += 1

        first = seconds_of(once)
        once()
        peak = peak_mib()
        shape = preset.transformer
        rows = max(64, min(budget.batch_size * (1 + preset.num_tokens), 8192))
        dtype = getattr(torch, case.precision)
        rates = Rates(dtype, case.device, rows, shape.width, shape.mlp, SECONDS)
        found, busy = rates.beside(once, case.repeats)
    seconds, rate, each = statistics.median(found), rates.result(), flops_of(case.stage, preset)
    done = each * budget.batch_size / seconds / 1e9
    row: Row = {"name": case.name, **asdict(case)}
    row |= {
        "batch": budget.batch_size,
        "threads": torch.get_num_threads(),
        "seconds": [round(value, 4) for value in found],
        "first_call_seconds": round(first, 3),
        "processor_share": busy,
        "images_per_second": budget.batch_size / seconds,
        "gflop_per_image": each / 1e9,
        "gflops": done,
        "share_of_matmul_rate": done / rate["matmul_gflops"],
        "peak_mib": round(peak, 1),
        "rates": rate,
    }
    return {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in row.items()}


def line(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    return (
        row["name"],
        shown(row["images_per_second"]),
        shown(statistics.median(row["seconds"])),
        shown(row["gflop_per_image"]),
        shown(row["gflops"]),
        shown(row["rates"]["matmul_gflops"]),
        f"{row['share_of_matmul_rate']:.2f}",
        shown(row["peak_mib"], 4),
    )


def targets(rows: list[Row]) -> list[str]:
    """The target is a GPU's; a CPU's shares are told without one."""
    said = []
    for row in rows:
        name, share = f"{row['name']}, share of the matmul rate", row["share_of_matmul_rate"]
        if row["device"] == "cpu":
            said.append(f"{name}: {share:.2f} (the target, {GPU_SHARE:g}, is a GPU's)")
        else:
            said.append(verdict(name, share, GPU_SHARE))
    return said


def parser() -> Parser:
    """The command line."""
    found = Parser(description=__doc__.splitlines()[0])
    found.add_argument("--sizes", type=several(SIZES), default=["embedded"], help=",".join(SIZES))
    found.add_argument("--stages", type=several(STAGES), default=list(STAGES))
    found.add_argument("--batch", type=at_least_one, default=None, help="default: the preset's")
    found.add_argument("--precision", type=several(PRECISIONS), default=["float32"])
    found.add_argument("--mode", type=several(MODES), default=["eager"], help=",".join(MODES))
    found.add_argument("--quick", action="store_true", help="the cases of make bench")
    found.add_argument("--repeats", type=at_least_one, default=5)
    found.add_argument("--threads", type=at_least_one, default=None, help="default: all cores")
    found.add_argument("--device", default="cpu", help="cpu, or cuda")
    found.add_argument("--out", type=Path, default=None, help="result file, JSON")
    found.add_argument("--case", default=None, help="one case as a JSON object, in this process")
    return found


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


def main() -> int:
    """Parse the flags, run the cases, print."""
    flags = parser().parse_args()
    if flags.case:
        print(json.dumps(measure(Case(**json.loads(flags.case)))))
        return 0
    if flags.device not in ("cpu", "cuda"):
        fail(f"--device {flags.device}: expected cpu or cuda")
    import torch

    # The package trains on a GPU wherever there is one.
    if torch.cuda.is_available() != (flags.device == "cuda"):
        here = "there is a GPU, so cuda" if flags.device == "cpu" else "there is no GPU, so cpu"
        fail(f"--device {flags.device}: {here} is what training would use")
    from benchmarks.sampling import bfloat16_environment

    if not (cases := cases_of(flags)):
        fail("--mode compiled: expected --stages transformer or autoregressive, stage 2 only")
    results = Results("training", flags.device, flags.out)
    rows: list[Row] = []
    environment, code = dict[str, str](), 0
    for case in cases:
        try:
            if case.precision == "bfloat16":
                environment = environment or bfloat16_environment(case.device)
            print(f"{case.name} ...", file=sys.stderr)
            command = [__file__, "--case", json.dumps(asdict(case))]
            row = in_fresh_process(
                command, environment=environment if case.precision == "bfloat16" else None
            )
        except BenchmarkError as error:
            print(f"{case.name}: not measured: {error}", file=sys.stderr)
            code = 1
            continue
        rows.append(row)
        results.add(row)
    if rows:
        print(table([HEAD, *map(line, rows)]))
        print("\n".join(targets(rows)))
    return code


if __name__ == "__main__":
    sys.exit(main())
