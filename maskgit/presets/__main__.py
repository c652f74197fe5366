"""`python -m maskgit.presets new FILE.toml --data PICTURES`: a preset for images of one's own.

It looks at the images, proposes sizes and budgets with the reasons as comments, and prints what to
type next. The file is yours: change what you like.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import tyro

from maskgit.common.cli import exit_code, parse
from maskgit.common.errors import UsageError
from maskgit.common.files import atomic_write
from maskgit.presets.files import NAMES, load_preset


def new(
    file: tyro.conf.Positional[Path],
    data: str,
    size: int | None = None,
    width: int | None = None,
    unconditional: bool = False,
    budget: str = "1h",
    skip_broken: bool = False,
    force: bool = False,
) -> None:
    """Write a preset's file for a folder, an archive, arrays or a named data set.

    Args:
        file: the TOML file to write.
        data: where the images are, as docs/own-data.md says.
        size: pixels a side, or the height; default: by the images.
        width: where images are not square.
        unconditional: leave the classes out.
        budget: time that all trainings may take here, such as 20m or 1h.
        skip_broken: leave out files that are no images.
        force: write over a file that is there.
    """
    from maskgit.presets.propose import propose

    if file.suffix != ".toml":
        raise UsageError(f"{file}: expected the name of a .toml file")
    if file.exists() and not force:
        raise UsageError(f"{file}: is there already; --force writes over it")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file}: no such folder {file.parent}")
    text, words = propose(data, (size, width), unconditional, seconds_of(budget), skip_broken)
    load_preset(text)  # whatever it is, it must be a preset
    atomic_write(file, text.encode())
    preset = shlex.quote(str(file))
    print("\n".join(words))
    print(f"""{file}: read it, change it, then
  python experiments/train.py --preset {preset} --max-steps 50    # a first try
  python experiments/train.py --preset {preset}
  python experiments/ablate_schedule.py --preset {preset}""")


def seconds_of(budget: str) -> float:
    """Seconds of `90s`, `20m`, `1h` or `1.5h`.

    Raises:
        UsageError: anything else, or nothing at all.
    """
    try:
        seconds = float(budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[budget[-1:]]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 1 <= seconds < 1e9:
        raise UsageError(f"--budget {budget}: expected a time such as 20m or 1h")
    return seconds


def list_() -> None:
    """Print the names of the presets that come with the package."""
    print("\n".join(NAMES))


def main() -> None:
    """Parse the command line; one line and exit code 2 for bad input."""
    commands = {"new": new, "list": list_}
    prog = "python -m maskgit.presets"
    sys.exit(exit_code(lambda: parse(commands, sys.argv[1:], prog, __doc__)()))


if __name__ == "__main__":
    main()
