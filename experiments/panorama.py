"""Outpainting repeated sideways to any width: the paper's Figure 15.

    python experiments/panorama.py --factors 2,4

Held-out images grow to both sides in overlapping windows; measured is how much more neighbouring
columns differ where windows meet. Exit codes: 0 done, 1 failed, 2 a wrong request.
"""

import sys

try:
    from experiments.engine import command
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    command.main("panorama", __doc__)


if __name__ == "__main__":
    main()
