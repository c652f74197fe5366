"""`--wait`: one line about all shards of a submission, until they have ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from slurm.status import clock
from slurm.submission import Submission
from slurm.watch import Pace, ShardStatus, collect

EVERY = 5.0  # seconds between two looks
LINES_EVERY = 30.0  # seconds between two lines where the stream is no terminal


def follow(
    submission: Submission, stream: TextIO = sys.stderr, every: float = EVERY
) -> list[ShardStatus]:
    """Show how a submission stands until no shard of it is in the queue; returns the last state.

    Ctrl-C ends the watching and no job. A controller that does not answer is waited for.
    """
    pace, began, printed, shown = Pace(submission), time.monotonic(), -LINES_EVERY, ""
    live = stream.isatty()
    try:
        while True:
            shards = collect(submission, pace=pace)
            ended = all(shard.settled for shard in shards)
            line, now = progress_line(shards), time.monotonic()
            if live:
                print(
                    f"\r\x1b[2K{line} | {clock(now - began)} passed",
                    end="",
                    file=stream,
                    flush=True,
                )
            elif line != shown and (ended or now - printed >= LINES_EVERY):
                print(line, file=stream, flush=True)
                printed, shown = now, line
            if ended:
                return shards
            time.sleep(every)
    except KeyboardInterrupt:
        said = "the jobs go on; see python -m slurm.status"
        print(f"{chr(10) if live else ''}{said} {submission.run}", file=stream)
        raise
    finally:
        if live:
            print(file=stream)


def progress_line(shards: Sequence[ShardStatus]) -> str:
    """Cells, shards, images per second of those at work, time left at the pace so far."""
    done, failed = sum(s.done for s in shards), sum(s.failed for s in shards)
    states = Counter(shard.state for shard in shards)
    text = f"{done}/{sum(s.cells for s in shards)} cells done, {failed} failed | shards: "
    text += ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    running = [shard for shard in shards if shard.state == "running"]
    rate = sum(shard.images_per_second or 0.0 for shard in running)
    left = sum(shard.seconds_left or 0.0 for shard in shards)
    if rate and left:
        text += f" | {rate:.1f} images/s | {clock(left / len(running))} left"
    return text
