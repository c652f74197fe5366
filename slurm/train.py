"""Training on SLURM, on several GPUs and nodes, through the same profiles as sweeps.

python -m slurm.train --slurm a100x8 -- transformer --preset imagenet256 --tokens tokens
python -m slurm.train --slurm a100x8 --slurm-set nodes=4 --slurm-set time=2-00:00:00 -- \\
    tokenizer --preset imagenet256 ...

What stands behind -- is a command of maskgit.training. The profile's tasks_per_node processes start
on each of its nodes, one a GPU. Before the time limit, and after a preemption or the death of a
node, the job is queued again and goes on from the last checkpoint (--checkpoint-every steps), with
the losses of a run that was never interrupted. It runs from a copy of the code made now, in the
folder where this command is given. Exit codes: 0 submitted (with --wait: trained), 1 with --wait
the training ended otherwise, 2 a wrong request.
"""

from __future__ import annotations

import os
import runpy
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskgit.common.cli import ArgumentParser, check_not_empty, exit_code
from maskgit.common.errors import UsageError
from slurm.job import write_state
from slurm.profile import Profile, load_profile
from slurm.submission import Submission, load_submission
from slurm.submit import submit_jobs
from slurm.watch import ask_slurm, last_line

MODULE = "maskgit.training"
COMMANDS = ("tokenizer", "tokenize", "transformer", "transformers", "autoregressive")


@dataclass(frozen=True)
class TrainJob:
    """One process of a training; SLURM starts as many as the profile says. submitit pickles it."""

    folder: str

    def __call__(self) -> None:
        submission = load_submission(Path(self.folder))
        environment = distributed_environment()
        first = environment["RANK"] == "0"
        os.environ.update(environment)
        os.chdir(submission.request["folder"])
        sys.argv = [MODULE, *submission.request["words"]]
        if first:
            write_state(submission, 0, state="starting")
            write_state(submission, 0, state="running")
        try:
            runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if ended.code not in (0, None):
                if first:
                    write_state(submission, 0, state="broken", reason=f"exit code {ended.code}")
                raise
        except Exception as error:
            if first:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                write_state(submission, 0, state="broken", reason=reason)
            raise
        if first:
            write_state(submission, 0, state="ended")

    def checkpoint(self) -> Any:
        """Called by submitit before a time limit: the same command, which resumes by itself."""
        from submitit.helpers import DelayedSubmission

        write_state(load_submission(Path(self.folder)), 0, state="requeued")
        return DelayedSubmission(TrainJob(self.folder))


def distributed_environment() -> dict[str, str]:
    """What torch.distributed wants to know, from SLURM's variables, for this process.

    As submitit's TorchDistributedEnvironment, but for the address: on one node no name has to be
    known to anybody, and a node's name that is not known is looked up in SLURM.
    """
    from submitit.helpers import TorchDistributedEnvironment
    from submitit.slurm.slurm import SlurmJobEnvironment

    found = TorchDistributedEnvironment()
    alone = SlurmJobEnvironment().num_nodes == 1
    return {
        "RANK": str(found.rank),
        "WORLD_SIZE": str(found.world_size),
        "LOCAL_RANK": str(found.local_rank),
        "LOCAL_WORLD_SIZE": str(found.local_world_size),
        "MASTER_ADDR": "127.0.0.1" if alone else address_of(found.master_addr),
        "MASTER_PORT": str(found.master_port),
    }


def address_of(node: str) -> str:
    """The node's name if it can be resolved, else its address as SLURM knows it."""
    try:
        socket.gethostbyname(node)
        return node
    except OSError:
        shown = subprocess.run(
            ["scontrol", "show", "node", "-o", node], capture_output=True, text=True, check=False
        ).stdout
        facts = dict(word.partition("=")[::2] for word in shown.split())
        return facts.get("NodeAddr", node)


def submit_training(words: list[str], profile: Profile, runs: Path) -> Submission:
    """Submit one command of maskgit.training; returns at once.

    words: the command and its flags. runs: the submission gets a folder below it.

    Raises:
        UsageError: there is no SLURM here, or it refused the job.
    """
    return submit_jobs(
        lambda folder: [TrainJob(folder)],
        {"words": words, "folder": os.getcwd()},
        Path(os.path.abspath(runs)),
        profile,
        label=words[0],
        shards=((),),
        snapshot=True,
        flag="--runs",
        # One process that ended takes the others with it: they would wait for it for ever.
        slurm_srun_args=["--kill-on-bad-exit=1"],
    )


def status_line(submission: Submission) -> tuple[str, str]:
    """(state, one line) of a training: what SLURM has of it, else what it last said."""
    queue, said = ask_slurm(submission), submission.state(0)
    state, node, reason = queue.jobs.get(0, ("", "", ""))
    shown = {"RUNNING": "running", "PENDING": "pending"}.get(state, state.lower())
    if queue.problem:
        shown, reason = "unknown", queue.problem
    elif not state:
        shown = said.get("state", "lost")
        shown = shown if shown in ("ended", "broken") else "lost"
        reason = said.get("reason", "")
    elif shown == "pending" and said.get("attempt"):
        shown = "requeued"
    parts = [
        f"{submission.name}, job {submission.job}: {shown}",
        node,
        f"try {said['attempt']}" if said else "",
        "" if reason == "None" else reason,
        last_line(submission.log(0)),
    ]
    return shown, ", ".join(filter(None, parts))


def wait(submission: Submission, every: float = 10.0) -> int:
    """Say how the training stands until it has ended; returns the exit code. Ctrl-C ends no job."""
    before = ""
    while True:
        state, line = status_line(submission)
        if line != before:
            print(line, file=sys.stderr, flush=True)
            before = line
        if state in ("ended", "broken", "lost"):
            return 0 if state == "ended" else 1
        time.sleep(every)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; one line and exit code 2 for bad input."""
    parser = ArgumentParser(prog="python -m slurm.train", description=__doc__)
    # --profile and --set are the names of former versions.
    parser.add_argument(
        "--slurm", "--profile", required=True, metavar="PROFILE", help="such as a100x8, or a file"
    )
    parser.add_argument("--slurm-set", "--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/training"), help="for logs")
    parser.add_argument("--wait", action="store_true", help="until the training has ended")
    parser.add_argument("--dry-run", action="store_true", help="say what would be asked for")
    given = sys.argv[1:] if arguments is None else arguments
    cut = given.index("--") if "--" in given else len(given)

    def run() -> int:
        options, words = parser.parse_args(given[:cut]), given[cut + 1 :]
        check_not_empty(words)
        if not words or words[0] not in COMMANDS:
            raise UsageError(
                f"{shlex.join(words) or 'no command'}: expected -- and one of "
                f"{', '.join(COMMANDS)} with its flags"
            )
        profile = load_profile(options.slurm, options.slurm_set)
        processes = profile.nodes * profile.tasks_per_node
        if options.dry_run:
            print(
                f"{processes} processes on {profile.nodes} nodes, {profile.gpus} GPUs and "
                f"{profile.cpus} CPUs each, {profile.mem} a node, time limit {profile.time}"
            )
            return 0
        submission = submit_training(words, profile, options.runs)
        print(f"submitted job {submission.job}, {processes} processes", file=sys.stderr)
        print(f"watch it:  tail -f {submission.folder}/{submission.job}_0_log.err", file=sys.stderr)
        return wait(submission) if options.wait else 0

    return exit_code(run, interrupted="the job goes on")


if __name__ == "__main__":
    sys.exit(main())
