"""Profiles: what a cluster wants to know about a job, in a TOML file with flat keys.

`--slurm a100` reads slurm/profiles/a100.toml of the package, or a100.toml in the folder that
MASKGIT_BENCH_PROFILES names; `--slurm path/to/my.toml` reads that file. `--slurm-set time=04:00:00`
overrides a key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from maskgit.common.errors import UsageError

FOLDER = Path(__file__).parent / "profiles"
VARIABLE = "MASKGIT_BENCH_PROFILES"
_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")


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
        """The time limit in whole minutes, at least 1."""
        return max(1, -(-parse_time(self.time, "time") // 60))


def parse_time(text: str, name: str) -> int:
    """Seconds of `90` (minutes), `HH:MM`, `HH:MM:SS` or `D-HH:MM:SS`.

    Raises:
        UsageError: none of these, or no time at all.
    """
    match = _TIME.fullmatch(text)
    if match:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    else:
        total = int(text) * 60 if text.isascii() and text.isdigit() else 0
    if total <= 0:
        raise UsageError(f"{name} {text}: expected minutes, HH:MM:SS or D-HH:MM:SS")
    return total


def load_profile(name: str, overrides: Sequence[str] = ()) -> Profile:
    """The profile of --slurm NAME, with the KEY=VALUE of every --slurm-set.

    Raises:
        UsageError: no such profile, not TOML, an unknown key, a value of another kind.
    """
    path = _find(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--slurm {name}: {path} is not readable as TOML ({error})") from None
    profile = Profile(path.stem)
    for key, value in content.items():
        profile = _set(profile, key, value, f"{path}")
    for text in overrides:
        key, equals, word = text.partition("=")
        if not equals:
            raise UsageError(f"--slurm-set {text}: expected KEY=VALUE, such as time=02:00:00")
        profile = _set(profile, key.strip(), _parsed(word.strip()), f"--slurm-set {text}")
    parse_time(profile.time, "time")
    return profile


def profile_names() -> list[str]:
    """The profiles that --slurm finds by name."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def _folders() -> list[Path]:
    own = os.environ.get(VARIABLE)
    return [*([Path(own).expanduser()] if own else []), FOLDER]


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        path = Path(name).expanduser()
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
    """A value as TOML reads it; what TOML does not know is a text."""
    try:
        return tomllib.loads(f"value = {word}")["value"]
    except tomllib.TOMLDecodeError:
        return word


def _set(profile: Profile, key: str, value: Any, where: str) -> Profile:
    hints = typing.get_type_hints(Profile)
    known = [f.name for f in fields(Profile) if f.name != "name"]
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        raise UsageError(f"{where}: no key {key!r}; {meant}")
    hint = hints[key]
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if key == "time" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if key == "setup":
        right = isinstance(value, list) and all(isinstance(line, str) for line in value)
        wanted, value = "a list of shell lines", tuple(value) if right else value
    elif key == "environment":
        right, wanted = isinstance(value, dict), "a table of texts"
        value = {name: str(text) for name, text in value.items()} if right else value
    elif hint is float:
        right, wanted = isinstance(value, int | float) and value > 0, "a number above 0"
        right &= not isinstance(value, bool)
    elif hint is int:
        least = 0 if key in ("gpus", "max_timeouts") else 1
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        wanted = f"a whole number of at least {least}"
    else:
        right, wanted = isinstance(value, str), "a text"
    if not right:
        raise UsageError(f"{where}: {key} is {value!r}; expected {wanted}")
    return replace(profile, **{key: value})
