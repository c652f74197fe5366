"""Speed of `generate` beside the machine's own matrix product, measured in the same process.

    python benchmarks/sampling.py                         # the embedded transformer, T = 12
    python benchmarks/sampling.py --quick                 # a few cases, about three minutes
    python benchmarks/sampling.py --sizes imagenet256 --T 8 --images 4 --baseline
    python benchmarks/sampling.py --precision float32,bfloat16 --backend torch,jax --pixels
    python benchmarks/sampling.py --mode eager,compiled,graphs,autotuned

Prints a table and the targets; --out FILE.json writes a result file, or adds to it. Flags that take
a list run every combination; --mode is explained in maskgit/sampling/compiled.py. Weights are
random, as speed does not depend on them. Each case runs in a fresh process, whose peak memory is
reported. Columns:

- ms: of one forward of one image; the first forward is shared by the images of a class.
- GFLOP/s: of the operations really done (benchmarks/work.py), and the share of the matmul rate
  (benchmarks/rates.py). `full` counts the work of the official loop instead, so what is left out
  exactly makes it larger than the share.

bfloat16 on a CPU needs instructions that some virtual machines announce and then refuse. It is
tried in a process of its own, and again with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from benchmarks import runner
from benchmarks.runner import Columns, Row, number
from maskgit.common.cli import exit_code
from maskgit.common.errors import UsageError
from maskgit.sampling.compiled import MODES

SIZES = ("embedded", "imagenet256", "imagenet512")
BACKENDS = ("torch", "jax")
CPU_SHARE, GPU_SHARE = 0.8, 0.6
BASELINE = {"imagenet256": 30.0, "imagenet512": 60.0}  # times its speed, on a GPU
# A target is asked of these cases; the others show what a setting changes.
PLAIN = {"backend": "torch", "mode": "eager", "pixels": False, "classes": "distinct"}
COLUMNS: Columns = {
    "case": lambda row: row["name"],
    "images/s": number("images_per_second"),
    "tokens/s": number("tokens_per_second"),
    "ms a forward": number("ms_per_forward_and_image"),
    "GFLOP/s": number("gflops"),
    "share": lambda row: f"{row['share_of_matmul_rate']:.2f}",
    "full": lambda row: f"{row['share_counting_full_work']:.2f}",
    "peak MiB": runner.peak,
}


@dataclass(frozen=True)
class Case:
    """What is timed. `classes`: "distinct" labels, or "one" for all images of a batch."""

    size: str = "embedded"
    steps: int = 12
    images: int = 128
    precision: str = "float32"
    mode: str = "eager"
    backend: str = "torch"
    sampler: str = "maskgit"  # or "autoregressive", the baseline
    pixels: bool = False
    classes: str = "distinct"
    device: str = "cpu"
    repeats: int = 3
    threads: int | None = None

    @property
    def name(self) -> str:
        """A few words, different for cases that differ in what is computed."""
        words = [self.size, f"T={self.steps}", f"x{self.images}", self.precision]
        if self.sampler != "maskgit":
            words[1] = self.sampler
        words += [word for word in (self.backend, self.mode) if word not in ("torch", "eager")]
        words += ["pixels"] if self.pixels else []
        words += ["one class"] if self.classes == "one" else []
        words += [self.device] if self.device != "cpu" else []
        return " ".join(words)


# What a case computes, in its own process


def build_transformer(size: str, device: str, causal: bool = False) -> Any:
    """A network of a preset's sizes with random weights, without the slow start of truncation."""
    import torch

    from maskgit.model.causal import Autoregressive
    from maskgit.model.transformer import Transformer
    from maskgit.presets import load_preset

    config = load_preset(size).transformer_config
    with torch.device("meta"):
        model = Autoregressive(config) if causal else Transformer(config)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.zero_()
            elif "norm" in name:
                value.fill_(1.0)
            else:
                value.normal_(std=0.02, generator=generator)
    return model.eval()


def labels_of(case: Case, num_classes: int) -> Any:
    """int64 (images,)."""
    import torch

    if case.classes == "one":
        return torch.zeros(case.images, dtype=torch.int64)
    # Spread over the classes, so that a batch smaller than their number has no class twice.
    return torch.arange(case.images) * 7 % num_classes


def prepare(case: Case) -> tuple[Callable[[], Any], Row]:
    """What is timed, from labels to tokens or pixels; and the counts of its work.

    The counts are `flops` (done), `full_flops` and `forwards` (of one image each).
    """
    import torch

    from benchmarks import work
    from maskgit.presets import load_preset

    preset, dtype = load_preset(case.size), getattr(torch, case.precision)
    model = build_transformer(case.size, case.device, case.sampler != "maskgit").to(dtype)
    labels = labels_of(case, model.config.num_classes).to(case.device)

    if case.sampler != "maskgit":
        from maskgit.sampling import autoregressive

        multiple = autoregressive.ROW_MULTIPLE
        rows = max(autoregressive.MIN_ROWS, -(-case.images // multiple) * multiple)
        if case.device != "cpu" or case.mode != "eager":
            rows = case.images  # only the exact products of a CPU are filled up
        counts = {
            "flops": work.autoregressive_flops(model.config, case.images, rows),
            "full_flops": work.autoregressive_flops(model.config, case.images, case.images),
            "forwards": case.images * preset.num_tokens,
        }

        autoregressive.compile_positions(model, case.mode)

        def sample() -> Any:
            return autoregressive.generate_autoregressive(model, labels, batch_size=case.images)
    elif case.backend == "jax":
        from maskgit.jax import decoding, transformer

        network, batch = transformer.from_torch(model), labels.numpy()
        counts = {
            "flops": work.jax_flops(model.config, case.images, case.steps),
            "full_flops": work.full_flops(model.config, case.images, case.steps),
            "forwards": case.images * case.steps,
        }

        def sample() -> Any:
            return decoding.generate(network, batch, steps=case.steps, batch_size=case.images)
    else:
        from maskgit.decoding import generate
        from maskgit.sampling.compiled import compile_for_sampling

        def sample() -> Any:
            return generate(model, labels, steps=case.steps, batch_size=case.images)

        # Counted in eager mode: programs of fixed shape do more, which their share must not show.
        done, forwards = work.counted(model, sample)
        full = work.full_flops(model.config, case.images, case.steps)
        counts = {"flops": done, "full_flops": full, "forwards": forwards}
        compile_for_sampling(model, case.mode)

    if not case.pixels:
        return sample, counts
    from maskgit.model.tokenizer import Tokenizer

    pixels = case.images * work.decoder_flops(preset)
    counts = {**counts, "flops": counts["flops"] + pixels}
    counts["full_flops"] += pixels
    torch.manual_seed(0)
    tokenizer: Any = Tokenizer(preset.tokenizer).eval().to(case.device, dtype)
    if case.backend == "jax":
        from maskgit.jax.tokenizer import from_torch

        tokenizer = from_torch(tokenizer)
    return lambda: tokenizer.decode(sample().reshape(-1, *preset.grid)), counts


def measure(case: Case) -> Row:
    """The row of a case."""
    import torch

    from benchmarks.rates import timed
    from maskgit.presets import load_preset

    if case.threads:
        torch.set_num_threads(case.threads)
    preset = load_preset(case.size)
    run, counts = prepare(case)
    positions = 1 + preset.num_tokens if case.sampler == "maskgit" else 1
    row = {"name": case.name, **asdict(case)} | timed(
        run,
        counts["flops"],
        preset.transformer,
        case.images * positions,
        dtype=getattr(torch, case.precision),
        device=case.device,
        repeats=case.repeats,
    )
    seconds, matmul = runner.median(row), row["rates"]["matmul_gflops"]
    row |= {
        "images_per_second": case.images / seconds,
        "tokens_per_second": case.images * preset.num_tokens / seconds,
        "forwards": counts["forwards"],
        "ms_per_forward_and_image": 1e3 * seconds / counts["forwards"],
        "gflop": counts["flops"] / 1e9,
        "gflop_full": counts["full_flops"] / 1e9,
        "share_counting_full_work": counts["full_flops"] / seconds / 1e9 / matmul,
    }
    return runner.rounded(row)


# The command line


def targets(rows: list[Row]) -> list[str]:
    """The targets that these rows can answer."""
    said = []
    plain = [row for row in rows if all(row[key] == value for key, value in PLAIN.items())]
    for row in plain:
        if row["sampler"] != "maskgit":
            said += [_speed_up(row, other) for other in plain if _same_work(row, other)]
            continue
        share, name = row["share_of_matmul_rate"], f"{row['name']}, share of the matmul rate"
        case = (row["size"], row["steps"], row["images"], row["precision"])
        if row["device"] == "cpu" and case == ("imagenet256", 8, 4, "float32"):
            said.append(runner.verdict(name, share, CPU_SHARE))
        elif row["device"] != "cpu" and case[::3] == ("imagenet256", "bfloat16"):
            said.append(runner.verdict(name, share, GPU_SHARE))
    return said


def _same_work(baseline: Row, row: Row) -> bool:
    same = ("size", "images", "precision", "device", "threads")
    return row["sampler"] == "maskgit" and all(row[key] == baseline[key] for key in same)


def _speed_up(baseline: Row, row: Row) -> str:
    ratio = row["images_per_second"] / baseline["images_per_second"]
    beside = f"{row['name']} beside {baseline['name']}"
    if row["device"] != "cpu" and row["size"] in BASELINE:
        return runner.verdict(f"{beside}, times the speed", ratio, BASELINE[row["size"]])
    return f"{beside}: {runner.shown(ratio)} times the speed (the target is a GPU's)"


def quick_cases(device: str) -> list[Case]:
    """What `make bench` runs."""
    small = Case(images=128, repeats=3, device=device)
    large = Case(size="imagenet256", steps=8, images=4, repeats=1, device=device)
    return [
        small,
        replace(small, pixels=True),
        replace(small, backend="jax"),
        replace(small, precision="bfloat16"),
        large,
        replace(large, precision="bfloat16"),
    ]


def cases_of(flags: Any) -> list[Case]:
    """Every combination of the flags' values that there is; the baseline has no iterations."""
    if flags.quick:
        return [replace(case, threads=flags.threads) for case in quick_cases(flags.device)]
    shared = {"device": flags.device, "repeats": flags.repeats, "threads": flags.threads}
    cases = [
        Case(size, steps, images, precision, mode, backend, "maskgit", pixels, flags.classes)
        for size, steps, images, precision, backend, mode, pixels in product(
            flags.sizes,
            flags.T,
            flags.images,
            flags.precision,
            flags.backend,
            flags.mode,
            (False, True) if flags.pixels else (False,),
        )
        # The program of JAX is float32 and compiled as it is.
        if backend != "jax" or (precision, mode) == ("float32", "eager")
    ]
    if flags.only_baseline:
        cases = []
    if flags.baseline or flags.only_baseline:
        cases += [
            Case(size, 1, images, precision, mode, sampler="autoregressive")
            for size, images, precision, mode in product(
                flags.sizes, flags.images, flags.precision, flags.mode
            )
        ]
    return list(dict.fromkeys(replace(case, **shared) for case in cases))


def parser() -> runner.Parser:
    """The command line."""
    found = runner.Parser(__doc__)
    found.add_cases(SIZES, MODES, repeats=3)
    backends = runner.several(BACKENDS)
    found.add_argument("--T", type=runner.numbers, default=[12], help="iterations, such as 8,12")
    found.add_argument("--images", type=runner.numbers, default=[128], help="of one batch")
    found.add_argument("--backend", type=backends, default=["torch"], help=",".join(BACKENDS))
    found.add_argument("--pixels", action="store_true", help="also with the tokenizer's decoder")
    found.add_argument("--baseline", action="store_true", help="also the autoregressive one")
    found.add_argument("--only-baseline", action="store_true", help="the autoregressive one alone")
    found.add_argument("--classes", choices=("distinct", "one"), default="distinct")
    return found


def main() -> int:
    """Parse the flags, run the cases, print."""
    flags = parser().parse_args()
    if flags.case:
        print(json.dumps(measure(Case(**json.loads(flags.case)))))
        return 0
    if flags.device != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise UsageError(f"--device {flags.device}: there is no GPU here; expected cpu")
    results = runner.Results("sampling", flags.device, flags.out)
    cases = cases_of(flags)
    return runner.run_cases(__file__, cases, results, COLUMNS, targets, flags.device)


if __name__ == "__main__":
    sys.exit(exit_code(main))
