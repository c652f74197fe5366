"""Options of all studies."""

from dataclasses import dataclass

from experiments.engine.options import SweepOptions


@dataclass(frozen=True)
class StudyOptions(SweepOptions):
    """Options of all studies; those of a sweep that a study does not use change nothing in it."""

    quick: bool = False
    """Fewer samples, to see that it runs; the numbers are then too noisy to say much."""
