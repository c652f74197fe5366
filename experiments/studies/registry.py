"""The experiments by name. Each is a folder experiments/studies/NAME/ with

- experiment.py: its `Options`, and `build(options)`, which makes its cells and what runs them;
- compute.py: METRICS, the metrics that only it knows, and `compute(worker, cell)`;

and a script experiments/NAME.py. To add one, write these and its line in EXPERIMENTS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
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
        what: what of the paper it makes.
        module: its experiment.py.
        minutes: budget of a quick run on embedded, on two idle cores: an aim that its options were
            chosen for, not a measurement; every run of reproduce.py prints what each took.
        quick, full: its options in a quick and in a full run of reproduce.py, beside those that
            all share.
        one_seed: whether it shows pictures of one seed only.
    """

    what: str
    module: str
    minutes: float = 1.0
    quick: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)
    one_seed: bool = False

    @property
    def options(self) -> type[RunOptions]:
        """The class of its options."""
        return import_module(self.module).Options

    def build(self, options: RunOptions) -> Build:
        """Its cells, and what runs them.

        Raises:
            UsageError: the request cannot be met; nothing was computed.
        """
        return import_module(self.module).build(options)


_STUDIES = "experiments.studies"
# In the order of reproduce.py: what samples comes first, and the others find its tokens.
EXPERIMENTS = {
    "class_conditional": Experiment(
        "Table 1, Figures 5 and 11 to 13", f"{_STUDIES}.class_conditional.experiment", 3.0
    ),
    "rejection_sampling": Experiment("Table 4", f"{_STUDIES}.rejection_sampling.experiment", 1.5),
    "diversity": Experiment("Table 5", f"{_STUDIES}.diversity.experiment", 3.0),
    "ablate_schedule": Experiment(
        "Table 3, Figure 8",
        f"{_STUDIES}.ablate_schedule.experiment",
        2.5,
        quick={"T": "4,8,10,12,16,32,60", "num_samples": 50},
        full={"T": "4..60"},
    ),
    "decoding_trace": Experiment(
        "Figure 2", f"{_STUDIES}.decoding_trace.experiment", 0.2, one_seed=True
    ),
    "runtime": Experiment(
        "Figure 4",
        f"{_STUDIES}.runtime.experiment",
        1.5,
        quick={"batch_sizes": "1", "tokens": "64,256"},
    ),
    "editing": Experiment(
        "Table 2, Figures 6, 7, 14 and 16 to 20", f"{_STUDIES}.editing.experiment", 1.0
    ),
    "panorama": Experiment("Figure 15", f"{_STUDIES}.panorama.experiment", 0.4),
    "reconstruction": Experiment(
        "Figures 9 and 10",
        f"{_STUDIES}.reconstruction.experiment",
        1.0,
        quick={"ratios": "0,0.1..0.7:0.2,0.8..0.95:0.05,0.98"},
    ),
    "failure_cases": Experiment("Figure 21", f"{_STUDIES}.failure_cases.experiment", 0.5),
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
