"""Editing, inpainting, outpainting: the paper's Table 2 and Figures 6, 7, 14 and 16 to 20.

    python experiments/editing.py --seeds 0,1,2
    python experiments/editing.py --quick --tasks outpaint-right,inpaint-center

Held-out images are the inputs; beside MaskGIT stand a mean fill, scikit-image's biharmonic
inpainting (extra `inpainting`) and, downwards, the autoregressive baseline. Exit codes: 0 done,
1 failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("editing", __doc__)


if __name__ == "__main__":
    main()
