"""Where it goes wrong, by measure: the paper's Figure 21.

    python experiments/failure_cases.py --seeds 0,1,2

The samples that a classifier takes for another class, the worst reconstructions, and what changes
at the boundary of outpainting. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("failure_cases", __doc__)


if __name__ == "__main__":
    main()
