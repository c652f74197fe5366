"""The experiments by name. Each is a folder experiments/studies/NAME/ with

- experiment.py: its `Options`, and `build(options)`, which makes its cells and what runs them;
- compute.py: METRICS, the metrics that only it knows, and `compute(worker, cell)`;

and a script experiments/NAME.py. To add one, write these and its line in EXPERIMENTS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from maskgit.common.cli import suggestion
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.engine.cells import Build
    from experiments.engine.options import RunOptions


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: of its folder and of its script.
        what: what of the paper it makes.
        minutes: budget of a quick run on embedded, on two idle cores: an aim that its options were
            chosen for, not a measurement; every run of reproduce.py prints what each took.
        quick, full: its options in a quick and in a full run of reproduce.py, beside those that
            all share.
        one_seed: whether it shows pictures of one seed only.
        module: its experiment.py, where that is not in its folder.
    """

    name: str
    what: str
    minutes: float
    quick: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)
    one_seed: bool = False
    module: str = ""

    def _module(self) -> ModuleType:
        return import_module(self.module or f"experiments.studies.{self.name}.experiment")

    @property
    def options(self) -> type[RunOptions]:
        """The class of its options."""
        return self._module().Options

    def build(self, options: RunOptions) -> Build:
        """Its cells, and what runs them.

        Raises:
            UsageError: the request cannot be met; nothing was computed.
        """
        return self._module().build(options)


# In the order of reproduce.py: what samples comes first, and the others find its tokens.
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("class_conditional", "Table 1, Figures 5 and 11 to 13", 3.0),
        Experiment("rejection_sampling", "Table 4", 1.5),
        Experiment("diversity", "Table 5", 3.0),
        Experiment(
            "ablate_schedule",
            "Table 3, Figure 8",
            2.5,
            quick={"T": "4,8,10,12,16,32,60", "num_samples": 50},
            full={"T": "4..60"},
        ),
        Experiment("decoding_trace", "Figure 2", 0.2, one_seed=True),
        Experiment("runtime", "Figure 4", 1.5, quick={"batch_sizes": "1", "tokens": "64,256"}),
        Experiment("editing", "Table 2, Figures 6, 7, 14 and 16 to 20", 1.0),
        Experiment("panorama", "Figure 15", 0.4),
        Experiment(
            "reconstruction",
            "Figures 9 and 10",
            1.0,
            quick={"ratios": "0,0.1..0.7:0.2,0.8..0.95:0.05,0.98"},
        ),
        Experiment("failure_cases", "Figure 21", 0.5),
    )
}


def get_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in EXPERIMENTS:
        raise UsageError(
            f"experiment {name}: unknown{suggestion(name, EXPERIMENTS)}; one of "
            f"{', '.join(EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]
