"""Command lines from frozen dataclasses: tyro parses and writes --help; every error is one line.

tyro draws errors as boxes of several lines, so what a user can get wrong (an unknown flag, a
missing value, a word where a number belongs) is looked for first, here.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import tyro

from maskgit.common.errors import Interrupted, RunError, UsageError

T = TypeVar("T")
_EXPECTED: dict[type, str] = {int: "a whole number", float: "a number"}


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean cosine?)` if a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _flags(options: type) -> dict[str, type]:
    """`--num-samples` -> int for every field of a dataclass; `X | None` counts as X."""
    hints = typing.get_type_hints(options)
    flags = {}
    for item in fields(options):
        hint = hints[item.name]
        if isinstance(hint, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        flags["--" + item.name.replace("_", "-")] = hint
    return flags


def _checked(options: type, arguments: Sequence[str]) -> list[str]:
    """The words of a command line, each flag joined to its value by an equals sign.

    `--out -x` is a value to us and to the shell; tyro would take it for a flag.

    Raises:
        UsageError: an unknown flag, a flag without its value, a value of the wrong type.
    """
    flags, joined, waiting = _flags(options), [], list(arguments)
    while waiting:
        word = waiting.pop(0)
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        if not word.startswith("--"):
            raise UsageError(f"{word!r} does not belong to a flag; see --help")
        if flag not in flags:
            near = difflib.get_close_matches(flag, flags, n=1)
            meant = f"did you mean {near[0]}?" if near else f"one of {', '.join(flags)}"
            raise UsageError(f"{flag}: no such flag; {meant}")
        if flags[flag] is bool:
            if equals:
                raise UsageError(f"{flag} takes no value, got {value!r}")
            joined.append(flag)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UsageError(f"{flag} needs a value after it")
            value = waiting.pop(0)
        try:
            if flags[flag] in _EXPECTED:
                flags[flag](value)
        except ValueError:
            raise UsageError(f"{flag} {value}: expected {_EXPECTED[flags[flag]]}") from None
        joined.append(f"{flag}={value}")
    return joined


def parse(options: type[T], arguments: Sequence[str], prog: str, description: str) -> T:
    """Options from the words of a command line. `--help` prints and raises SystemExit(0).

    A class of options may have `ALIASES`, a ClassVar such as {"--steps": "--T"}: flags of former
    versions, which are understood and not shown.

    Raises:
        UsageError: anything wrong with the words.
    """
    arguments = without_aliases(arguments, getattr(options, "ALIASES", {}))
    if "--help" not in arguments and "-h" not in arguments:
        arguments = _checked(options, arguments)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                options,
                args=list(arguments),
                prog=prog,
                description=description,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as ended:
        if ended.code in (0, None):
            raise
        text = " ".join(said.getvalue().translate(dict.fromkeys(map(ord, "╭─╮│╰╯"), " ")).split())
        raise UsageError(text or "the command line cannot be read; see --help") from None


def without_aliases(arguments: Sequence[str], aliases: dict[str, str]) -> list[str]:
    """The words of a command line with each flag of a former version in its present form."""
    words = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        words.append(aliases.get(flag, flag) + equals + value)
    return words


def exit_code(command: Callable[[], object], interrupted: str = "interrupted") -> int:
    """Run the function of a command line and return its exit code.

    Returns what the function returns if that is an int, else 0; 1 for a run that failed (one line
    on stderr); 2 for what the user can correct (one line); 130 after Ctrl-C and 128 + its number
    after another signal, with the words of `interrupted` on stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be text; printing one shall not end a command.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = command()
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as ended:
        print(f"{ended}; run the same command again to go on", file=sys.stderr)
        return ended.exit_code
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


def main(run: Callable[[Any], int], options: type, prog: str, description: str) -> None:
    """Parse the command line, run, and end the process with the exit code of `exit_code`."""
    sys.exit(exit_code(lambda: run(parse(options, sys.argv[1:], prog, description)), ""))
