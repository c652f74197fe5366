"""What the tests of this folder share: damaged bytes, a call that must not hang, a command's end.

A function may return, or refuse its input with one of our errors. Anything else is a fault: another
exception, a hang, more memory than it may take. A command may end with a documented exit code and
at most one line of error. Everything here is drawn from a seed, so a fault found once is found
again.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maskgit.common.errors import UsageError
from tests.paths import ROOT

GIB = 1 << 30
TRACEBACK = "Traceback (most recent call last)"
# What a value of another type, or an impossible one, looks like in a JSON file.
STRANGE = (
    None, True, -1, 0, 2**63, 1e400, float("nan"), "", "x" * 5000, "../../x", "\ud800", [], [[]],
    {}, {"a": {}}, 0.5, "NaN", [None],
)  # fmt: skip


def issue16(point: str) -> Any:
    """A mark for a test that fails on today's code because of a point of issue 16.

    It is strict, so that the test shows when the point is mended, and takes nothing but a failed
    check for the failure, so that a test that is itself broken shows as well.
    """
    return pytest.mark.xfail(
        strict=True,
        raises=(AssertionError, pytest.fail.Exception),
        reason=f"issue 16: {point}",
    )


class Hang(BaseException):
    """A call did not come back in its time. It is no Exception, so that nothing swallows it."""


def fault(
    call: Callable[[], object],
    allowed: tuple[type[BaseException], ...] = (UsageError,),
    seconds: float = 5.0,
    memory: int = 2 * GIB,
) -> str:
    """What is wrong with how a call ended, in one line; "" if it returned or refused.

    allowed: exceptions that are a proper refusal. seconds: after which it counts as a hang.
    memory: bytes that it may map in addition to what the process has. Main thread only.
    """

    def ring(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + memory, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        call()
    except allowed:
        return ""
    except Hang:
        return f"did not come back within {seconds} s"
    except MemoryError:
        return f"wanted more than {memory >> 20} MiB"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:160]
        return f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return ""


@contextlib.contextmanager
def owner_rights() -> Iterator[None]:
    """Let root be refused by permissions like anybody else, in this thread, for a block."""
    library = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of Linux's capabilities, this thread
    held = (ctypes.c_uint32 * 6)()
    if library.capget(header, held):
        pytest.skip("the capabilities of this process cannot be read")
    before = held[0]
    held[0] = before & ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    library.capset(header, held)
    try:
        yield
    finally:
        held[0] = before
        library.capset(header, held)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes in a block, as a full disk or a quota does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _mapped() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


@dataclass(frozen=True)
class Ended:
    """How a command ended; `hung` if it had to be killed."""

    code: int
    out: str
    err: str
    hung: bool = False

    def fault(self, codes: Sequence[int] = (0, 1, 2), lines: int = 1) -> str:
        """What is wrong with it, in one line; "" for a proper end.

        codes: documented exit codes. lines: most lines of error after a code other than 0. What is
        said on stdout is a result, of as many lines as it wants.
        """
        if self.hung:
            return "it did not end in its time"
        if TRACEBACK in self.err or TRACEBACK in self.out:
            return f"a traceback: {self.err.strip().splitlines()[-1][:200]}"
        if self.code not in codes:
            return f"exit code {self.code}: {self.err[-200:]!r}"
        said = self.err.strip().splitlines()
        if self.code and len(said) > lines:
            return f"{len(said)} lines of error, the first {said[0][:120]!r}"
        if self.code and not said and not self.out.strip():
            return f"exit code {self.code} without a word"
        return ""


def run_command(
    *words: str | bytes | os.PathLike,
    seconds: float = 60.0,
    memory: int = 12 * GIB,
    cwd: Path | None = None,
    prefix: Sequence[str] = (),
    **environment: str | None,
) -> Ended:
    """Run `python WORDS...` with a limit on time and address space, and return how it ended.

    prefix: words before the interpreter, such as those of setpriv. environment: variables to set;
    None takes one away.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    variables = {name: value for name, value in variables.items() if value is not None}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    process = subprocess.Popen(
        [*prefix, sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd or ROOT,
        env=variables,
        preexec_fn=limit,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
        hung = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        hung = True
    return Ended(
        process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), hung
    )


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` damaged copies of a file's bytes, each with a word that says how."""
    random_ = random.Random(f"{seed} {len(content)}")
    for number in range(count):
        kind = ("flip", "flip", "byte", "cut", "swap", "grow", "zero", "empty")[number % 8]
        place = random_.randrange(max(1, len(content)))
        yield f"{kind} {place}", _damage(content, kind, place, random_)


def _damage(content: bytes, kind: str, place: int, random_: random.Random) -> bytes:
    held = bytearray(content)
    if kind == "empty" or not held:
        return b""
    if kind == "flip":
        held[place] ^= 1 << random_.randrange(8)
    elif kind == "byte":
        held[place] = random_.randrange(256)
    elif kind == "cut":
        del held[place:]
    elif kind == "swap":
        other = random_.randrange(len(held))
        size = random_.choice((1, 4, 16))
        first, second = held[place : place + size], held[other : other + size]
        held[place : place + size], held[other : other + size] = second, first
    elif kind == "grow":
        held[place:place] = random_.randbytes(random_.choice((1, 8, 4096)))
    elif kind == "zero":
        end = min(len(held), place + random_.choice((4, 64)))
        held[place:end] = bytes(end - place)
    return bytes(held)


def strange_json(content: Any, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` JSON texts like `content` with one value replaced by another type, removed or
    renamed, and a few that are no JSON at all."""
    random_ = random.Random(seed)
    text = json.dumps(content)
    special = {
        "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "digits": text.replace("1", "1" * 5000, 1).encode(),
        "BOM": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "not UTF-8": text.encode().replace(b'"', b'"\xff', 1),
        "list": b"[]",
        "null": b"null",
        "number": b"1",
        "infinity": b"Infinity",
        "text": b'"x"',
        "empty object": b"{}",
    }
    for number in range(count):
        if number < len(special):
            name = list(special)[number]
            yield name, special[name]
            continue
        changed = json.loads(text)
        places = list(_places(changed))
        holder, key = random_.choice(places)
        kind = random_.choice(("type", "type", "type", "remove", "double"))
        value = random_.choice(STRANGE)
        if kind == "type":
            holder[key] = value
        elif kind == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[f"{key}x"] = holder.pop(key)
        yield f"{kind} {key} {str(value)[:20]}", json.dumps(changed).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, held in list(items):
        yield value, key
        if isinstance(held, dict | list):
            yield from _places(held)


def report(faults: dict[str, str], tried: int) -> None:
    """Fail with the kinds of faults that were found, an example of each."""
    kinds: dict[str, list[str]] = {}
    for name, what in faults.items():
        kinds.setdefault(what.partition(":")[0] + what.rpartition("(")[2], []).append(name)
    lines = [f"{len(names)}x {faults[names[0]]}, such as {names[0]!r}" for names in kinds.values()]
    assert not faults, f"{len(faults)} faults in {tried} cases:\n" + "\n".join(lines)
