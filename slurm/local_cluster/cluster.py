"""Start and stop a SLURM of several virtual nodes in a folder of its own, as root, no systemd.

Needs Debian's packages slurmctld, slurmd, slurm-client and munge. Everything the cluster writes is
in the folder; a munge daemon of its own leaves the system's alone. Each daemon runs in the
foreground as a child of whoever started it in a new session, and its pid is kept in the folder, so
that another process can stop it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from maskgit.common.errors import UsageError
from maskgit.common.files import read_json, write_json
from slurm.local_cluster.config import slurm_conf

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo", "scancel")
SBIN = "/usr/sbin"  # on Debian not on every user's PATH
STATE = "cluster.json"


def why_not() -> str:
    """Why no local cluster can run here, in one line; empty if one can."""
    missing = [name for name in PROGRAMS if _which(name) is None]
    if missing:
        return (
            f"{', '.join(missing)} not found: apt-get install slurmctld slurmd slurm-client munge"
        )
    if os.geteuid() != 0:
        return "needs root, because slurmd starts jobs as their users"
    return ""


class LocalCluster:
    """A cluster in `folder`.

    Args:
        folder: for its configuration, state, logs and sockets; its path must be short enough for
            a socket (about 90 characters).
        nodes: virtual nodes n1, n2, ... on this machine.
        cpus: of each node.
        node_timeout: seconds until a silent node is down.
        forget_after: seconds until squeue forgets a job that has ended.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 2,
        cpus: int = 2,
        node_timeout: int = 10,
        forget_after: int = 300,
    ):
        self.folder = Path(os.path.abspath(folder))
        self.nodes, self.cpus = nodes, cpus
        self.node_timeout, self.forget_after = node_timeout, forget_after

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which SLURM's programs, and submitit, use this cluster."""
        return {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), SBIN]),
        }

    def start(self, timeout: float = 60.0) -> None:
        """Start all daemons and wait until every node is idle.

        Raises:
            UsageError: a package is missing, not root, or a cluster runs in the folder.
            RuntimeError: a daemon ended or the nodes did not come up; has the end of its log.
        """
        reason = why_not()
        if reason:
            raise UsageError(f"a local SLURM cannot run here: {reason}")
        if (self.folder / STATE).exists():
            raise UsageError(f"{self.folder}: holds a cluster already; stop it first")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munge insists that no other user can write on the way to its key
        self.forget_jobs()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        conf = slurm_conf(
            self.folder,
            nodes=self.nodes,
            cpus=self.cpus,
            memory=max(512, _memory() // self.nodes),
            node_timeout=self.node_timeout,
            forget_after=self.forget_after,
        )
        (self.folder / "slurm.conf").write_text(conf)
        # Without this file slurmd looks for cgroups that a container does not offer.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        self._write_pids({})
        try:
            self._start_munge()
            self.start_controller("-i")
            for number in range(1, self.nodes + 1):
                self.start_node(number)
            self.wait_for_nodes(timeout=timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all daemons and the jobs' processes; logs stay. Does nothing when none runs."""
        if not (self.folder / STATE).exists():
            return
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.run("scancel", "--full", "--signal=KILL", "--user=root", check=False, timeout=5)
            time.sleep(0.5)
        for name in list(self._pids()):
            self._end(name, signal.SIGTERM)
        send(signal.SIGKILL, *self.job_processes())
        (self.folder / STATE).unlink(missing_ok=True)

    def start_node(self, number: int) -> None:
        """Start the slurmd of node n<number>."""
        name = f"n{number}"
        (self.folder / f"spool.{name}").mkdir(exist_ok=True)
        self._launch(name, [_which("slurmd"), "-D", "-N", name, "-f", self._conf])

    def forget_jobs(self) -> None:
        """Empty the controller's state, while it does not run: it numbers jobs from 1 again."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        (self.folder / "state").mkdir()

    def start_controller(self, *options: str) -> None:
        """Start slurmctld; without state of an earlier one it needs `-i`."""
        self._launch("slurmctld", [_which("slurmctld"), "-D", *options, "-f", self._conf])

    def wait_for_nodes(self, state: str = "idle", timeout: float = 60.0) -> None:
        """Wait until all nodes are in `state` (a prefix of sinfo's word).

        Raises:
            RuntimeError: they are not after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            states = self.node_states()
            if len(states) == self.nodes and all(s.startswith(state) for s in states.values()):
                return
            for name in self._pids():
                if not self.alive(name):
                    raise RuntimeError(f"{name} has ended: {self.log(name)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"nodes are {states}, not {state}: {self.log('slurmctld')}")
            time.sleep(0.3)

    def node_states(self) -> dict[str, str]:
        """`{"n1": "idle", ...}` from sinfo; empty when the controller does not answer."""
        try:
            done = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False, timeout=5)
        except subprocess.TimeoutExpired:
            return {}
        return dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)

    def run(
        self, *command: str, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """One of SLURM's programs on this cluster."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
        )

    def log(self, name: str, characters: int = 600) -> str:
        """The end of a daemon's log, in one line."""
        kind = "slurmctld.log" if name == "slurmctld" else f"slurmd.{name}.log"
        parts = [self.folder / kind, self.folder / f"{name}.out"]
        text = " ".join(p.read_text(errors="replace") for p in parts if p.exists())
        return " ".join(text.split())[-characters:]

    def alive(self, name: str) -> bool:
        """Whether a daemon (munged, slurmctld, n1, ...) runs."""
        pid = self._pids().get(name)
        return pid is not None and _alive(pid)

    def job_processes(self, node: str = "") -> list[int]:
        """The processes of this cluster's jobs, or of those on one node.

        The slurmstepd daemons come first: one that sees its job die would still tell the controller
        that the job has failed, which nothing does when a machine loses its power. Daemons and jobs
        carry the cluster's SLURM_CONF in their environment. SLURMD_NODENAME is in that of the jobs
        only, whose parent the slurmstepd is.
        """
        conf = f"SLURM_CONF={self._conf}".encode()
        daemons, parents = set[int](), dict[int, int]()
        for proc in Path("/proc").iterdir():
            if not proc.name.isdigit() or int(proc.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                variables = (proc / "environ").read_bytes().split(b"\0")
                if conf not in variables:
                    continue
                if b"slurmstepd" in (proc / "cmdline").read_bytes().split(b" ")[0]:
                    daemons.add(int(proc.name))
                elif any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables) and (
                    not node or f"SLURMD_NODENAME={node}".encode() in variables
                ):
                    stat = (proc / "stat").read_text().rpartition(")")[2].split()
                    parents[int(proc.name)] = int(stat[1])
        if node:
            daemons &= set(parents.values())
        return [*sorted(daemons), *sorted(parents)]

    @property
    def _conf(self) -> str:
        return str(self.folder / "slurm.conf")

    def _start_munge(self) -> None:
        socket = self.folder / "munge.socket"
        command = [_which("munged"), "--force", "--foreground", f"--socket={socket}"]
        command += [f"--key-file={self.folder}/munge.key", f"--pid-file={self.folder}/munged.pid"]
        command += [f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munge.seed"]
        self._launch("munged", command)
        for _ in range(100):
            if socket.exists() or not self.alive("munged"):
                break
            time.sleep(0.1)
        if not socket.exists():
            raise RuntimeError(f"munged did not start: {self.log('munged')}")

    def _launch(self, name: str, command: list[str | None]) -> None:
        with open(self.folder / f"{name}.out", "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._write_pids({**self._pids(), name: process.pid})

    def _end(self, name: str, how: signal.Signals) -> None:
        pids = self._pids()
        pid = pids.pop(name, None)
        if pid is None:
            return
        send(how, pid)
        deadline = time.monotonic() + 10
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _alive(pid):
            send(signal.SIGKILL, pid)
        self._write_pids(pids)

    def _pids(self) -> dict[str, int]:
        return read_json(self.folder / STATE)["pids"]

    def _write_pids(self, pids: dict[str, int]) -> None:
        write_json(self.folder / STATE, {"nodes": self.nodes, "pids": pids})


def send(how: signal.Signals, *pids: int) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SBIN)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is ours is reaped on the way."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
