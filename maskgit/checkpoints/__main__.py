"""`python -m maskgit.checkpoints fetch|inspect|convert`: official weights on this machine.

    fetch                    the four released files, checked, to the cache folder
    inspect PATH             every array with its shape and number of parameters
    convert SOURCE OUT       an official file to a folder of ours, or with --to flax the way back

Results go to stdout, progress to stderr. Exit code 2: input that cannot be used.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from maskgit.checkpoints import commands
from maskgit.common.cli import exit_code


@dataclass(frozen=True)
class FetchCommand:
    """Download the official checkpoints, once; later calls check them.

    An interrupted download goes on with the same command. Size and sha256 of the first download are
    recorded next to each file, and every later use of the file is held against them.
    """

    preset: str | None = None
    """The preset whose files to fetch; default: all four official files."""
    folder: Path | None = None
    """Where to; default: checkpoints/ in $MASKGIT_BENCH_CACHE or ~/.cache/maskgit-bench."""
    url: str | None = None
    """Address of a folder with the files, such as a mirror; default: the official one."""


@dataclass(frozen=True)
class InspectCommand:
    """List the arrays of an official file or of a folder of ours."""

    path: tyro.conf.Positional[Path]
    num_codes: int | None = None
    """How many entries of a transformer's vocabulary are codes (an official file does not say)."""
    verify: bool = False
    """Also compare the whole file with its record."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class ConvertCommand:
    """Rewrite a model in the other format, and read it back to compare."""

    source: tyro.conf.Positional[Path]
    """An official file, or a folder of ours."""
    out: tyro.conf.Positional[Path]
    """A folder; with --to flax a file. A folder that holds a model is replaced."""
    to: Literal["safetensors", "flax"] = "safetensors"
    num_codes: int | None = None
    """As for inspect."""
    half: bool = False
    """Store float16 (safetensors only)."""


Command = (
    Annotated[FetchCommand, tyro.conf.subcommand("fetch")]
    | Annotated[InspectCommand, tyro.conf.subcommand("inspect")]
    | Annotated[ConvertCommand, tyro.conf.subcommand("convert")]
)


def run(command: Command) -> None:
    """Do what the command line asks."""
    if isinstance(command, FetchCommand):
        commands.fetch_files(command.preset, command.folder, command.url)
    elif isinstance(command, InspectCommand):
        commands.inspect(command.path, command.num_codes, command.verify, command.as_json)
    else:
        commands.convert(command.source, command.out, command.to, command.num_codes, command.half)


def main() -> None:
    """Parse the command line; one line and exit code 2 for bad input."""

    def command() -> None:
        run(tyro.cli(Command, prog="python -m maskgit.checkpoints", description=__doc__))

    if code := exit_code(command, "stopped; the same command goes on from what has arrived"):
        sys.exit(code)


if __name__ == "__main__":
    main()
