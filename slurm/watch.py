"""How a submission stands: results on the disk first, then what SLURM says of the jobs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from maskgit.common.errors import UsageError
from maskgit.common.files import read_json
from slurm.submission import Submission, has_result

LINE = 120  # characters of a last log line
CANCELLED = "cancelled"  # a file in the folder of a submission that was taken out of the queue
EVERY = 5.0  # seconds between two looks
LINES_EVERY = 30.0  # seconds between two lines where the stream is no terminal

# Final states of sacct in our words.
ENDED = {
    "CANCELLED": "cancelled",
    "TIMEOUT": "out of time",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failed",
    "PREEMPTED": "preempted",
    "FAILED": "failed",
    "BOOT_FAIL": "node failed",
    "DEADLINE": "out of time",
}


@dataclass(frozen=True)
class ShardStatus:
    """One shard. Rates are of the cells done so far, NaN-free: None where nothing is known."""

    number: int
    state: str
    node: str
    cells: int
    done: int
    failed: int
    left: int
    images_per_second: float | None
    seconds_left: float | None
    attempt: int
    reason: str
    last_line: str
    queued: bool = False  # SLURM has its job, in whatever state

    @property
    def settled(self) -> bool:
        """Whether nothing will change by itself any more, as far as anybody knows."""
        return self.state == "done" or not (self.queued or self.state == "unknown")


@dataclass(frozen=True)
class Queue:
    """What squeue says (and sacct, where there is accounting); a `problem` if it says nothing.

    By the number of the shard, which is that of the array's task.
    """

    jobs: Mapping[int, tuple[str, str, str]]  # (state, node, reason)
    ended: Mapping[int, str]  # state
    problem: str = ""


def ask_slurm(submission: Submission) -> Queue:
    """The jobs with this submission's name, which no other job ever had; numbers begin anew when a
    controller loses its state, and a submission that was killed may not know its own."""
    text, problem = _output("squeue", "-h", "-r", "-n", submission.name, "-o", "%i|%T|%N|%r")
    jobs = {}
    for line in text.splitlines():
        words = line.split("|", 3)
        if len(words) == 4:
            jobs[_shard_number(words[0])] = (words[1], words[2], words[3])
    return Queue(jobs, _accounting(submission), problem)


def _shard_number(job: str) -> int:
    """3 of "12_3"; 0 of "12", which is no array; -1 of "12_[4-9]", which have not begun."""
    _, array, task = job.partition("_")
    return int(task) if task.isdigit() else -1 if array else 0


def _accounting(submission: Submission) -> dict[int, str]:
    if not submission.job:
        return {}
    text, problem = _output(
        "sacct", "-n", "-X", "-P", "-j", submission.job, "-o", "JobID,State,JobName"
    )
    ended = {}
    for line in text.splitlines() if not problem else []:
        words = line.split("|")
        if len(words) == 3 and words[2] == submission.name:
            ended[_shard_number(words[0])] = words[1].split()[0] if words[1] else ""
    return ended


def _output(*command: str) -> tuple[str, str]:
    if shutil.which(command[0]) is None:
        return "", f"{command[0]} is not on this machine's PATH"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} does not answer"
    if done.returncode:
        return "", " ".join((done.stderr or done.stdout).split())[:LINE] or f"{command[0]} failed"
    return done.stdout, ""


def collect(
    submission: Submission, queue: Queue | None = None, pace: Pace | None = None
) -> list[ShardStatus]:
    """The status of every shard.

    queue: for tests; by default SLURM is asked. pace: of an earlier look at this submission, so
    that cells that were done then are not read again.
    """
    queue = queue if queue is not None else ask_slurm(submission)
    pace = pace if pace is not None else Pace(submission)
    pace.refresh()
    return [_shard(submission, number, queue, pace) for number in range(len(submission.shards))]


def _shard(submission: Submission, number: int, queue: Queue, pace: Pace) -> ShardStatus:
    unfinished = any(key not in pace.done for key in submission.shards[number])
    keys = [key for key in submission.shards[number] if pace.first[key] == number]
    done = [key for key in keys if key in pace.done]
    missing = [key for key in keys if key not in pace.done]
    failed = [key for key in missing if (_cell(submission, key) / "failure.json").is_file()]
    said = submission.state(number)
    state, node, reason = queue.jobs.get(number, ("", "", ""))
    if not unfinished:
        shown = "done"
    elif state:
        shown = {"RUNNING": "running", "PENDING": "pending"}.get(state, state.lower())
        shown = "requeued" if shown == "pending" and said.get("attempt") else shown
    elif queue.problem:
        shown, reason = "unknown", queue.problem
    elif said.get("state") == "refused":
        shown, reason = "refused", said.get("reason", "")
    elif ENDED.get(queue.ended.get(number, "")):
        shown, reason = ENDED[queue.ended[number]], said.get("reason", "")
    elif said.get("state") in ("stopped", "broken"):
        shown, reason = said["state"], said.get("reason", "")
    elif said.get("state") == "ended":
        shown = "failed"
    elif (submission.folder / CANCELLED).exists():
        shown, reason = "cancelled", ""
    else:
        shown, reason = "lost", "not in the queue, and it did not say that it ended"
    if shown in ("failed", "done"):
        reason = ""
    return ShardStatus(
        number=number,
        state=shown,
        node=node or said.get("node", ""),
        cells=len(keys),
        done=len(done),
        failed=len(failed),
        left=len(missing) - len(failed),
        images_per_second=pace.images_per_second(done),
        seconds_left=pace.seconds_for(missing) if state and missing else None,
        attempt=said.get("attempt", 0),
        reason="" if reason == "None" else reason,
        last_line=last_line(submission.log(number)),
        queued=bool(state),
    )


class Pace:
    """The cells that are done, and their seconds from their timing.json."""

    def __init__(self, submission: Submission):
        self.submission = submission
        self.done: set[str] = set()
        # A cell that several shards share is counted in the first of them.
        self.first: dict[str, int] = {}
        for number, keys in enumerate(submission.shards):
            for key in keys:
                self.first.setdefault(key, number)
        self._timing: dict[str, tuple[float, float]] = {}  # key -> seconds, images

    def refresh(self) -> None:
        """Read the cells that have become done."""
        for key in self.submission.keys:
            cell = _cell(self.submission, key)
            if key in self.done or not has_result(cell):
                continue
            self.done.add(key)
            with contextlib.suppress(AttributeError, TypeError, ValueError):  # of another form
                seconds = float(_read(cell / "timing.json").get("seconds", 0))
                images = float(_read(cell / "result.json").get("cell", {}).get("num_samples", 1))
                if seconds > 0:
                    self._timing[key] = seconds, images

    def images_per_second(self, keys: list[str]) -> float | None:
        known = [self._timing[key] for key in keys if key in self._timing]
        return sum(i for _, i in known) / sum(s for s, _ in known) if known else None

    def seconds_for(self, keys: list[str]) -> float | None:
        """For cells that are not done, by their cost, at the pace of the whole submission."""
        cost = sum(self.submission.costs.get(key, 0.0) for key in self._timing)
        if not cost:
            return None
        pace = sum(seconds for seconds, _ in self._timing.values()) / cost
        return pace * sum(self.submission.costs.get(key, 0.0) for key in keys)


def looks(
    submissions: Sequence[Submission], every: float = EVERY
) -> Iterator[list[list[ShardStatus]]]:
    """The status of every shard of each, again and again until no shard is in the queue.

    A controller that does not answer is waited for.
    """
    paces = [Pace(submission) for submission in submissions]
    while True:
        found = [collect(pace.submission, pace=pace) for pace in paces]
        yield found
        if all(shard.settled for shards in found for shard in shards):
            return
        time.sleep(every)


def follow(
    submission: Submission, stream: TextIO = sys.stderr, every: float = EVERY
) -> list[ShardStatus]:
    """Show one line about all shards until none is in the queue; returns the last state.

    Ctrl-C ends the watching and no job.
    """
    began, printed, shown = time.monotonic(), -LINES_EVERY, ""
    live = stream.isatty()
    shards: list[ShardStatus] = []
    try:
        for (shards,) in looks([submission], every):
            ended = all(shard.settled for shard in shards)
            line, now = progress_line(shards), time.monotonic()
            if live:
                passed = f"\r\x1b[2K{line} | {clock(now - began)} passed"
                print(passed, end="", file=stream, flush=True)
            elif line != shown and (ended or now - printed >= LINES_EVERY):
                print(line, file=stream, flush=True)
                printed, shown = now, line
    except KeyboardInterrupt:
        said = "the jobs go on; see python -m slurm.status"
        print(f"{chr(10) if live else ''}{said} {submission.run}", file=stream)
        raise
    finally:
        if live:
            print(file=stream)
    return shards


def progress_line(shards: Sequence[ShardStatus]) -> str:
    """Cells, shards, images per second of those at work, time left at the pace so far."""
    done, failed = sum(s.done for s in shards), sum(s.failed for s in shards)
    text = f"{done}/{sum(s.cells for s in shards)} cells done, {failed} failed | "
    text += f"shards: {count_states(shards)}"
    running = [shard for shard in shards if shard.state == "running"]
    rate = sum(shard.images_per_second or 0.0 for shard in running)
    left = sum(shard.seconds_left or 0.0 for shard in shards)
    if rate and left:
        text += f" | {rate:.1f} images/s | {clock(left / len(running))} left"
    return text


def count_states(shards: Sequence[ShardStatus]) -> str:
    """`3 done, 1 running`."""
    states = Counter(shard.state for shard in shards)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def clock(seconds: float | None) -> str:
    """1:02:03, or a dash."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _cell(submission: Submission, key: str) -> Path:
    return submission.run / "cells" / key


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        return read_json(path)
    except UsageError:
        return {}


def last_line(log: Path | None) -> str:
    """The end of a log: its last line that is not empty, of a live line the newest state."""
    if log is None:
        return ""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    lines = [line.rpartition("\r")[2].strip() for line in lines]
    return next((line[:LINE] for line in reversed(lines) if line), "")
