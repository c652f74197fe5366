"""How the jobs of a run stand, and what to do about them.

python -m slurm.status RUN                      a line per shard; --follow, --json
python -m slurm.status RUN logs 3               the end of shard 3's log
python -m slurm.status RUN cancel               take all shards out of the queue
python -m slurm.status RUN resubmit [--failed]  the cells without a result that no job will make

RUN is the --out folder of the sweep; with --submission NAME only that submission of it is meant. A
cell is done when its result.json is there and whole, whatever SLURM says. Exit codes: 0; 1 with
--follow when cells are missing at the end; 2 a wrong request.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from maskgit.common.cli import ArgumentParser, exit_code
from maskgit.common.errors import UsageError
from slurm.resubmit import resubmit
from slurm.submission import Submission, load_submission, submissions
from slurm.submit import watch_words
from slurm.watch import CANCELLED, EVERY, ShardStatus, clock, count_states, looks

TAIL = 40  # lines of a log


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; one line and exit code 2 for bad input."""
    parser = ArgumentParser(prog="python -m slurm.status", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "action", nargs="?", default="show", choices=["show", "logs", "cancel", "resubmit"]
    )
    parser.add_argument("shard", nargs="?", type=int, help="for logs: the shard's number")
    parser.add_argument("--submission", metavar="NAME", help="default: all, for logs the newest")
    parser.add_argument("--follow", action="store_true", help="until no shard is in the queue")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two looks")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--failed", action="store_true", help="resubmit: cells that failed too")

    def run() -> int:
        options = parser.parse_args(arguments)
        if options.action == "logs":
            return _logs(find(options.run, options.submission), options.shard)
        if options.action == "cancel":
            return _cancel(find_all(options.run, options.submission))
        if options.action == "resubmit":
            return _resubmit(options.run, options.failed)
        if options.every < 0:
            raise UsageError(f"--every {options.every:g}: expected 0 or more")
        found = find_all(options.run, options.submission)
        return _show(found, options.follow, options.every, options.json)

    return exit_code(run, interrupted="")


def find(run: Path, name: str | None = None) -> Submission:
    """The one named of the submissions of `find_all`, else the newest; raises as that does."""
    return find_all(run, name)[-1]


def find_all(run: Path, name: str | None = None) -> list[Submission]:
    """The submissions of a run (or that of its own folder), the newest last; only the one named.

    Raises:
        UsageError: there is none.
    """
    if (run / "submission.json").is_file():
        return [load_submission(run)]
    found = submissions(run)
    if name is not None:
        found = [s for s in found if name in (s.name, s.folder.name)]
    if not found:
        what = f"no submission {name}" if name else "nothing was submitted to SLURM"
        raise UsageError(f"{run}: {what} from this folder; expected the --out folder of a sweep")
    return found


def table(submission: Submission, shards: list[ShardStatus]) -> str:
    """The status as plain text."""
    head = "shard", "state", "node", "done", "failed", "left", "img/s", "time left", "tries"
    lines: list[tuple[str, ...]] = [head]
    ends = [""]
    for s in shards:
        rate = "-" if s.images_per_second is None else f"{s.images_per_second:.1f}"
        facts = (s.number, s.state, s.node or "-", f"{s.done}/{s.cells}", s.failed, s.left)
        lines.append((*map(str, facts), rate, clock(s.seconds_left), str(s.attempt)))
        ends.append(s.reason or s.last_line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    done, cells = sum(s.done for s in shards), sum(s.cells for s in shards)
    title = f"{submission.name}, job {submission.job or '-'}: {done}/{cells} cells done"
    title += f", {sum(s.failed for s in shards)} failed; shards: {count_states(shards)}"
    padded = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=True)), end])
        for line, end in zip(lines, ends, strict=True)
    )
    return "\n".join([title, *(line.rstrip() for line in padded)])


def _show(submissions: list[Submission], follow: bool, every: float, as_json: bool) -> int:
    for found in looks(submissions, every):
        if follow and not as_json and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        for submission, shards in zip(submissions, found, strict=True):
            if as_json:
                facts = {"name": submission.name, "job": submission.job, "run": str(submission.run)}
                print(json.dumps({**facts, "shards": [asdict(s) for s in shards]}), flush=True)
            else:
                print(table(submission, shards), flush=True)
        if not follow:
            return 0
    return 0 if all(s.state == "done" for shards in found for s in shards) else 1


def _logs(submission: Submission, shard: int | None) -> int:
    last = len(submission.shards) - 1
    if shard is None or not 0 <= shard <= last:
        raise UsageError(f"logs {'' if shard is None else shard}: expected a shard of 0..{last}")
    log = submission.log(shard)
    if log is None:
        raise UsageError(f"logs {shard}: the shard has not started, it has no log yet")
    print(log, file=sys.stderr)
    print("\n".join(log.read_text(errors="replace").splitlines()[-TAIL:]))
    return 0


def _cancel(submissions: list[Submission]) -> int:
    if shutil.which("scancel") is None:
        raise UsageError("cancel: scancel is not on this machine's PATH")
    # By name: after a controller lost its state the number may be somebody else's job.
    for submission in submissions:
        for name in (submission.name, f"{submission.name}-report"):
            done = subprocess.run(["scancel", f"--name={name}"], capture_output=True, text=True)
            if done.returncode:
                raise UsageError(f"cancel: {' '.join(done.stderr.split())}")
        with contextlib.suppress(OSError):  # only what status says depends on it
            (submission.folder / CANCELLED).touch()
        print(f"cancelled {submission.name}; cells that are done stay", file=sys.stderr)
    return 0


def _resubmit(run: Path, failed_too: bool) -> int:
    submission = resubmit(run, failed_too)
    if submission is None:
        print("nothing to resubmit: every cell has its result or a job that will make it")
        return 0
    print("\n".join(watch_words(submission)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
