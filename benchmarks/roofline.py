"""The roofline picture: what the sampling reaches under what the machine allows.

    python benchmarks/summary.py              # draws docs/performance-roofline.png, too

Across: operations for each byte that has to move at the least, where every operation reads its
inputs and writes its outputs once. Up: operations a second. The roofs are the largest matmul rate
and copy rate that any case of the result file measured for its type.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.runner import Row
from benchmarks.sampling import PLAIN
from maskgit.common.files import atomic_write
from maskgit.model.config import TransformerConfig
from maskgit.presets import load_preset

# Okabe and Ito's palette, which colour-blind readers tell apart.
GREY, ROOFS = "#555555", {"float32": "#0072B2", "bfloat16": "#D55E00"}
COLOURS = {
    ("maskgit", "float32"): ROOFS["float32"],
    ("maskgit", "bfloat16"): ROOFS["bfloat16"],
    ("autoregressive", "float32"): "#009E73",
    ("autoregressive", "bfloat16"): "#CC79A7",
}
LOW, END, HIGH = 0.5, 600.0, 7000.0  # operations for each byte: the axis, and the roofs' end
APART = 1.2  # the factor between the heights of two labels
SIZES = {"float32": 4, "bfloat16": 2}
Point = tuple[str, str, float, float]  # label, colour, and the point


def forward_bytes(config: TransformerConfig, images: int, length: int, size: int) -> int:
    """Bytes that one forward moves at the least, if every operation reads and writes memory once.

    length: positions of an image that are computed; size: of a number. The weights are read once
    whatever the images are.
    """
    width, mlp, rows = config.width, config.mlp, images * length
    layer = 4 * width**2 + 2 * width * mlp  # weights
    # In and out of: three projections, attention, its projection, the perceptron; then two sums
    # with their normalisations (two reads, one write each).
    layer += rows * (width + 3 * width + 3 * width + width + 2 * width + 2 * (width + mlp))
    layer += 2 * rows * 3 * width
    head = width**2 + width * config.num_codes + rows * (2 * width + config.num_codes)
    return size * (config.layers * layer + head)


def intensity(row: Row) -> float:
    """Operations for each byte of a case."""
    config = load_preset(row["size"]).transformer_config
    size, images = SIZES[row["precision"]], row["images"]
    if row["sampler"] == "autoregressive":
        # A step computes one position of every image; keys and values of all before it are read.
        step = forward_bytes(config, images, 1, size)
        kept = size * config.layers * images * 2 * config.width * (config.num_tokens + 1) / 2
        return row["gflop_full"] * 1e9 / (config.num_tokens * (step + kept))
    moved = forward_bytes(config, images, 1 + config.num_tokens, size)
    return row["gflop"] * 1e9 / (row["forwards"] / images * moved)


def point(row: Row) -> Point:
    """A case in the picture."""
    parallel = row["sampler"] == "maskgit"
    what = f"T={row['steps']}" if parallel else "autoregressive"
    # The baseline's filled-up rows are no work of use: its point is the work of the images.
    used = 1.0 if parallel else row["gflop_full"] / row["gflop"]
    label = f"{row['size']} x{row['images']} {what}"
    colour = COLOURS[row["sampler"], row["precision"]]
    return label, colour, intensity(row), row["gflops"] * used


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture as PNG: eager torch, tokens only."""
    shown = [row for row in rows if all(row[key] == value for key, value in PLAIN.items())]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.loglog()
    copy = max(row["rates"]["copy_gb_per_second"] for row in shown)
    top = max(row["rates"]["matmul_gflops"] for row in shown)
    axes.plot([LOW, top / copy], [LOW * copy, top], color=GREY, linewidth=1.5)
    axes.annotate(
        f"memory, {copy:.0f} GB/s",
        (LOW * 1.4, LOW * 1.4 * copy),
        xytext=(8, -10),
        textcoords="offset points",
        color=GREY,
        fontsize=9,
    )
    points = [point(row) for row in shown]
    for label, colour, x, y in points:
        axes.plot(x, y, "o", color=colour, markersize=6, label=label)
    for precision, colour in ROOFS.items():
        rates = [r["rates"]["matmul_gflops"] for r in shown if r["precision"] == precision]
        if rates:
            roof = max(rates)
            axes.plot([roof / copy, END], [roof] * 2, color=colour, linewidth=1.5)
            points.append((f"{precision} product, {roof:.0f} GFLOP/s", colour, END, roof))
    for (label, colour, x, y), height in column(points):
        axes.annotate(
            label,
            (x, y),
            xytext=(END * 1.3, height),
            color=colour,
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)},
        )
    axes.set(xlim=(LOW, HIGH), ylim=(2, 2 * top), ylabel="GFLOP/s")
    axes.set_xlabel("operations for each byte that has to move")
    axes.set_title("Sampling under the machine's own rates", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    made = io.BytesIO()
    # No date and version inside, so that the same numbers give the same file.
    figure.savefig(made, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    atomic_write(path, made.getvalue())


def column(points: Sequence[Point]) -> list[tuple[Point, float]]:
    """Points from the highest down, each with a height for its label, clear of the others'.

    Heights are on a logarithmic axis, so that labels are a factor apart.
    """
    found = []
    height = float("inf")
    for entry in sorted(points, key=lambda entry: -entry[3]):
        height = min(entry[3], height / APART)
        found.append((entry, height))
    return found
