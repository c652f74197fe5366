"""Speed of `generate` beside the machine's own matrix product, measured in the same process.

    python benchmarks/sampling.py                         # the embedded transformer, T = 12
    python benchmarks/sampling.py --quick                 # a few cases, about three minutes
    python benchmarks/sampling.py --sizes imagenet256 --T 8 --images 4 --baseline
    python benchmarks/sampling.py --precision float32,bfloat16 --backend torch,jax --pixels
    python benchmarks/sampling.py --mode eager,compiled,graphs,autotuned   #
    maskgit/sampling/compiled.py

Prints a table and the targets; --out FILE.json writes a result file, or adds to it. Flags that take
a list run every combination. Weights are random: speed does not depend on them. Each case runs in a
fresh process, whose peak memory is reported. Columns:

- ms: of one forward of one image; the first forward is shared by the images of a class.
- GFLOP/s: of the operations really done (benchmarks/work.py), and the share of the matmul rate
  (benchmarks/rates.py). `full` counts the work of the official loop instead, so what is left out
  exactly makes it larger than the share.

bfloat16 on a CPU needs instructions that some virtual machines announce and then refuse: it is
tried in a process of its own, and again with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
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
    in_fresh_process,
    numbers,
    several,
    shown,
    table,
    verdict,
)
from benchmarks.sampling_case import BACKENDS, MODES, PRECISIONS, SIZES, Case

SCRIPT = str(Path(__file__).with_name("sampling_case.py"))
CPU_SHARE, GPU_SHARE = 0.8, 0.6
BASELINE = {"imagenet256": 30.0, "imagenet512": 60.0}
# What a CPU without the AMX instructions, or a machine that refuses them, is left with.
NO_AMX = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
PROBE = """
import torch
x = torch.randn(1028, 768).bfloat16()
for _ in range(20):
    y = torch.mm(x, x.t())
print(int(bool(torch.isfinite(y).all())))
"""
HEAD = ("case", "images/s", "tokens/s", "ms", "GFLOP/s", "matmul", "share", "full", "peak MiB")


def bfloat16_environment(device: str) -> dict[str, str]:
    """What the environment of a bfloat16 case needs.

    Raises BenchmarkError with the reason when the machine cannot run it.
    """
    if device != "cpu":
        return {}
    for environment in ({}, NO_AMX):
        try:
            if in_fresh_process(["-c", PROBE], environment=environment):
                return environment
            reason = "its products are not finite"
        except BenchmarkError as error:
            reason = str(error)
    raise BenchmarkError(f"bfloat16 does not run on this machine: {reason}")


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
    """Every combination of the flags' values; the baseline once for each size and precision."""
    if flags.quick:
        return [replace(case, threads=flags.threads) for case in quick_cases(flags.device)]
    cases = []
    lists = (flags.sizes, flags.T, flags.images, flags.precision, flags.backend, flags.mode)
    for size, steps, images, precision, backend, mode in product(*lists):
        if backend == "jax" and (precision != "float32" or mode != "eager"):
            continue  # that program is float32 and compiled as it is
        case = Case(size, steps, images, precision, mode, backend, classes=flags.classes)
        case = replace(case, device=flags.device, repeats=flags.repeats, threads=flags.threads)
        cases += [replace(case, pixels=pixels) for pixels in ((False, True)[: 1 + flags.pixels])]
    if flags.only_baseline:
        cases = []
    if flags.baseline or flags.only_baseline:
        for size, images, precision in product(flags.sizes, flags.images, flags.precision):
            case = Case(size, 1, images, precision, sampler="autoregressive", device=flags.device)
            cases.append(replace(case, repeats=flags.repeats, threads=flags.threads))
    return list(dict.fromkeys(cases))


def line(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    return (
        row["name"],
        shown(row["images_per_second"]),
        shown(row["tokens_per_second"]),
        shown(row["ms_per_forward_and_image"]),
        shown(row["gflops"]),
        shown(row["rates"]["matmul_gflops"]),
        f"{row['share_of_matmul_rate']:.2f}",
        f"{row['share_counting_full_work']:.2f}",
        shown(row.get("peak_device_mib", row["peak_mib"]), 4),
    )


def targets(rows: list[Row]) -> list[str]:
    """The targets that these rows can answer."""
    said = []
    usual = {"backend": "torch", "mode": "eager", "pixels": False, "classes": "distinct"}
    plain = [row for row in rows if all(row[key] == value for key, value in usual.items())]
    for row in plain:
        parallel = row["sampler"] == "maskgit"
        share, name = row["share_of_matmul_rate"], row["name"]
        if row["device"] == "cpu":
            case = (row["size"], row["steps"], row["images"], row["precision"])
            if parallel and case == ("imagenet256", 8, 4, "float32"):
                said.append(verdict(f"{name}, share of the matmul rate", share, CPU_SHARE))
        elif parallel and row["size"] == "imagenet256" and row["precision"] == "bfloat16":
            said.append(verdict(f"{name}, share of the matmul rate", share, GPU_SHARE))
        if not parallel:
            said += [_speed_up(row, other) for other in plain if _same_work(row, other)]
    return said


def _same_work(baseline: Row, row: Row) -> bool:
    same = ("size", "images", "precision", "device", "threads")
    return row["sampler"] == "maskgit" and all(row[key] == baseline[key] for key in same)


def _speed_up(baseline: Row, row: Row) -> str:
    ratio = row["images_per_second"] / baseline["images_per_second"]
    said = f"{row['name']} beside {baseline['name']}"
    if row["device"] != "cpu" and row["size"] in BASELINE:
        return verdict(f"{said}, times the speed", ratio, BASELINE[row["size"]])
    return f"{said}: {shown(ratio)} times the speed (the target is a GPU's)"


def parser() -> Parser:
    """The command line."""
    found = Parser(description=__doc__.splitlines()[0])
    found.add_argument("--sizes", type=several(SIZES), default=["embedded"], help=",".join(SIZES))
    found.add_argument("--T", type=numbers, default=[12], help="iterations: 8 or 8,12")
    found.add_argument("--images", type=numbers, default=[128], help="of one batch: 4 or 1,4,16")
    found.add_argument("--precision", type=several(PRECISIONS), default=["float32"])
    found.add_argument("--backend", type=several(BACKENDS), default=["torch"])
    found.add_argument("--mode", type=several(MODES), default=["eager"])
    found.add_argument("--pixels", action="store_true", help="also with the tokenizer's decoder")
    found.add_argument("--baseline", action="store_true", help="also the autoregressive model")
    found.add_argument("--only-baseline", action="store_true", help="nothing but that model")
    found.add_argument("--classes", choices=("distinct", "one"), default="distinct")
    found.add_argument("--quick", action="store_true", help="the cases of make bench")
    found.add_argument("--repeats", type=at_least_one, default=3)
    found.add_argument("--threads", type=at_least_one, default=None, help="default: all cores")
    found.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    found.add_argument("--out", type=Path, default=None, help="result file, JSON")
    return found


def main() -> int:
    """Parse the flags, run the cases, print."""
    flags = parser().parse_args()
    if flags.device != "cpu":
        import torch

        if not torch.cuda.is_available():
            parser().error(f"--device {flags.device}: there is no GPU here; expected cpu")
    results = Results("sampling", flags.device, flags.out)
    rows, environments, code = [], dict[str, Any](), 0
    for case in cases_of(flags):
        try:
            if case.precision == "bfloat16" and "bfloat16" not in environments:
                environments["bfloat16"] = bfloat16_environment(case.device)
            environment = environments.get(case.precision, {})
            print(f"{case.name} ...", file=sys.stderr)
            row = in_fresh_process([SCRIPT, json.dumps(asdict(case))], environment=environment)
        except BenchmarkError as error:
            print(f"{case.name}: not measured: {error}", file=sys.stderr)
            code = 1
            continue
        row["environment"] = environment
        rows.append(row)
        results.add(row)
    if rows:
        print(table([HEAD, *map(line, rows)]))
        print("\n".join(targets(results.rows)))
    return code


if __name__ == "__main__":
    sys.exit(main())
