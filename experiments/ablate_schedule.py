"""Mask schedules against numbers of iterations: the paper's Table 3 and Figure 8.

    python experiments/ablate_schedule.py --T 4..60                      # all 399 cells
    python experiments/ablate_schedule.py --T 4,8,16 --num-samples 100   # a first look
    python experiments/ablate_schedule.py --preset imagenet256 --T 4..60 # the released weights

Samples every cell of schedules x T x seeds with the transformer trained for that schedule, measures
FID, IS, precision, recall, KID and NLL, and writes a report. Killed or stopped, the same command
goes on where it was. Exit codes: 0 all cells done, 1 some failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("ablate_schedule", __doc__)


if __name__ == "__main__":
    main()
