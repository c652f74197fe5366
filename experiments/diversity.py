"""Diversity on other measures: the paper's Table 5.

    python experiments/diversity.py --seeds 0,1,2 --num-samples 2000

Precision and recall on the network that takes Inception's place, and the accuracy of a classifier
trained on the samples without RandAugment. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("diversity", __doc__)


if __name__ == "__main__":
    main()
