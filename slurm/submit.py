"""From cells to a job array: plan, submit through submitit, wait."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskgit.common.errors import UsageError
from slurm.job import ENTRY, ReportJob, ShardJob
from slurm.profile import Profile
from slurm.shards import Shard, Work, number_of_shards, pack
from slurm.submission import (
    ROOT,
    Submission,
    code_fingerprint,
    new_folder,
    take_snapshot,
)


def plan(work: Sequence[Work], profile: Profile) -> list[Shard]:
    """The shards of these cells under a profile."""
    return pack(work, number_of_shards(work, profile)) if work else []


def plan_words(shards: Sequence[Shard], profile: Profile) -> list[str]:
    """What --dry-run says: shards, and hours where the time of a forward is known."""
    cells = [len(shard.keys) for shard in shards]
    distinct = len({key for shard in shards for key in shard.keys})
    if not shards:
        return ["nothing to submit: every cell has its result"]
    low, high = min(s.cost for s in shards), max(s.cost for s in shards)
    lines = [
        f"{distinct} cells in {len(shards)} shards of {min(cells)} to {max(cells)} cells, "
        f"{low:.0f} to {high:.0f} forwards each; at most {profile.array_parallelism} at a time",
        f"profile {profile.name}: {profile.gpus} GPUs, {profile.cpus} CPUs, {profile.mem}, time "
        f"limit {profile.time} a shard",
    ]
    if profile.seconds_per_forward is None:
        lines.append(
            "hours are not known: give seconds_per_forward of one image on this hardware, "
            "such as --slurm-set seconds_per_forward=0.002"
        )
    else:
        hours = sum(s.cost for s in shards) * profile.seconds_per_forward / 3600
        longest = high * profile.seconds_per_forward / 3600
        waves = -(-len(shards) // profile.array_parallelism)
        lines.append(
            f"about {hours:.1f} hours of work, {longest:.2f} hours in the longest shard, "
            f"{waves * longest:.1f} hours with {profile.array_parallelism} shards at a time"
        )
        if profile.gpus:
            lines.append(f"about {hours * profile.gpus:.1f} GPU-hours")
    return lines


def submit(
    request: dict[str, Any],
    work: Sequence[Work],
    run: Path,
    profile: Profile,
    *,
    label: str = "maskgit",
    snapshot: bool = False,
    chain_report: bool = False,
    root: Path | None = None,
    entry: str = ENTRY,
) -> Submission:
    """Submit the cells as one job array (a single job for a single shard); returns at once.

    request: what the jobs compute, see slurm.job. work: the cells to do, at least one. label: start
    of the jobs' name. snapshot: the jobs run from a copy of the code made now. chain_report: one
    more job builds the report once all shards have ended, however they did. root: of the code; this
    installation's. entry: see `slurm.job.ShardJob`.

    Raises:
        UsageError: there is no SLURM here, or it refused the job; has sbatch's own words.
    """
    shards = plan(work, profile)
    if len(shards) > profile.max_array:
        raise UsageError(f"{len(shards)} shards: more than max_array {profile.max_array}")
    submission = submit_jobs(
        lambda folder: [ShardJob(folder, number, entry) for number in range(len(shards))],
        request,
        run,
        profile,
        label=label,
        shards=tuple(shard.keys for shard in shards),
        costs={item.key: item.cost for item in work},
        snapshot=snapshot,
        root=root,
    )
    if chain_report:
        submission = _chain_report(submission, profile, entry)
    return submission


def submit_jobs(
    make_jobs: Callable[[str], Sequence[Any]],
    request: dict[str, Any],
    run: Path,
    profile: Profile,
    *,
    label: str,
    shards: tuple[tuple[str, ...], ...],
    costs: Mapping[str, float] | None = None,
    snapshot: bool = False,
    root: Path | None = None,
    flag: str = "--out",
    **more: Any,
) -> Submission:
    """Write a submission and send its jobs; after an error neither a job nor a folder is left.

    make_jobs: the jobs, given the submission's folder. flag: the flag that named `run`. more:
    further parameters of submitit's AutoExecutor. The rest is as for `submit`.

    Raises:
        UsageError: as for `submit`.
    """
    if shutil.which("sbatch") is None:
        raise UsageError("--slurm: sbatch is not on this machine's PATH; log in to a submit host")
    folder = new_folder(run, flag)
    submission = Submission(
        folder=folder,
        name=f"{label}-{folder.name}",
        run=run,
        request=request,
        profile={**dataclasses.asdict(profile), "setup": list(profile.setup)},
        shards=shards,
        costs=costs or {},
        fingerprint="",
        snapshot=snapshot,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        root=str(root or ROOT),
    )
    try:
        if snapshot:
            take_snapshot(Path(submission.root), folder / "code")
        submission = dataclasses.replace(submission, fingerprint=code_fingerprint(submission.code))
        submission.write()  # the jobs read it: before they exist
        jobs = make_jobs(str(folder))
        job = send(submission, profile, jobs, submission.name, **more).partition("_")[0]
    except (UsageError, OSError) as error:
        cancel_by_name(submission.name)
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise UsageError(f"{flag} {run}: cannot be written ({error.strerror})") from None
        raise
    submission = dataclasses.replace(submission, job=job)
    submission.write()
    return submission


def cancel_by_name(name: str) -> None:
    """After a failure between sbatch and the pickles, on a full disk say: no job without them."""
    subprocess.run(["scancel", f"--name={name}"], capture_output=True, check=False)


def _chain_report(submission: Submission, profile: Profile, entry: str) -> Submission:
    """One more job, for the report; without it the shards still run, so it may not fail."""
    small = dataclasses.replace(profile, gpus=0, cpus=1, nodes=1, tasks_per_node=1)
    job, name = ReportJob(str(submission.folder), entry), f"{submission.name}-report"
    try:
        number = send(submission, small, [job], name, dependency=f"afterany:{submission.job}")
    except UsageError as error:
        print(f"warning: no job for the report: {error}", file=sys.stderr)
        return submission
    submission = dataclasses.replace(submission, report_job=number)
    submission.write()
    return submission


def send(
    submission: Submission,
    profile: Profile,
    jobs: Sequence[Any],
    name: str,
    dependency: str = "",
    **more: Any,
) -> str:
    """Submit through submitit, several jobs as an array; returns the id of the (first) job.

    more: further parameters of submitit's AutoExecutor.

    Raises:
        UsageError: sbatch refused; has its own words.
    """
    import submitit

    executor = submitit.AutoExecutor(
        str(submission.folder), cluster="slurm", slurm_max_num_timeout=profile.max_timeouts,
        slurm_python=_python(profile),
    )  # fmt: skip
    executor.update_parameters(**sbatch_parameters(submission, profile, name, dependency), **more)
    try:
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # submitit prints it too
            sent = [executor.submit(job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        reason = re.sub(r"sbatch: (error|fatal): ", "", " ".join(str(error).split()))[-400:]
        raise UsageError(f"--slurm {profile.name}: sbatch refused the job: {reason}") from None
    return sent[0].job_id


def sbatch_parameters(
    submission: Submission, profile: Profile, name: str, dependency: str = ""
) -> dict[str, Any]:
    """The profile in the words of submitit's AutoExecutor."""
    code = shlex.quote(str(submission.code))
    setup = [f"export {key}={shlex.quote(text)}" for key, text in profile.environment.items()]
    setup.append(f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}")
    # Since SLURM 22.05 a step does not take over the cores that its job asked for each task.
    setup.append(f"export SRUN_CPUS_PER_TASK={profile.cpus}")
    # The folder of the submission, so that no file beside a user's shell shadows a module.
    more = {"chdir": str(submission.folder)}
    parameters: dict[str, Any] = {
        "name": name,
        "timeout_min": profile.minutes,
        "nodes": profile.nodes,
        "tasks_per_node": profile.tasks_per_node,
        "cpus_per_task": profile.cpus,
        "slurm_mem": profile.mem,
        "slurm_array_parallelism": profile.array_parallelism,
        "slurm_signal_delay_s": profile.signal_delay,
        "slurm_setup": [*profile.setup, *setup],
        "slurm_additional_parameters": more,
    }
    if profile.gpus:
        parameters["gpus_per_node"] = profile.gpus * profile.tasks_per_node
    if dependency:
        parameters["slurm_dependency"] = dependency
    for key in ("partition", "account", "qos", "constraint"):
        value = getattr(profile, key)
        if value is not None:
            parameters[f"slurm_{key}"] = value
    return parameters


def _python(profile: Profile) -> str:
    python = profile.python or shlex.quote(sys.executable)
    return f"{profile.container} {python}" if profile.container else python


def watch_words(submission: Submission) -> list[str]:
    """What is said after a submission: how to look at it."""
    run = submission.run
    return [
        f"submitted job {submission.job}: {len(submission.keys)} cells in "
        f"{len(submission.shards)} shards, {submission.folder}",
        f"watch it:  python -m slurm.status {run} --follow",
    ]
