"""Class-conditional samples measured and shown: the paper's Table 1 and Figures 5, 11, 12 and 13.

    python experiments/class_conditional.py --seeds 0,1,2 --num-samples 2000

MaskGIT beside the autoregressive baseline: FID, IS, precision, recall, parameters, steps, and the
accuracy of a classifier trained on the samples (CAS). Exit codes: 0 done, 1 failed, 2 a wrong
request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("class_conditional", __doc__)


if __name__ == "__main__":
    main()
