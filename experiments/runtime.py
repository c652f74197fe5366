"""Decoding time of MaskGIT beside the autoregressive baseline: the paper's Figure 4.

    python experiments/runtime.py --tokens 64,256,1024 --T 8,12 --batch-sizes 1,8

Random weights of the preset's sizes, KV cache for the baseline, medians after a warm-up, all in one
process on an otherwise idle machine. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("runtime", __doc__)


if __name__ == "__main__":
    main()
