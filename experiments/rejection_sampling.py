"""Classifier-based rejection sampling: the paper's Table 4, and FID against IS.

    python experiments/rejection_sampling.py --rates 1,0.5,0.2,0.1,0.05 --seeds 0,1,2

Keeps the samples that a classifier is surest of; all that are drawn are counted. Exit codes: 0
done, 1 failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("rejection_sampling", __doc__)


if __name__ == "__main__":
    main()
