"""The tables of docs/performance.md, from the result files.

    python benchmarks/summary.py              # write the tables and the picture anew
    python benchmarks/summary.py --check      # exit code 1 if the document is not what they say

The document's text is written by hand; between `<!-- NAME -->` and `<!-- /NAME -->` stands what
this makes of benchmarks/results/*-cpu.json; where NAME ends with -amd, of *-amd.json, the files of
a second machine.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import grid, peers, precision, runner, sampling, training
from benchmarks.runner import RESULTS, ROOT, Row, shown
from maskgit.common.cli import exit_code
from maskgit.common.errors import UsageError
from maskgit.common.files import atomic_write

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
    """The result files by benchmark: sampling, training, ...

    Of a second machine these are the files that are there.

    Raises:
        UsageError: a file of the first machine is missing.
    """
    found = {}
    for name in NAMES:
        path = folder / f"{name}-{ending}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text())
        elif ending == "cpu":
            command = f"python benchmarks/{name}.py --out {path}"
            raise UsageError(f"{path}: there is no such file; `{command}` makes it")
    return found


def machine(files: Files) -> str:
    """The machine that measured, one line for each fact."""
    about = dict(files["sampling"]["machine"])
    about["threads"] = files["sampling"]["rows"][0]["threads"]
    return "\n".join(f"- {name}: {value}" for name, value in about.items())


def rates(files: Files) -> str:
    """The machine's own rates as the cases measured them: median and range."""
    lines = [("rate", "median", "lowest", "highest", "cases")]

    def add(name: str, values: list[float]) -> None:
        if values:
            spread = map(shown, (statistics.median(values), min(values), max(values)))
            lines.append((name, *spread, str(len(values))))

    rows = files["sampling"]["rows"]
    for name in ("float32", "bfloat16"):
        chosen = [row["rates"]["matmul_gflops"] for row in rows if row["precision"] == name]
        add(f"matmul {name}, GFLOP/s", chosen)
    add("copy, GB/s read and written", [row["rates"]["copy_gb_per_second"] for row in rows])
    return runner.text_table(lines)


def targets(files: Files) -> str:
    """The targets that this machine can answer, met or missed."""
    modules = {"sampling": sampling, "peers": peers, "grid": grid, "training": training}
    present = [name for name in modules if name in files]
    said = [text for name in present for text in modules[name].targets(files[name]["rows"])]
    return "\n".join(f"- {text}" for text in said)


def sampling_table(files: Files) -> str:
    """Every case of sampling, by size, sampler, precision and so on."""
    usual = {"sampler": "maskgit", "precision": "float32", "classes": "distinct"}
    usual |= {"backend": "torch", "mode": "eager"}
    keys = ("sampler", "precision", "backend", "mode", "pixels", "classes", "steps", "images")

    def order(row: Row) -> tuple:
        others = [row[key] != usual[key] if key in usual else row[key] for key in keys]
        return sampling.SIZES.index(row["size"]), *others

    return runner.table(sampling.COLUMNS, sorted(files["sampling"]["rows"], key=order))


def grid_table(files: Files) -> str:
    """Overhead and start-up; of --help only the slowest."""
    rows = [row for row in files["grid"]["rows"] if not row["name"].startswith("--help")]
    helps = [row for row in files["grid"]["rows"] if row["name"].startswith("--help")]
    if helps:
        worst = max(helps, key=lambda row: row["seconds"])
        rows.append({**worst, "name": f"slowest of {len(helps)}: {worst['name']}"})
    return runner.table(grid.COLUMNS, rows)


def ablation_flops() -> tuple[float, float]:
    """Operations of the transformer and of the decoder in the paper's full ablation at 256x256."""
    from benchmarks.work import decoder_flops, sampling_flops
    from maskgit.presets import load_preset

    preset = load_preset("imagenet256")
    config = preset.transformer_config
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
    sampled = _row(files, "imagenet256 T=8 x4 float32")
    both = _row(files, "imagenet256 T=8 x4 float32 pixels")
    # The decoder's rate follows from what pixels add to the time of the tokens.
    decoding = (both["gflop"] - sampled["gflop"]) / (runner.median(both) - runner.median(sampled))
    parts = {"transformer": (tokens, sampled["gflops"]), "pixels": (pixels, decoding)}
    gpu = PEAK_TFLOPS[GPU] * 1e12 * UTILISATION
    lines = [("part", "EFLOP", "GFLOP/s here", "hours here", f"GPU-hours, {GPU}, estimate")]
    for name, (flops, rate) in parts.items():
        hours, gpu_hours = flops / rate / 1e9 / 3600, flops / gpu / 3600
        lines.append((name, shown(flops / 1e18), shown(rate), shown(hours), shown(gpu_hours)))
    hours = sum(flops / rate / 1e9 / 3600 for flops, rate in parts.values())
    flops = tokens + pixels
    lines.append(("both", shown(flops / 1e18), "", shown(hours), shown(flops / gpu / 3600)))
    return runner.text_table(lines)


def _row(files: Files, name: str) -> Row:
    for row in files["sampling"]["rows"]:
        if row["name"] == name:
            return row
    raise UsageError(f"{RESULTS}/sampling-cpu.json: no row {name!r}; run the benchmark again")


BLOCKS: dict[str, Callable[[Files], str]] = {
    "machine": machine,
    "rates": rates,
    "targets": targets,
    "sampling": sampling_table,
    "precision": lambda files: runner.table(precision.COLUMNS, files["precision"]["rows"]),
    "training": lambda files: runner.table(training.COLUMNS, files["training"]["rows"]),
    "peers": lambda files: runner.table(peers.COLUMNS, files["peers"]["rows"]),
    "grid": grid_table,
    "ablation": ablation,
}
OF_SECOND = ("machine", "rates", "targets", "sampling", "precision", "peers")
EXPECTED = (*BLOCKS, *(f"{name}-{SECOND}" for name in OF_SECOND))


def filled(text: str, files: Files, second: Files) -> str:
    """The document with every block made anew, from the files of both machines.

    Raises:
        UsageError: a block is missing, unknown or there twice.
    """
    names = [match[1] for match in BLOCK.finditer(text)]
    if sorted(names) != sorted(EXPECTED):
        expected = ", ".join(EXPECTED)
        raise UsageError(f"{DOCUMENT.name}: blocks {', '.join(names)}; expected {expected}")

    def block(match: re.Match[str]) -> str:
        name, _, ending = match[1].partition("-")
        made = BLOCKS[name](second if ending else files)
        return f"<!-- {match[1]} -->\n{made}\n<!-- /{match[1]} -->"

    return BLOCK.sub(block, text)


def main() -> int:
    """Parse the flags; write or compare."""
    parser = runner.Parser(__doc__)
    parser.add_argument("--docs", type=Path, default=DOCUMENT, help="the document")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if stale")
    flags = parser.parse_args()
    if not flags.docs.is_file():
        raise UsageError(f"--docs {flags.docs}: no such file")
    files = load()
    before = flags.docs.read_text()
    after = filled(before, files, load(ending=SECOND))
    if flags.check:
        if before != after:
            print(f"{flags.docs}: stale; run python benchmarks/summary.py", file=sys.stderr)
        return int(before != after)
    from benchmarks.roofline import draw

    atomic_write(flags.docs, after.encode())
    draw(files["sampling"]["rows"], flags.docs.with_name(PICTURE))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
