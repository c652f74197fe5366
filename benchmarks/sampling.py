"""Speed of `generate` beside the machine's own matrix product, measured in the same run.

    python benchmarks/sampling.py                      # the embedded transformer, T = 12
    python benchmarks/sampling.py --T 60 --images 512

Prints one JSON object on stdout: images/s, milliseconds a forward and image, the floating-point
operations these need (a product of (m, k) and (k, n) counted as 2 m k n; attention at its full
length), and the share of the rate of a 2048^3 float32 product. Weights are random: speed does not
depend on them.
"""

import argparse
import json
import platform
import sys
import time


def median_seconds(run, repeats: int) -> float:
    """Median wall-clock of `run` over `repeats` calls after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def forward_operations(config) -> int:
    """Operations of one forward of one image, head over the codes included."""
    length, width = 1 + config.num_tokens, config.width
    layer = 2 * length * (4 * width**2 + 2 * width * config.mlp) + 4 * length**2 * width
    head = 2 * config.num_tokens * (width**2 + width * config.num_codes)
    return config.layers * layer + head


def main() -> None:
    """Parse the flags, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--T", type=int, default=12, help="iterations")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="default: all cores")
    flags = parser.parse_args()
    for name in ("T", "images", "repeats"):
        if getattr(flags, name) < 1:
            print(f"error: --{name} {getattr(flags, name)}: expected 1 or more", file=sys.stderr)
            raise SystemExit(2)

    import torch

    from maskgit.decoding import generate
    from maskgit.presets import get_preset
    from maskgit.transformer import Transformer, TransformerConfig

    if flags.threads:
        torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    preset = get_preset("embedded")
    shape = preset.transformer
    config = TransformerConfig(
        preset.num_codes,
        preset.num_classes,
        preset.num_tokens,
        shape.width,
        shape.layers,
        shape.heads,
        shape.mlp,
    )
    transformer = Transformer(config).eval()
    labels = torch.arange(flags.images) % config.num_classes
    matrix = torch.randn(2048, 2048)
    product = median_seconds(lambda: matrix @ matrix, flags.repeats)
    seconds = median_seconds(lambda: generate(transformer, labels, steps=flags.T), flags.repeats)
    # The first iteration is computed once per class, the others for every image.
    forwards = (flags.T - 1) * flags.images + min(flags.images, config.num_classes)
    rate = forwards * forward_operations(config) / seconds
    result = {
        "T": flags.T,
        "images": flags.images,
        "images_per_second": round(flags.images / seconds, 1),
        "ms_per_forward_and_image": round(1e3 * seconds / forwards, 3),
        "gflop_per_forward_and_image": round(forward_operations(config) / 1e9, 4),
        "gflop_per_second": round(rate / 1e9, 1),
        "matmul_gflop_per_second": round(2 * 2048**3 / product / 1e9, 1),
        "share_of_matmul_rate": round(rate / (2 * 2048**3 / product), 3),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
