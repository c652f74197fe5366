"""Command lines: tyro or argparse parses and writes --help; every error of a command is one line.

tyro draws errors as boxes of several lines. What a user can get wrong with the flags of one
dataclass (an unknown flag, a missing value, a word where a number belongs) is looked for first,
here; of any other box the reason is kept as one line.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import functools
import io
import math
import os
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import tyro

from maskgit.common.errors import Interrupted, RunError, UsageError

_EXPECTED: dict[type, str] = {int: "a whole number", float: "a number"}
_LONGEST_NAME = 255  # bytes of the name of a file or folder
_LONGEST = 1000  # characters of an error; the words of a command line may be far longer


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


def check_not_empty(arguments: Iterable[str]) -> None:
    """Raise a UsageError for a word or a value that is empty, as a variable that is not set gives.

    An empty path would mean the current folder.
    """
    before = ""
    for word in arguments:
        flag, equals, value = word.partition("=")
        if not word or (flag.startswith("--") and equals and not value):
            flag = flag or (before if before.startswith("--") else "an argument")
            raise UsageError(f"{flag}: the value is empty; is a variable not set?")
        before = word


def check_values(values: Mapping[str, object]) -> None:
    """Raise a UsageError for a number that is not finite and a path that no file can have."""
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag} {value}: expected a finite number")
        if isinstance(value, Path) and any(
            len(os.fsencode(p)) > _LONGEST_NAME for p in value.parts
        ):
            raise UsageError(f"{flag} {value}: a name has more than {_LONGEST_NAME} bytes")


class ArgumentParser(argparse.ArgumentParser):
    """argparse with the project's errors, one line, and without abbreviated flags."""

    def __init__(self, **settings: Any) -> None:
        shape = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"formatter_class": shape, "allow_abbrev": False, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it.

        Raises:
            UsageError: anything wrong with the words.
        """
        args = sys.argv[1:] if args is None else args
        check_not_empty(args)
        options, rest = super().parse_known_args(args, namespace)
        check_values(vars(options))
        return options, rest

    def error(self, message: str) -> NoReturn:
        """Raise the error, where argparse would print its usage and leave."""
        raise UsageError(f"{message.removeprefix('argument ')}; see --help")


def parse(command: Any, arguments: Sequence[str], prog: str, description: str | None) -> Any:
    """What the words of a command line ask for. `--help` prints and raises SystemExit(0).

    command: a dataclass of options, a union of dataclasses with tyro's names of subcommands, a
    function whose parameters are the flags, or {subcommand: function}. For a dataclass the result
    is one; for a function it is the function with its arguments, to be called.

    A class of options may have `ALIASES`, a ClassVar such as {"--steps": "--T"}: flags of former
    versions, which are understood and not shown.

    Raises:
        UsageError: anything wrong with the words.
    """
    check_not_empty(arguments)
    arguments = without_aliases(arguments, getattr(command, "ALIASES", {}))
    settings: dict[str, Any] = {"args": arguments, "prog": prog, "description": description}
    read: Any = tyro.cli
    if isinstance(command, dict):
        read = tyro.extras.subcommand_cli_from_dict
        command = {name: _deferred(function) for name, function in command.items()}
    elif is_dataclass(command):
        settings["config"] = (tyro.conf.FlagCreatePairsOff,)
        if "--help" not in arguments and "-h" not in arguments:
            settings["args"] = _checked(typing.cast(type, command), arguments)
    elif isinstance(command, types.FunctionType):
        command = _deferred(command)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            asked = read(command, **settings)
    except SystemExit as ended:
        if ended.code in (0, None):
            raise
        raise UsageError(f"{_reason(said.getvalue())}; see --help") from None
    check_values(asked.keywords if isinstance(asked, functools.partial) else vars(asked))
    return asked


def _deferred(function: Callable[..., object]) -> Callable[..., Callable[[], object]]:
    """The function for tyro, which calls it: so that only parsing happens while tyro works."""

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Callable[[], object]:
        return functools.partial(function, *values, **named)

    return call


def _reason(box: str) -> str:
    """The first paragraph of an error as tyro draws it."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    rule = next((n for n, line in enumerate(lines) if line and not line.strip("─")), len(lines))
    return " ".join(lines[:rule]).strip(" .") or "the command line cannot be read"


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
    after another signal, with the words of `interrupted` on stderr. A reader of stdout that went
    away (`| head`) ends the command as SIGPIPE would, without a word.
    """
    _print_any_name()
    try:
        code = command()
        sys.stdout.flush()
    except UsageError as error:
        return _say(str(error), 2)
    except RunError as error:
        return _say(str(error), 1)
    except BrokenPipeError:
        # Python would flush the rest when it ends, and say that it could not.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        of_the_user = error.errno == errno.ENAMETOOLONG
        return _say(f"{name}{error.strerror or error}", 2 if of_the_user else 1)
    except Interrupted as ended:
        print(f"{ended}; run the same command again to go on", file=sys.stderr)
        return ended.exit_code
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


def _print_any_name() -> None:
    """Let both streams print file names that are not UTF-8, as \\udcff."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(message: str, code: int) -> int:
    text = " ".join(message.split())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    print(f"error: {text}", file=sys.stderr)
    return code


def main(run: Callable[[Any], int], options: type, prog: str, description: str) -> None:
    """Parse the command line, run, and end the process with the exit code of `exit_code`."""
    sys.exit(exit_code(lambda: run(parse(options, sys.argv[1:], prog, description)), ""))
