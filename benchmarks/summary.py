"""The tables of docs/performance.md, from the result files.

    python benchmarks/summary.py              # write the tables and the picture anew
    python benchmarks/summary.py --check      # exit code 1 if the document is not what they say

The document's text is written by hand; between `<!-- NAME -->` and `<!-- /NAME -->` stands what
this makes of benchmarks/results/*-cpu.json; where NAME ends with -amd, of *-amd.json, the files of
a second machine.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also without an install

from benchmarks.common import RESULTS, ROOT, Parser, Row, fail, shown

DOCUMENT = ROOT / "docs" / "performance.md"
PICTURE = "performance-roofline.png"
Files = dict[str, dict[str, Any]]
BLOCK = re.compile(r"<!-- ([a-z-]+) -->\n.*?<!-- /\1 -->", re.DOTALL)
NAMES = ("sampling", "precision", "training", "grid", "peers")
SECOND = "amd"  # the ending of a second machine's files and blocks
# The paper's ablation in full: Table 3's schedules, T of Figure 8, samples of a FID, seeds.
STEPS, SAMPLES, SEEDS = range(4, 61), 50_000, 3
# Of GPUs, from data sheets (maskgit.training.cost), and a share of it that is assumed.
GPU, UTILISATION = "h200", 0.4


def load(folder: Path = RESULTS, ending: str = "cpu") -> Files:
    """The result files by what they are of: sampling, training, ...; of a second machine those
    that are there."""
    found = {}
    for name in NAMES:
        path = folder / f"{name}-{ending}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text())
        elif ending == "cpu":
            fail(f"{path}: not there; `python benchmarks/{name}.py --out {path}` makes it")
    return found


def grid_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    head, *body = [list(row) for row in rows]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def find(files: Files, benchmark: str, name: str) -> Row:
    """The row of that name."""
    for row in files[benchmark]["rows"]:
        if row["name"] == name:
            return row
    fail(f"{RESULTS / benchmark}-cpu.json: no row {name!r}; run the benchmark again")


def machine(files: Files) -> str:
    """What measured, one line a fact."""
    about = dict(files["sampling"]["machine"])
    about["threads"] = files["sampling"]["rows"][0]["threads"]
    return "\n".join(f"- {name}: {value}" for name, value in about.items())


def rates(files: Files) -> str:
    """The machine's own rates as the cases measured them, their middle and their range."""
    rows = [("rate", "median", "lowest", "highest", "cases")]
    for precision in ("float32", "bfloat16"):
        chosen = [r for r in files["sampling"]["rows"] if r["precision"] == precision]
        values = [row["rates"]["matmul_gflops"] for row in chosen]
        if values:
            name = f"matmul {precision}, GFLOP/s"
            rows.append((name, *_spread(values), str(len(values))))
    copies = [row["rates"]["copy_gb_per_second"] for row in files["sampling"]["rows"]]
    rows.append(("copy, GB/s read and written", *_spread(copies), str(len(copies))))
    return grid_table(rows)


def _spread(values: list[float]) -> tuple[str, str, str]:
    return shown(statistics.median(values)), shown(min(values)), shown(max(values))


def sampling(files: Files) -> str:
    """Every case of sampling."""
    head = ("case", "images/s", "tokens/s", "ms a forward", "GFLOP/s", "share", "full", "peak MiB")
    rows = [
        (
            row["name"],
            shown(row["images_per_second"]),
            shown(row["tokens_per_second"]),
            shown(row["ms_per_forward_and_image"]),
            shown(row["gflops"]),
            f"{row['share_of_matmul_rate']:.2f}",
            f"{row['share_counting_full_work']:.2f}",
            f"{row['peak_mib']:,.0f}",
        )
        for row in sorted(files["sampling"]["rows"], key=_sampling_order)
    ]
    return grid_table([head, *rows])


def _sampling_order(row: Row) -> tuple:
    sizes = ("embedded", "imagenet256", "imagenet512")
    return (
        sizes.index(row["size"]),
        row["sampler"] != "maskgit",
        row["precision"] != "float32",
        row["backend"] != "torch",
        row["mode"] != "eager",
        row["pixels"],
        row["classes"] != "distinct",
        row["steps"],
        row["images"],
    )


def training(files: Files) -> str:
    """Every case of training."""
    head = ("stage", "images/s", "s a step", "GFLOP an image", "GFLOP/s", "share", "peak MiB")
    rows = [
        (
            f"{row['stage']} {row['size']}, batch {row['batch']}, {row['precision']}"
            + (", compiled" if row.get("mode") == "compiled" else ""),
            shown(row["images_per_second"]),
            shown(statistics.median(row["seconds"])),
            shown(row["gflop_per_image"]),
            shown(row["gflops"]),
            f"{row['share_of_matmul_rate']:.2f}",
            f"{row['peak_mib']:,.0f}",
        )
        for row in files["training"]["rows"]
    ]
    return grid_table([head, *rows])


def peers(files: Files) -> str:
    """Ours beside the others."""
    head = ("work", "contender", "s an image", "times as long as ours", "peak MiB")
    rows = [
        (
            f"{row['size']}, T={row['steps']}, {row['images']} images, {row['classes']} "
            f"class{'es' if row['classes'] == 'distinct' else ''}, {row['precision']}",
            row["contender"] + "".join(f", {k} {v}" for k, v in row["versions"].items()),
            shown(row["seconds_per_image"]),
            f"{row['ours_is_faster']:.2f}",
            f"{row['peak_mib']:,.0f}",
        )
        for row in files["peers"]["rows"]
    ]
    return grid_table([head, *rows])


def grid(files: Files) -> str:
    """Overhead and start-up; of --help only the slowest."""
    from benchmarks.grid import line

    rows = [row for row in files["grid"]["rows"] if not row["name"].startswith("--help")]
    helps = [row for row in files["grid"]["rows"] if row["name"].startswith("--help")]
    if helps:
        worst = max(helps, key=lambda row: row["seconds"])
        rows.append({**worst, "name": f"slowest of {len(helps)}: {worst['name']}"})
    return grid_table([("what", "measured"), *map(line, rows)])


def precision(files: Files) -> str:
    """What bfloat16 changes."""
    from benchmarks.precision import lines

    rows = [line for row in files["precision"]["rows"] for line in lines(row)]
    return grid_table([("what", "measured"), *rows])


def targets(files: Files) -> str:
    """Targets that this machine can answer, met or missed."""
    from benchmarks import grid, peers, sampling, training

    modules = {"sampling": sampling, "peers": peers, "grid": grid, "training": training}
    present = [name for name in modules if name in files]
    said = [text for name in present for text in modules[name].targets(files[name]["rows"])]
    return "\n".join(f"- {text}" for text in said)


def ablation_flops() -> tuple[float, float]:
    """Of the transformer and of the decoder, for the paper's full ablation at 256x256."""
    from benchmarks.work import decoder_flops, sampling_flops
    from maskgit.presets import get_preset
    from maskgit.training.stage2 import transformer_config

    preset = get_preset("imagenet256")
    config = transformer_config(preset)
    tokens = sum(
        sampling_flops(config, schedule, steps, SAMPLES, preset.num_classes)
        for schedule in preset.schedules
        for steps in STEPS
    )
    cells = len(preset.schedules) * len(STEPS)
    return float(SEEDS * tokens), float(SEEDS * cells * SAMPLES * decoder_flops(preset))


def ablation(files: Files) -> str:
    """The cost of the paper's full ablation, here and, estimated, on a GPU."""
    from maskgit.training.cost import PEAK_TFLOPS

    tokens, pixels = ablation_flops()
    sampled = find(files, "sampling", "imagenet256 T=8 x4 float32")
    both = find(files, "sampling", "imagenet256 T=8 x4 float32 pixels")
    decoding = _decoder_gflops(both, sampled)
    hours = [tokens / sampled["gflops"] / 1e9 / 3600, pixels / decoding / 1e9 / 3600]
    rate = PEAK_TFLOPS[GPU] * 1e12 * UTILISATION
    gpu = [work / rate / 3600 for work in (tokens, pixels)]
    head = ("part", "EFLOP", "GFLOP/s here", "hours here", f"GPU-hours, {GPU}, estimate")
    rows = [
        ("transformer", shown(tokens / 1e18), shown(sampled["gflops"]), shown(hours[0])),
        ("pixels", shown(pixels / 1e18), shown(decoding), shown(hours[1])),
        ("both", shown((tokens + pixels) / 1e18), "", shown(sum(hours))),
    ]
    estimates = (*gpu, sum(gpu))
    return grid_table([head, *((*r, shown(e)) for r, e in zip(rows, estimates, strict=True))])


def _decoder_gflops(both: Row, sampled: Row) -> float:
    """The decoder's rate: what pixels add to the time of the tokens."""
    more = both["gflop"] - sampled["gflop"]
    return more / (statistics.median(both["seconds"]) - statistics.median(sampled["seconds"]))


OF_A_MACHINE: dict[str, Callable[[Files], str]] = {
    "machine": machine,
    "rates": rates,
    "targets": targets,
    "sampling": sampling,
    "precision": precision,
    "training": training,
    "peers": peers,
    "grid": grid,
    "ablation": ablation,
}
SHORT = ("machine", "rates", "targets", "sampling", "precision", "peers")  # of the second machine
BLOCKS = (*OF_A_MACHINE, *(f"{name}-{SECOND}" for name in SHORT))


def filled(text: str, files: Files, second: Files) -> str:
    """The document with every block made anew, from the files of both machines.

    A block that is not in BLOCKS, or one of those that is missing, is an error of one line.
    """
    names = [match[1] for match in BLOCK.finditer(text)]
    if sorted(names) != sorted(BLOCKS):
        fail(f"{DOCUMENT.name}: blocks {', '.join(names)}; expected {', '.join(BLOCKS)}")

    def block(match: re.Match[str]) -> str:
        name, _, ending = match[1].partition("-")
        made = OF_A_MACHINE[name](second if ending else files)
        return f"<!-- {match[1]} -->\n{made}\n<!-- /{match[1]} -->"

    return BLOCK.sub(block, text)


def main() -> int:
    """Parse the flags; write or compare."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=DOCUMENT, help="the document")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if stale")
    flags = parser.parse_args()
    if not flags.docs.is_file():
        fail(f"--docs {flags.docs}: no such file")
    files = load()
    before = flags.docs.read_text()
    after = filled(before, files, load(ending=SECOND))
    if flags.check:
        if before != after:
            print(f"{flags.docs}: stale; run python benchmarks/summary.py", file=sys.stderr)
        return int(before != after)
    from benchmarks.roofline import draw

    temporary = flags.docs.with_name(f".{flags.docs.name}.{os.getpid()}")
    temporary.write_text(after)
    os.replace(temporary, flags.docs)
    draw(files["sampling"]["rows"], flags.docs.with_name(PICTURE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
