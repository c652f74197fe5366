"""Train all networks that the experiments want, on one's own images or a preset's.

    python experiments/train.py --preset shapes.toml
    python experiments/train.py --preset shapes.toml --max-steps 50      # a first try, of minutes

In this order: the tokenizer, the images as tokens, a transformer for each mask schedule, the
autoregressive baseline, the reference. What is there and was made
from the same settings, images and tokenizer is not made again; a training that was stopped goes on
from its last checkpoint when the same command is given. The networks with their cards go to
runs/NAME/weights, where the experiments look for those of the preset NAME. Exit codes: 0 done,
2 a wrong request.
"""

from __future__ import annotations

import sys

try:
    from experiments.studies.training import Options, run
    from maskgit.common import cli
except ModuleNotFoundError as missing:
    print(f"error: no module {missing.name}: run make demo or pip install -e .", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Entry point."""
    cli.main(run, Options, "train.py", __doc__ or "")


if __name__ == "__main__":
    main()
