"""All tables and figures of the paper, one after the other, into one folder with one index.

    python experiments/reproduce.py --preset embedded --quick

Each experiment goes to OUT/NAME with its report, what they share to OUT/stages, the index of all
reports to OUT/report. The same command again goes on where it was. Exit codes: 0 all done, 1 one
failed, 2 a wrong request.
"""

import sys

try:
    from experiments.studies.reproduce import Options, run
    from maskgit.common import cli
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, "reproduce.py", __doc__ or "")


if __name__ == "__main__":
    main()
