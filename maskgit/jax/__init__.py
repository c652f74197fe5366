"""The second backend: the same models and the same decoding in JAX, under one `jit`.

    from maskgit.jax import generate, load_tokenizer, load_transformer
    transformer = load_transformer(zoo_path("transformer-cosine"))
    tokens = generate(transformer, labels, steps=8)

`pip install 'maskgit-bench[jax]'` brings JAX, which is imported when one of these names is asked
for, not before. Without it they raise UsageError. See docs/jax.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from maskgit.jax.decoding import generate
    from maskgit.jax.tokenizer import Tokenizer, load_tokenizer
    from maskgit.jax.transformer import Transformer, load_transformer

__all__ = ["Tokenizer", "Transformer", "generate", "load_tokenizer", "load_transformer"]
_MODULES = {
    "generate": "maskgit.jax.decoding",
    "Tokenizer": "maskgit.jax.tokenizer",
    "load_tokenizer": "maskgit.jax.tokenizer",
    "Transformer": "maskgit.jax.transformer",
    "load_transformer": "maskgit.jax.transformer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        importlib.import_module("jax")
    except ImportError as error:
        raise UsageError(
            f"the JAX backend needs JAX ({error}): pip install 'maskgit-bench[jax]'"
        ) from None
    return getattr(importlib.import_module(_MODULES[name]), name)
