"""Reconstruction from masked tokens: the paper's Figures 9 and 10.

    python experiments/reconstruction.py --ratios 0,0.05..0.95:0.05,0.97,0.99 --seeds 0,1,2

PSNR, SSIM, LPIPS and token agreement of held-out images against the share of masked tokens. Exit
codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("reconstruction", __doc__)


if __name__ == "__main__":
    main()
