"""The processor cores and the torch device that a process may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    import torch

_CGROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """How many cores this process may use, at least 1.

    It is the least of: the machine's cores, the affinity mask, the quota of the control group (as
    containers set it), and SLURM_CPUS_PER_TASK (a job may see all of the node and have asked for
    less).
    """
    limits = [os.cpu_count() or 1, *_quota(_CGROUPS), *_number("SLURM_CPUS_PER_TASK")]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    return max(1, min(limits))


def worker_threads(workers: int) -> int:
    """How many threads each of so many worker processes takes, at least 1.

    It is a worker's share of the cores, or OMP_NUM_THREADS where that is less.
    """
    return max(1, min([available_cores() // workers, *_number("OMP_NUM_THREADS")]))


def _number(variable: str) -> list[int]:
    """The whole number in a variable of the environment; none where there is no such number."""
    # OMP_NUM_THREADS may list a number for each level of nesting; the first one counts.
    given = os.environ.get(variable, "").partition(",")[0].strip()
    return [int(given)] if given.isascii() and given.isdigit() else []


def _quota(root: Path) -> list[int]:
    """Cores by the quotas of this process's control group and those above it (version 2), or by
    the container's (version 1)."""
    quotas = []
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("0::/")[2].splitlines()[0]
    except (OSError, IndexError):
        own = ""
    for folder in (root / own, *(root / own).parents):
        if folder == root.parent:
            break
        quotas.append(_read(folder / "cpu.max"))
    v1 = root / "cpu"
    quotas.append([*_read(v1 / "cpu.cfs_quota_us"), *_read(v1 / "cpu.cfs_period_us")])
    return [
        max(1, int(quota[0]) // int(quota[1]))
        for quota in quotas
        if len(quota) == 2 and all(word.isdigit() for word in quota) and int(quota[1])
    ]


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def resolve_device(device: str, worker: int = 0) -> str:
    """The torch device of a worker.

    `auto` is a GPU if there is one, else the CPU. `cuda` spreads the workers over all GPUs.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        return f"cuda:{worker % torch.cuda.device_count()}"
    return device


def gpu_count(device: str) -> int:
    """How many GPUs the workers of a --device spread over; 0 for a CPU."""
    import torch

    if not resolve_device(device).startswith("cuda"):
        return 0
    return torch.cuda.device_count() if device in ("auto", "cuda") else 1


def check_device(device: str, flag: str = "--device") -> torch.device:
    """The torch device of a name (`auto` as for `resolve_device`), after a trial.

    Raises:
        UsageError: torch knows no such device, or it is not on this machine.
    """
    import torch

    try:
        return torch.zeros(1, device=resolve_device(device)).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{flag} {device}: not available here ({reason})") from error
