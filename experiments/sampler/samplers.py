"""The samplers: what each needs, and the code that draws and decodes its tokens in each library.

To add one, write a module with `load` and `draw` (as `sampling.py`) and its entry in SAMPLERS. A
cell's `sampler` is the name of an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from experiments.engine.cells import BACKENDS, PRECISIONS, Sampling
from experiments.engine.fingerprint import fingerprint
from maskgit.common.errors import UsageError
from maskgit.sampling.compiled import MODES

if TYPE_CHECKING:
    from maskgit.presets import Preset


SCHEDULE = "cosine"  # of the experiments that need one transformer: the paper's choice


@dataclass(frozen=True)
class Code:
    """A module that computes one stage of a cell, and the sources that its fingerprint covers.

    Attributes:
        name: of the module.
        also: modules that it reaches by names which its imports do not show, such as those of a
            lazy package.
        without: modules that its imports reach and that it does not run: sampling needs no
            tokenizer, although `maskgit.checkpoints` imports it.
        precisions, modes: what a sampler's forwards can run in.
    """

    name: str
    also: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    modes: tuple[str, ...] = ("eager",)

    @property
    def module(self) -> ModuleType:
        """The module itself, imported now."""
        return import_module(self.name)

    @property
    def fingerprint(self) -> str:
        """Changes when the sources do; see `experiments.engine.fingerprint`."""
        return fingerprint(self.name, *self.also, without=self.without)


@dataclass(frozen=True)
class Sampler:
    """One way to draw an image's tokens.

    Attributes:
        role: kind of its network, see `networks.Network`.
        per_schedule: whether each mask schedule has a network of its own.
        settings: what its tokens depend on beside the network. Not how many samples: sample i is
            the same in every number of them.
        code: backend -> the module with `load` and `draw`.
        fixed: values of the settings that mean nothing to it.
        step_per_token: whether it takes a step for each token, whatever T is.
        why_no_likelihood: why the likelihood of masked tokens is not defined; empty if it is.
    """

    role: str
    per_schedule: bool
    settings: tuple[str, ...]
    code: Mapping[str, Code]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    step_per_token: bool = False
    why_no_likelihood: str = ""

    def network(self, schedule: str = SCHEDULE) -> str:
        """Name of the network that samples, as `maskgit.checkpoints.paths.model_path` takes it."""
        return f"{self.role}-{schedule}" if self.per_schedule else self.role


SAMPLERS = {
    "maskgit": Sampler(
        role="transformer",
        per_schedule=True,
        settings=(
            *("schedule", "steps", "seed"),
            *("choice_temperature", "sampling_temperature"),
        ),
        code={
            "torch": Code(
                "experiments.sampler.sampling",
                also=("maskgit.checkpoints", "maskgit.model.transformer"),
                without=("maskgit.model.tokenizer", "maskgit.model.causal"),
                precisions=PRECISIONS,
                modes=MODES,
            ),
            "jax": Code(
                "experiments.sampler.sampling_jax",
                also=("maskgit.jax.decoding", "maskgit.jax.transformer"),
                without=(
                    *("maskgit.model.tokenizer", "maskgit.model.causal"),
                    "maskgit.jax.tokenizer",
                ),
            ),
        },
    ),
    "autoregressive": Sampler(
        role="autoregressive",
        per_schedule=False,
        settings=("seed", "sampling_temperature"),
        code={
            "torch": Code(
                "experiments.sampler.sampling_autoregressive",
                also=("maskgit.checkpoints", "maskgit.sampling.autoregressive"),
                without=("maskgit.model.tokenizer",),
                precisions=PRECISIONS,
                modes=MODES,
            ),
        },
        fixed={"schedule": "raster", "choice_temperature": 0.0},
        step_per_token=True,
        why_no_likelihood="the likelihood of masked tokens is not defined for the autoregressive "
        "sampler",
    ),
}


def network_of(sampler: Sampling | str) -> str:
    """Name of the network of a sampler's settings, or of a sampler with the usual schedule."""
    if isinstance(sampler, str):
        return SAMPLERS[sampler].network()
    return SAMPLERS[sampler.sampler].network(sampler.schedule)


# Backend -> the module with `load` and `decode_batches`, from tokens to images.
IMAGING = {
    "torch": Code(
        "experiments.sampler.imaging",
        also=("maskgit.checkpoints", "maskgit.model.tokenizer"),
        without=("maskgit.model.causal",),
    ),
    "jax": Code(
        "experiments.sampler.imaging_jax",
        also=("maskgit.jax.tokenizer",),
        without=(
            *("maskgit.model.causal", "maskgit.model.transformer", "maskgit.decoding"),
            *("maskgit.jax.decoding", "maskgit.jax.transformer"),
        ),
    ),
}


def sampling(
    preset: Preset,
    sampler: str = "maskgit",
    *,
    schedule: str = SCHEDULE,
    steps: int,
    seed: int,
    num_samples: int,
    choice_temperature: float | None = None,
    **more: Any,
) -> Sampling:
    """A sampler's settings, checked, with fixed values in place of those that mean nothing to it.

    choice_temperature: None takes the preset's. more: further fields of `Sampling`.

    Raises:
        UsageError: a backend, sampler, precision or mode that does not exist, or not together.
    """
    if choice_temperature is None:
        choice_temperature = preset.choice_temperature
    found = SAMPLERS.get(sampler)
    if found is None:
        raise UsageError(f"--sampler {sampler}: expected one of {', '.join(SAMPLERS)}")
    values: dict[str, Any] = {
        "schedule": schedule,
        "steps": steps,
        "choice_temperature": choice_temperature,
    }
    values |= found.fixed
    values |= {"steps": preset.num_tokens} if found.step_per_token else {}
    settings = Sampling(sampler, seed=seed, num_samples=num_samples, **values, **more)
    choices = {"backend": BACKENDS, "precision": PRECISIONS, "mode": MODES}
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise UsageError(
                f"--{name} {getattr(settings, name)}: expected one of {', '.join(known)}"
            )
    if settings.backend not in found.code:
        raise UsageError(
            f"--backend {settings.backend}: the {sampler} sampler needs --backend "
            f"{' or '.join(found.code)}"
        )
    code = found.code[settings.backend]
    for name, known in (("precision", code.precisions), ("mode", code.modes)):
        if getattr(settings, name) not in known:
            raise UsageError(
                f"--{name} {getattr(settings, name)}: the {sampler} sampler with --backend "
                f"{settings.backend} takes {', '.join(known)} only"
            )
    return settings
