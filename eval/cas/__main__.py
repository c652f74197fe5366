"""`python -m eval.cas`: see eval/cas/score.py."""

import sys

from eval.cas.score import main

if __name__ == "__main__":
    sys.exit(main())
