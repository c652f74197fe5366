"""The roofline picture: what the sampling reaches under what the machine allows.

    python benchmarks/summary.py              # draws docs/performance-roofline.png, too

Across: operations for each byte that has to move at the least (benchmarks/work.py: every operation
reads its inputs and writes its outputs once). Up: operations a second. The roofs are the largest
matmul rate and copy rate that any case of the result file measured for its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Row

# Okabe and Ito's palette, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
COLOURS = {
    ("maskgit", "float32"): BLUE,
    ("maskgit", "bfloat16"): ORANGE,
    ("autoregressive", "float32"): GREEN,
    ("autoregressive", "bfloat16"): PURPLE,
}
LOW, END, HIGH = 0.5, 600.0, 7000.0  # operations for each byte: the axis, and the roofs' end
APART = 1.2  # the labels' heights, one below the other
SIZES = {"float32": 4, "bfloat16": 2}


def intensity(row: Row) -> float:
    """Operations for each byte of a case."""
    from benchmarks.work import forward_bytes
    from maskgit.presets import get_preset
    from maskgit.training.stage2 import transformer_config

    config = transformer_config(get_preset(row["size"]))
    size, images = SIZES[row["precision"]], row["images"]
    if row["sampler"] == "autoregressive":
        # A step computes one position of every image; keys and values of all before it are read.
        step = forward_bytes(config, images, 1, size)
        kept = size * config.layers * images * 2 * config.width * (config.num_tokens + 1) / 2
        return row["gflop_full"] * 1e9 / (config.num_tokens * (step + kept))
    forwards = row["forwards"] / images
    moved = forward_bytes(config, images, 1 + config.num_tokens, size)
    return row["gflop"] * 1e9 / (forwards * moved)


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The cases that the picture shows: eager torch, tokens only."""
    return [
        row
        for row in rows
        if (row["backend"], row["mode"], row["pixels"], row["classes"])
        == ("torch", "eager", False, "distinct")
    ]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture as PNG."""
    import os

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = chosen(rows)
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.set_xscale("log")
    axes.set_yscale("log")
    copy = max(row["rates"]["copy_gb_per_second"] for row in shown)
    top = 0.0
    entries: list[tuple[str, str, float, float]] = []  # label, colour, and the point
    for precision, colour in (("float32", BLUE), ("bfloat16", ORANGE)):
        rates = [r["rates"]["matmul_gflops"] for r in shown if r["precision"] == precision]
        if rates:
            roof = max(rates)
            top = max(top, roof)
            axes.plot([roof / copy, END], [roof] * 2, color=colour, linewidth=1.5)
            entries.append((f"{precision} product, {roof:.0f} GFLOP/s", colour, END, roof))
    axes.plot([LOW, top / copy], [LOW * copy, top], color=GREY, linewidth=1.5)
    axes.annotate(
        f"memory, {copy:.0f} GB/s",
        (LOW * 1.4, LOW * 1.4 * copy),
        xytext=(8, -10),
        textcoords="offset points",
        color=GREY,
        fontsize=9,
    )
    for row in shown:
        # The baseline's filled-up rows are no work of use: its point is the work of the images.
        used = row["gflop_full"] / row["gflop"] if row["sampler"] != "maskgit" else 1.0
        colour = COLOURS[row["sampler"], row["precision"]]
        entries.append((label(row), colour, intensity(row), row["gflops"] * used))
        axes.plot(*entries[-1][2:], "o", color=colour, markersize=6)
    for (text, colour, x, y), height in column(entries):
        axes.annotate(
            text,
            (x, y),
            xytext=(END * 1.3, height),
            color=colour,
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)},
        )
    axes.set_xlim(LOW, HIGH)
    axes.set_ylim(2, 2 * top)
    axes.set_xlabel("operations for each byte that has to move")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("Sampling under the machine's own rates", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.png")
    # No date and version inside, so that the same numbers give the same file.
    figure.savefig(temporary, dpi=150, metadata={"Software": None})
    plt.close(figure)
    os.replace(temporary, path)


def label(row: Row) -> str:
    """A case in a few words."""
    words = [row["size"], f"x{row['images']}"]
    words.append("autoregressive" if row["sampler"] != "maskgit" else f"T={row['steps']}")
    return " ".join(words)


def column(
    entries: Sequence[tuple[str, str, float, float]],
) -> list[tuple[tuple[str, str, float, float], float]]:
    """Entries from the highest down, each with a height for its label that is clear of the others'.

    Heights are on a logarithmic axis, so that labels are a factor apart.
    """
    found = []
    height = float("inf")
    for entry in sorted(entries, key=lambda entry: -entry[3]):
        height = min(entry[3], height / APART)
        found.append((entry, height))
    return found
