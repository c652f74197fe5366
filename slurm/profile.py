"""Profiles: what a cluster has to know about a job, in a TOML file with flat keys.

`--slurm a100` reads slurm/profiles/a100.toml of the package, or a100.toml in the folder that
MASKGIT_BENCH_PROFILES names; `--slurm path/to/my.toml` reads that file. `--slurm-set time=04:00:00`
overrides a key.
"""

from __future__ import annotations

import datetime
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from maskgit.common.cli import suggestion
from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import without_tilde

FOLDER = Path(__file__).parent / "profiles"
VARIABLE = "MASKGIT_BENCH_PROFILES"
_UNLIMITED = ("0", "UNLIMITED", "INFINITE")
# The forms of sbatch --time: what the numbers between the colons are.
_TIMES = {
    r"(?P<minutes>\d+)(:(?P<seconds>\d\d?))?",
    r"(?P<hours>\d+):(?P<minutes>\d\d?):(?P<seconds>\d\d?)",
    r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>\d\d?)(:(?P<seconds>\d\d?))?)?",
}
_MAY_BE_ZERO = ("gpus", "max_timeouts")


@dataclass(frozen=True)
class Profile:
    """One kind of job. Everything but the name may stand in the file; the rest has defaults.

    Keys of SLURM, as sbatch's flags: partition, account, qos, constraint, mem, time, nodes. Ours:
    gpus and cpus (of each task), workers_per_gpu (processes of a sweep that share one, so that one
    samples while the other measures), tasks_per_node (training starts a process per GPU), max_array
    (most tasks of one array), array_parallelism (most of them at a time), shard_hours (work in one
    shard, when the time of a forward is known), seconds_per_forward (of one image, measured on
    this hardware), setup (shell lines before the job), python (interpreter), container (words put
    before the interpreter), environment (variables), max_timeouts (requeues after a time limit).
    """

    name: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 0
    workers_per_gpu: int = 2
    cpus: int = 4
    mem: str = "16G"
    time: str = "04:00:00"
    nodes: int = 1
    tasks_per_node: int = 1
    max_array: int = 1000
    array_parallelism: int = 32
    shard_hours: float = 1.0
    seconds_per_forward: float | None = None
    signal_delay: int = 90
    max_timeouts: int = 100
    setup: tuple[str, ...] = ()
    python: str | None = None
    container: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes as sbatch rounds it, up; 0 for no limit."""
        return -(-parse_time(self.time) // 60)


def parse_time(text: str) -> int:
    """Seconds of a time limit in any form of sbatch; 0 for no limit.

    The forms are MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS, UNLIMITED and 0.

    Raises:
        UsageError: the text is none of these.
    """
    if text.upper() in _UNLIMITED:
        return 0
    for form in _TIMES:
        match = re.fullmatch(form, text, re.ASCII)
        if match:
            parts = {unit: int(number) for unit, number in match.groupdict("0").items()}
            seconds = int(datetime.timedelta(**parts).total_seconds())
            if seconds:
                return seconds
    raise UsageError(
        f"time {text}: expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED, "
        "as for sbatch"
    )


def load_profile(name: str, overrides: Sequence[str] = ()) -> Profile:
    """The profile of --slurm NAME, with the KEY=VALUE of every --slurm-set.

    Raises:
        UsageError: no such profile, not TOML, an unknown key, a value of another kind.
    """
    path = _find(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # bytes that are no UTF-8 too
        raise UsageError(
            f"--slurm {name}: {path} is not readable as TOML ({one_line(error)})"
        ) from None
    profile = Profile(path.stem)
    for key, value in content.items():
        profile = _set(profile, key, value, f"{path}")
    for text in overrides:
        key, equals, word = text.partition("=")
        if not equals:
            raise UsageError(f"--slurm-set {text}: expected KEY=VALUE, such as time=02:00:00")
        profile = _set(profile, key.strip(), _parsed(word.strip()), f"--slurm-set {text}")
    parse_time(profile.time)
    return profile


def profile_names() -> list[str]:
    """The profiles that --slurm finds by name."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def _folders() -> list[Path]:
    own = os.environ.get(VARIABLE)
    return [*([without_tilde(own)] if own else []), FOLDER]


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        path = without_tilde(name)
        if not path.is_file():
            raise UsageError(f"--slurm {name}: no such file")
        return path
    for folder in _folders():
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise UsageError(
        f"--slurm {name}: expected one of {', '.join(profile_names())}, or the path of a TOML file "
        f"(more are looked for in ${VARIABLE})"
    )


def _parsed(word: str) -> Any:
    """A word of the command line as TOML reads it; any other word is a text.

    So is a time: 08:00:00 is a time of day to TOML, and 16 may be the text of a key.
    """
    try:
        value = tomllib.loads(f"value = {word}")["value"]
    except (ValueError, RecursionError):
        return word
    return word if isinstance(value, datetime.date | datetime.time) else value


def _set(profile: Profile, key: str, value: Any, where: str) -> Profile:
    kinds = {item.name: item.type for item in fields(Profile) if item.name != "name"}
    if key not in kinds:
        meant = suggestion(key, kinds) or f"; expected one of {', '.join(kinds)}"
        raise UsageError(f"{where}: no key {key!r}{meant}")
    kind = str(kinds[key]).removesuffix(" | None")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "str":
        # TOML reads account = 12345 as a number and time = 08:00:00 as a time of day.
        right, wanted = isinstance(value, str | datetime.time) or is_number, "a text"
        value = str(value) if right else value
    elif kind == "float":
        right = is_number and math.isfinite(value) and value > 0
        wanted = "a number above 0, and finite"
    elif kind == "int":
        least = 0 if key in _MAY_BE_ZERO else 1
        right = is_number and isinstance(value, int) and value >= least
        wanted = f"a whole number of at least {least}"
    elif key == "setup":
        right = isinstance(value, list) and all(isinstance(line, str) for line in value)
        wanted, value = "a list of shell lines", tuple(value) if right else value
    else:
        right, wanted = isinstance(value, dict), "a table of texts"
        value = {name: str(text) for name, text in value.items()} if right else value
    if not right:
        raise UsageError(f"{where}: {key} is {value!r}; expected {wanted}")
    return replace(profile, **{key: value})
