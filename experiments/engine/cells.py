"""Cells: one row of a grid each. A `Task` is a cell ready to run, an `Outcome` what came of it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

BACKENDS = ("torch", "jax")
PRECISIONS = ("float32", "bfloat16")
_FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s:;,'\"()/]+/)+")


@dataclass(frozen=True)
class Sampling:
    """The settings of a sampler: all that a cell's tokens depend on, apart from weights and code.

    sampler: a name of `experiments.sampler.samplers.SAMPLERS`. What a sampler has no use for stands
        at a fixed value, so that one request is one key (see `samplers.sampling`).
    precision: of the transformer while it samples; logits are float32 before a token is drawn.
    mode: how its forwards run, see `maskgit.sampling.compiled`.
    """

    sampler: str
    schedule: str
    steps: int
    seed: int
    num_samples: int
    choice_temperature: float
    sampling_temperature: float = 1.0
    backend: str = "torch"
    precision: str = "float32"
    mode: str = "eager"

    def __post_init__(self) -> None:
        # 4 and 4.0 are one temperature, so they must be one key.
        object.__setattr__(self, "choice_temperature", float(self.choice_temperature))
        object.__setattr__(self, "sampling_temperature", float(self.sampling_temperature))

    @classmethod
    def of(cls, cell: Mapping[str, Any]) -> "Sampling":
        """The settings among those of a cell."""
        return cls(**{item.name: cell[item.name] for item in fields(cls) if item.name in cell})

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a cell."""
        return asdict(self)


# Settings that a message about a cell leaves out where they have these values.
UNSAID = {"sampler": "maskgit", "backend": "torch", "precision": "float32", "mode": "eager"}


@dataclass(frozen=True)
class Task:
    """A cell ready to run, for any experiment: the engine looks at nothing but these fields."""

    key: str
    cell: dict[str, Any] = field(hash=False)
    group: str = ""  # tasks of a group share what is dear to load (the weights of a transformer)
    cost: float = 1.0  # estimated, in any unit
    size: int = 1  # images, for the progress line
    blocks: int = 1  # parts that several processes can make at a time, see `Computer.help`

    @property
    def label(self) -> str:
        """The cell in a few words, for messages."""
        skip = ("experiment", "preset")
        return " ".join(
            f"{name}={value}"
            for name, value in self.cell.items()
            if name not in skip and UNSAID.get(name) != value
        )


@dataclass(frozen=True)
class Outcome:
    """What a computer returns for a task.

    `metrics`, `missing` and `protocol` go into result.json and must be plain data that is the same
    whenever the cell is computed again; `arrays` go to samples.npz, `timing` to timing.json.
    """

    metrics: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)


class Computer(Protocol):
    """What computes the cells of an experiment. It travels to the workers, so it is picklable."""

    def start(self, worker: int, workers: int) -> None:
        """Called once per process before the first task: threads, device."""

    def compute(self, task: Task) -> Outcome:
        """The numbers of one task. An exception is recorded as the failure of this task alone."""

    def help(self, task: Task) -> bool:
        """Make one block of a task that another process computes, if there is one that nobody is
        at; whether there was."""


@dataclass(frozen=True)
class Build:
    """What an experiment makes of its options, for the command line and for a SLURM job alike.

    grid: see `grid.grid_json`. ready: called only if there is work left; it loads what the tasks
        need once, so that a damaged file is one clear error, and returns how many processes to
        take where no flag says so. most_workers: at most so many in any case. estimate: for tasks
        that are not done and a number of workers, lines of --dry-run on how long they take.
    """

    tasks: Sequence[Task]
    computer: Computer
    grid: dict[str, Any]
    ready: Callable[[], int] = lambda: 1
    most_workers: int | None = None
    estimate: Callable[[Sequence[Task], int], list[str]] | None = None

    def workers(self, wanted: int | None) -> int:
        """Processes for a wanted number (None: the usual one), once all is found `ready`."""
        usual = self.ready()
        count = usual if wanted is None else wanted
        return count if self.most_workers is None else min(count, self.most_workers)


def plain_reason(error: BaseException | str) -> str:
    """An error on one line, without the folders of absolute paths: results name no machine."""
    return _FOLDERS.sub(".../", " ".join(str(error).split()))
