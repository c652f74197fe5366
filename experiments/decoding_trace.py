"""Masks and images of every iteration: the paper's Figure 2, also as an animation.

    python experiments/decoding_trace.py --steps 8 --classes 9,8,1

MaskGIT above, the autoregressive baseline in raster order below. Exit codes: 0 done, 1 failed, 2 a
wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("decoding_trace", __doc__)


if __name__ == "__main__":
    main()
