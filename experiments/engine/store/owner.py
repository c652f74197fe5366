"""Who holds a lease: a process, named so that anybody can tell later whether it still lives."""

import os
import socket
import subprocess
from functools import cache
from pathlib import Path


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


@cache
def host_id() -> str:
    """This machine as far as process numbers go: host name, boot and process namespace.

    Two containers may share a host name and see different processes, and after a reboot the same
    number is another process: in both cases a pid tells nothing, and the parts here differ.
    """
    boot = _read("/proc/sys/kernel/random/boot_id")[:8] or "-"
    try:
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()} {boot} {namespace}"


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in the system's own words; None if there is none.

    A zombie counts as none: it will never write again.
    """
    stat = _read(f"/proc/{pid}/stat")
    if stat:
        # The name in parentheses may hold anything; after it come the state and, 20th, the start.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    if os.path.isdir("/proc/self"):
        return None
    try:
        shown = subprocess.run(  # macOS and BSD have no /proc
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return shown.stdout.strip() or None


def is_alive(pid: int, start: str) -> bool:
    """Whether the very process that wrote (pid, start) on this machine still runs."""
    return process_start(pid) == start
