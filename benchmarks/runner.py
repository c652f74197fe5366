"""What the benchmarks share: command lines, cases in fresh processes, result files, tables.

Every case runs in a process of its own (`in_fresh_process`): the peak memory is its own, its
environment can differ, and a case that the processor kills takes no other with it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from maskgit.common.cli import ArgumentParser
from maskgit.common.device import available_cores
from maskgit.common.errors import RunError, UsageError
from maskgit.common.files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]  # one measurement of a result file
Columns = Mapping[str, Callable[[Row], str]]  # heading -> the text of a cell

PRECISIONS = ("float32", "bfloat16")
# A CPU without AMX, or a virtual machine that announces AMX and then refuses it, needs this.
NO_AMX = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
BFLOAT16_PRODUCTS = """
import torch
x = torch.randn(1028, 768).bfloat16()
for _ in range(20):
    y = torch.mm(x, x.t())
print(int(bool(torch.isfinite(y).all())))
"""
_EXCEPTION = re.compile(r"[A-Za-z_.]+(Error|Exception)\b.*: ")


# The command line


class Parser(ArgumentParser):
    """The parser of a benchmark, described by the first line of a docstring."""

    def __init__(self, doc: str | None):
        super().__init__(description=(doc or "").partition("\n")[0])

    def add_out(self) -> None:
        """Add --out, which every benchmark has."""
        self.add_argument("--out", type=Path, default=None, help="result file, JSON")

    def add_cases(self, sizes: Sequence[str], modes: Sequence[str], repeats: int) -> None:
        """Add the flags of every benchmark that goes through `run_cases`."""
        self.add_argument("--sizes", type=several(sizes), default=sizes[:1], help=",".join(sizes))
        self.add_argument("--precision", type=several(PRECISIONS), default=["float32"])
        self.add_argument("--mode", type=several(modes), default=["eager"], help=",".join(modes))
        self.add_argument("--quick", action="store_true", help="the cases of make bench")
        self.add_argument("--repeats", type=at_least_one, default=repeats)
        self.add_argument("--threads", type=at_least_one, help="default: all cores")
        self.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
        self.add_argument("--case", help="one case as a JSON object, in this process")
        self.add_out()


def at_least_one(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)


def numbers(text: str) -> list[int]:
    """An argparse type: whole numbers from 1 on, separated by commas."""
    return [at_least_one(word) for word in text.split(",")]


def several(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An argparse type: some of the known words, separated by commas."""

    def parse(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r}: expected some of {','.join(known)}")
        return words

    return parse


# Cases in fresh processes


def in_fresh_process(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, limit: float = 3600
) -> Any:
    """Run a Python script and read the JSON value that it prints last on stdout.

    Raises:
        RunError: the process ended with an error, was killed (the message names the signal), or
            took longer than `limit` seconds.
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
        raise RunError(f"took longer than {limit:.0f} s") from None
    if done.returncode < 0:
        raise RunError(f"killed by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        raise RunError(reason_of(done.stderr) or f"exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def reason_of(stderr: str) -> str:
    """The line of a process's stderr that says why it failed.

    This is the last line that names an exception, as libraries add advice after it; without one
    it is the last line.
    """
    lines = stderr.strip().splitlines() or [""]
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines)[-1].removeprefix("error: ")


@functools.cache
def bfloat16_environment(device: str) -> Mapping[str, str]:
    """The environment that a bfloat16 case needs on this machine.

    Raises:
        RunError: bfloat16 products do not run here; the message says why.
    """
    if device != "cpu":
        return {}
    for environment in ({}, NO_AMX):
        try:
            if in_fresh_process(["-c", BFLOAT16_PRODUCTS], environment=environment):
                return environment
            reason = "its products are not finite"
        except RunError as error:
            reason = str(error)
    raise RunError(f"bfloat16 does not run on this machine: {reason}")


def run_cases(
    script: str,
    cases: Iterable[Any],
    results: Results,
    columns: Columns,
    targets: Callable[[list[Row]], list[str]],
    device: str,
) -> int:
    """Measure every case through `script --case JSON`; print the table and the targets.

    cases: dataclasses with `name` and `precision`. Returns the exit code: 1 when a case could not
    be measured.
    """
    rows, code = [], 0
    for case in cases:
        print(f"{case.name} ...", file=sys.stderr)
        command = [script, "--case", json.dumps(asdict(case))]
        try:
            environment = bfloat16_environment(device) if case.precision == "bfloat16" else {}
            row = in_fresh_process(command, environment=environment)
        except RunError as error:
            print(f"{case.name}: not measured: {error}", file=sys.stderr)
            code = 1
            continue
        row["environment"] = dict(environment)
        rows.append(row)
        results.add(row)
    if rows:
        print("\n".join([table(columns, rows), *targets(results.rows)]))
    return code


# Clocks and the machine


def seconds_of(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Call each function in turn, `repeats` rounds; every second round runs backwards.

    Returns name -> what the calls returned, usually their own seconds.
    """
    found: dict[str, list[Any]] = {name: [] for name in functions}
    for turn in range(repeats):
        names = list(functions) if turn % 2 == 0 else list(functions)[::-1]
        for name in names:
            found[name].append(functions[name]())
    return found


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine and the versions of the libraries."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    described = {
        "processor": names[0] if names else platform.processor(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in ("torch", "jax"):
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            continue
    if device != "cpu":
        import torch

        described["device"] = torch.cuda.get_device_name(device)
        described["cuda"] = torch.version.cuda
    return {key: value for key, value in described.items() if value}


def peak_mib() -> float:
    """The most host memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with the memory of the parent
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high.split()[1]) / 2**10
    import resource  # there is none on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


# Result files


class Results:
    """The rows of a benchmark, merged into the result file `out` as they come.

    Rows of an older file stay where the machine and the libraries are the same and no new row has
    their name, so a long benchmark can be run in parts.

    Raises:
        UsageError: `out` is a file that is not JSON; it is left as it is.
    """

    def __init__(self, benchmark: str, device: str, out: Path | None):
        self.out = out
        self.content: dict[str, Any] = {"benchmark": benchmark, "machine": machine(device)}
        self.content["rows"] = []
        if out is not None and out.is_file():
            try:
                before = json.loads(out.read_text())
            except ValueError:
                raise UsageError(
                    f"--out {out}: the file is not JSON; remove it or name another"
                ) from None
            if before.get("machine") == self.content["machine"]:
                self.content = before
            else:
                print(f"--out {out}: is of another machine and is begun anew", file=sys.stderr)

    @property
    def rows(self) -> list[Row]:
        """All rows, those of the older file included."""
        return self.content["rows"]

    def add(self, row: Row) -> None:
        """Put a row in the place of the older one of its name, or at the end; write the file."""
        names = [old["name"] for old in self.rows]
        if row["name"] in names:
            self.rows[names.index(row["name"])] = row
        else:
            self.rows.append(row)
        if self.out is not None:
            write_json(self.out, self.content, "--out")


def rounded(row: Row) -> Row:
    """The row with six significant digits in every float."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}


# Tables and targets


def table(columns: Columns, rows: Iterable[Row]) -> str:
    """The rows as Markdown, for a terminal and for docs/performance.md alike."""
    return text_table([list(columns), *([cell(row) for cell in columns.values()] for row in rows)])


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown of texts, the first line being the heading; the first column is left-aligned."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    made = []
    for first, *others in lines:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        made.append("| " + " | ".join(cells) + " |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([made[0], "| " + " | ".join(rule) + " |", *made[1:]])


def shown(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent; `-` for none."""
    if value is None:
        return "-"
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e" in text or abs(value) >= 10**digits else text


def number(key: str, digits: int = 3) -> Callable[[Row], str]:
    """A column: the number under `key`."""
    return lambda row: shown(row[key], digits)


def peak(row: Row) -> str:
    """A column: the most memory of the device that computed, in MiB."""
    return f"{row.get('peak_device_mib', row['peak_mib']):,.0f}"


def median(row: Row) -> float:
    """The median of a row's `seconds`."""
    return statistics.median(row["seconds"])


def verdict(name: str, value: float, target: float, *, at_most: bool = False) -> str:
    """One line: a target, what was measured, met or missed."""
    met = value <= target if at_most else value >= target
    word = "at most" if at_most else "at least"
    return f"{name}: {shown(value)} ({word} {target:g}: {'met' if met else 'missed'})"
