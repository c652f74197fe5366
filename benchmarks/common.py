"""What the benchmarks share: clocks, the machine in words, tables, result files, fresh processes.

A case of a benchmark runs in a process of its own (`in_fresh_process`): its peak memory is its own,
its environment can differ, and one that the processor kills takes nobody with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]
_EXCEPTION = re.compile(r"[A-Za-z_.]+(Error|Exception)\b.*: ")


class BenchmarkError(Exception):
    """What a user can put right; printed as one line, exit code 2."""


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def at_least_one(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)


def several(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An argparse type: some of the known words, separated by commas."""

    def parse(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r}: expected some of {','.join(known)}")
        return words

    return parse


def numbers(text: str) -> list[int]:
    """An argparse type: whole numbers from 1 on, separated by commas."""
    return [at_least_one(word) for word in text.split(",")]


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2 without the usage text."""
        fail(message.removeprefix("argument "))


def seconds_of(run: Callable[[], object]) -> float:
    """Wall-clock of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_seconds(run: Callable[[], object], repeats: int, warm: int = 1) -> float:
    """Median wall-clock of `repeats` calls, after `warm` that do not count."""
    for _ in range(warm):
        run()
    return statistics.median(seconds_of(run) for _ in range(repeats))


def take_turns(
    functions: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Call each in turn, `repeats` rounds; every second round runs backwards.

    functions: name -> what returns its own seconds (or any other number).
    """
    found: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats):
        names = list(functions) if turn % 2 == 0 else list(functions)[::-1]
        for name in names:
            found[name].append(functions[name]())
    return found


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine and the libraries, in words."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    described = {
        "processor": model,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": _version("torch"),
        "jax": _version("jax"),
    }
    if device != "cpu":
        import torch

        described["device"] = torch.cuda.get_device_name(device)
        described["cuda"] = torch.version.cuda
    return {key: value for key, value in described.items() if value}


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_mib() -> float:
    """The most memory this process has held so far, in MiB (of the host)."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with the memory of the parent
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high.split()[1]) / 2**10
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def in_fresh_process(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, limit: float = 3600
) -> dict[str, Any]:
    """Run a Python script and read the JSON object it prints last on stdout.

    Raises BenchmarkError: it ended with an error, was killed (the signal is named), or took longer
    than `limit` seconds.
    """
    try:
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"took longer than {limit:.0f} s") from None
    if done.returncode < 0:
        raise BenchmarkError(f"killed by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        raise BenchmarkError(reason_of(done.stderr) or f"exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def reason_of(said: str) -> str:
    """The line of an error in what a process said: the last one, or the last that names an
    exception, as libraries add advice after it."""
    lines = said.strip().splitlines() or [""]
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines)[-1].removeprefix("error: ")


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, path)


class Results:
    """The rows of a benchmark: printed as they come, merged into a result file.

    Rows of an older file stay where the machine and the libraries are the same and no new row has
    their name; so a long benchmark can be run in parts.
    """

    def __init__(self, benchmark: str, device: str, out: Path | None, key: str = "name"):
        self.out, self.key = out, key
        self.content: dict[str, Any] = {
            "benchmark": benchmark,
            "machine": machine(device),
            "rows": [],
        }
        if out is not None and out.is_file():
            try:
                before = json.loads(out.read_text())
            except ValueError:
                fail(f"--out {out}: there is a file that is not JSON; remove it or name another")
            if before.get("machine") == self.content["machine"]:
                self.content = before
            else:
                print(f"--out {out}: of another machine, begun anew", file=sys.stderr)

    @property
    def rows(self) -> list[Row]:
        """All rows, those of the older file too."""
        return self.content["rows"]

    def add(self, row: Row) -> None:
        """Put a row in its older one's place, or at the end, and write the file."""
        for i, old in enumerate(self.rows):
            if old[self.key] == row[self.key]:
                self.rows[i] = row
                break
        else:
            self.rows.append(row)
        if self.out is not None:
            write_json(self.out, self.content)

    def note(self, **values: Any) -> None:
        """Values beside the rows."""
        self.content.update(values)
        if self.out is not None:
            write_json(self.out, self.content)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Text columns, the first row being the heading; the first column to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (cell for cell in row)
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def shown(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, `-` for none; no exponent."""
    if value is None:
        return "-"
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e" in text or abs(value) >= 10**digits else text


def verdict(name: str, value: float, target: float, *, at_most: bool = False) -> str:
    """One line: a target, what was measured, met or missed."""
    met = value <= target if at_most else value >= target
    word = "at most" if at_most else "at least"
    return f"{name}: {shown(value)} ({word} {target:g}: {'met' if met else 'missed'})"
