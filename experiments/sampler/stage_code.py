"""Which sources compute each stage of a cell, as fingerprints (see `fingerprint.py`).

Registries and lazy packages find modules by names that imports do not show, so those are named.
What a stage does not run is left out, although `checkpoints.py` imports it: sampling needs no
tokenizer, and parallel decoding no causal transformer.
"""

from __future__ import annotations

from experiments.engine.fingerprint import fingerprint
from maskgit.common.errors import UsageError

SAMPLER = "experiments.sampler"


def code_fingerprints(
    features: str, backend: str = "torch", sampler: str = "maskgit"
) -> dict[str, str]:
    """Stage -> fingerprint, for cells with this feature network, backend and sampler.

    Raises:
        UsageError: there is no such sampler with that backend.
    """
    from eval.features.registry import EXTRACTORS

    extractor = EXTRACTORS[features].partition(":")[0]
    return {
        "tokens": _tokens(backend, sampler),
        "images": _images(backend),
        "features": fingerprint("eval.features.registry", extractor),
        "metrics": fingerprint(f"{SAMPLER}.measuring"),
        "likelihood": fingerprint(
            f"{SAMPLER}.held_out",
            f"{SAMPLER}.held_out_images",
            "maskgit.checkpoints",
            "maskgit.model.transformer",
            "maskgit.model.tokenizer",
            "maskgit.data.fashion_mnist",
            without=("maskgit.model.causal",),
        ),
    }


def _tokens(backend: str, sampler: str) -> str:
    if (backend, sampler) == ("torch", "maskgit"):
        return fingerprint(
            f"{SAMPLER}.sampling",
            "maskgit.checkpoints",
            "maskgit.model.transformer",
            without=("maskgit.model.tokenizer", "maskgit.model.causal"),
        )
    if (backend, sampler) == ("torch", "autoregressive"):
        return fingerprint(
            f"{SAMPLER}.sampling_autoregressive",
            "maskgit.checkpoints",
            "maskgit.sampling.autoregressive",
            without=("maskgit.model.tokenizer",),
        )
    if (backend, sampler) == ("jax", "maskgit"):
        return fingerprint(
            f"{SAMPLER}.sampling_jax",
            "maskgit.jax.decoding",
            "maskgit.jax.transformer",
            without=("maskgit.model.tokenizer", "maskgit.model.causal", "maskgit.jax.tokenizer"),
        )
    raise UsageError(f"--backend {backend}: the {sampler} sampler needs --backend torch")


def _images(backend: str) -> str:
    if backend == "torch":
        return fingerprint(
            f"{SAMPLER}.imaging",
            "maskgit.checkpoints",
            "maskgit.model.tokenizer",
            without=("maskgit.model.causal",),
        )
    return fingerprint(
        f"{SAMPLER}.imaging_jax",
        "maskgit.jax.tokenizer",
        without=(
            *("maskgit.model.causal", "maskgit.model.transformer", "maskgit.decoding"),
            *("maskgit.jax.decoding", "maskgit.jax.transformer"),
        ),
    )
