"""A runner of trivial cells that takes itself for another machine, whose clock jumps.

    CLOCK_HOST=a CLOCK_JUMP=3600 python tests/slurm/clock_doubles.py STORE [as engine_doubles.py]

Its leases carry the host's name, so that others judge it by its heartbeat alone. In a worker the
clock jumps after the first cell, in the runner it has jumped from the start.
"""

import os
import sys
import time

from experiments.engine.store import lease
from tests.experiments.engine import engine_doubles

HOST, JUMP = os.environ["CLOCK_HOST"], float(os.environ["CLOCK_JUMP"])
_real, _offset = time.time, [JUMP if __name__ == "__main__" else 0.0]


class Jumping(engine_doubles.Trivial):
    """The cells of engine_doubles; after each the clock is off."""

    def compute(self, task):
        outcome = super().compute(task)
        _offset[0] = JUMP
        return outcome


# At import, because a worker process imports this file before it does anything else.
lease.host_id = lambda: HOST
time.time = lambda: _real() + _offset[0]
lease.Leases.__init__.__defaults__ = (10.0, 120.0, time.monotonic, time.time)
engine_doubles.Trivial = Jumping

if __name__ == "__main__":
    sys.exit(engine_doubles.main())
