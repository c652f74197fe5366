"""Options of all studies."""

from dataclasses import dataclass

from experiments.engine.options import SweepOptions


@dataclass(frozen=True)
class StudyOptions(SweepOptions):
    """Options of all studies; those of a sweep that a study does not use change nothing in it."""

    quick: bool = False
    """Fewer samples, to see that it runs; the numbers are then too noisy to say much."""


@dataclass(frozen=True)
class TableOptions(StudyOptions):
    """Options of the studies behind Tables 1 and 5."""

    T: str = ""
    """Iterations of MaskGIT. Default: the paper's for the preset, and 12."""
    cas_samples: int | None = None
    """Images the classifier of CAS is trained on; 0 leaves CAS out. Default: 4000 on embedded
    (400 with --quick), else 0."""
    cas_epochs: int = 0
    """Epochs of that training. Default (0): the recipe's (with --quick 4)."""
    cas_validation: int | None = None
    """Held-out images that CAS is the accuracy on. Default: 5000 (with --quick 1000)."""
    cas_seeds: str = "0"
    """Seeds of CAS: of the samples and of the training."""
