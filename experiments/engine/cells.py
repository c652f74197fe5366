"""Cells: one row of a grid each. A `Cell` is what an experiment asks for; a `Task` is what runs."""

from dataclasses import asdict, dataclass, field
from typing import Any

BACKENDS = ("torch", "jax")
PRECISIONS = ("float32", "bfloat16")
SAMPLERS = ("maskgit", "autoregressive")


@dataclass(frozen=True)
class Cell:
    """One setting of the sampler and what measures it: all that the numbers depend on, apart from
    weights, data and code.

    features: name of the feature network; empty stands for the preset's.
    sampler: "autoregressive" draws one token after the other; schedule and choice_temperature then
        mean nothing, and steps is the number of tokens (see `grid.autoregressive_cells`).
    precision: of the transformer while it samples; logits are float32 before a token is drawn.
    mode: how its forwards run, see `maskgit.sampling.compiled`.
    """

    experiment: str
    preset: str
    schedule: str
    steps: int
    seed: int
    num_samples: int
    choice_temperature: float = 4.5
    sampling_temperature: float = 1.0
    features: str = ""
    backend: str = "torch"
    sampler: str = "maskgit"
    precision: str = "float32"
    mode: str = "eager"

    def __post_init__(self) -> None:
        # 4 and 4.0 are one temperature, so they must be one key.
        object.__setattr__(self, "choice_temperature", float(self.choice_temperature))
        object.__setattr__(self, "sampling_temperature", float(self.sampling_temperature))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for result.json and for the key."""
        return asdict(self)


# What a cell has of these unless it is asked for something else.
USUAL: dict[str, str] = {
    name: getattr(Cell, name) for name in ("backend", "sampler", "precision", "mode")
}


@dataclass(frozen=True)
class Task:
    """A cell ready to run, for any experiment: the engine looks at nothing but these fields."""

    key: str
    cell: dict[str, Any] = field(hash=False)
    group: str = ""  # tasks of a group share what is dear to load (the weights of a transformer)
    cost: float = 1.0  # estimated, in any unit
    size: int = 1  # images, for the progress line
    spec: Any = field(default=None, hash=False)  # whatever the computer needs beside the cell

    @property
    def label(self) -> str:
        """The cell in a few words, for messages."""
        skip = ("experiment", "preset")
        return " ".join(
            f"{name}={value}"
            for name, value in self.cell.items()
            if name not in skip and USUAL.get(name) != value
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
