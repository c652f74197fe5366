"""Command lines from frozen dataclasses: tyro parses and writes --help; every error is one line.

tyro draws errors as boxes of several lines, so what a user can get wrong (an unknown flag, a
missing value, a word where a number belongs) is looked for first, here.
"""

import contextlib
import difflib
import io
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from experiments.engine.run.signals import Interrupted
from maskgit.common.errors import RunError, UsageError

T = TypeVar("T")
_EXPECTED: dict[type, str] = {int: "a whole number", float: "a number"}


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


def check_arguments(options: type, arguments: Sequence[str]) -> None:
    """Look for the mistakes that tyro would report as a box.

    Raises:
        UsageError: an unknown flag, a flag without its value, a value of the wrong type.
    """
    flags = _flags(options)
    waiting = list(arguments)
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


def parse(options: type[T], arguments: Sequence[str], prog: str, description: str) -> T:
    """Options from the words of a command line. `--help` prints and raises SystemExit(0).

    Raises:
        UsageError: anything wrong with the words.
    """
    import tyro

    if "--help" not in arguments and "-h" not in arguments:
        check_arguments(options, arguments)
        # `--out -x` is a value to us and to the shell; tyro would take it for a flag.
        arguments = _joined(options, arguments)
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


def _joined(options: type, arguments: Sequence[str]) -> list[str]:
    flags, joined, waiting = _flags(options), [], list(arguments)
    while waiting:
        word = waiting.pop(0)
        if "=" not in word and flags[word.replace("_", "-")] is not bool:
            word = f"{word}={waiting.pop(0)}"
        joined.append(word)
    return joined


def is_usage_error(error: BaseException) -> bool:
    """Whether it is a UsageError, or a kind of one: maskgit, eval and reports each have their own.

    By name, because importing those packages takes longer than --help may.
    """
    return any(kind.__name__ == "UsageError" for kind in type(error).__mro__)


def main(run: Callable[[Any], int], options: type, prog: str, description: str) -> None:
    """Parse the command line, run, and end the process with its exit code.

    Exit codes: 0 all cells done; 1 some failed; 2 the request is wrong (one line on stderr);
    130 or 143 ended by Ctrl-C or SIGTERM.
    """
    try:
        code = run(parse(options, sys.argv[1:], prog, description))
    except Interrupted as ended:
        print(f"{ended}; run the same command again to go on", file=sys.stderr)
        code = ended.exit_code
    except KeyboardInterrupt:
        code = 130
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except ValueError as error:
        if not is_usage_error(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    sys.exit(code)
