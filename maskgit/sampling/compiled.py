"""Sampling through torch.compile. Its roundings are others, so the tokens are no longer the exact
ones, but they are the same again with the same mode, machine and batch size.

eager       as it stands; the only mode whose tokens on a CPU do not depend on the batch size
compiled    the body and the head compiled for any shape; on a CPU at masked positions only
graphs      one program of fixed shape for a whole iteration: the network, the draw and the masking.
            On a GPU it is a CUDA graph, so launches cost nothing, which counts with few images or
            a small network
autotuned   the same, and for each product the fastest kernel that a search finds, which takes
            minutes at the start

A program of fixed shape takes 1, 2, 4, 8, ... images, batches are filled up to the next of these,
and it computes every position, masked or not. It serves every number of iterations, because their
loop stays outside: the whole loop can be traced as one program too (tests/maskgit/sampling/
test_fixed.py), but would be compiled anew for each T, at T times the cost. The programs of the
autoregressive model are in `maskgit.sampling.autoregressive`. Needs a C++ compiler.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from maskgit.model.transformer import Transformer

MODES = ("eager", "compiled", "graphs", "autotuned")
TORCH_MODES = {"compiled": None, "graphs": "reduce-overhead", "autotuned": "max-autotune"}
# One program for each power of two, of all networks of a process; torch gives up behind 8.
PROGRAMS = 64


def compile_for_sampling(transformer: Transformer, mode: str) -> Transformer:
    """The same transformer, whose forwards in `maskgit.decoding.generate` go the way of `mode`.

    Compiles at the first forward of each shape, and once for a transformer: call it on a fresh one.

    Raises:
        UsageError: an unknown mode, or no C++ compiler here.
    """
    import torch

    from maskgit.sampling.fixed import iterate

    check_mode(mode)
    if mode == "compiled":
        compiled: Any = torch.compile(transformer.hidden, dynamic=True)
        transformer.hidden = compiled  # type: ignore[method-assign]
        compiled = torch.compile(transformer.code_logits, dynamic=True)
        transformer.code_logits = compiled  # type: ignore[method-assign]
    elif mode != "eager":
        transformer.program = fixed_program(iterate, mode)
    return transformer


def check_mode(mode: str, name: str = "mode") -> None:
    """Whether forwards can go that way here. name: of the flag or argument, for the message.

    Raises:
        UsageError: they cannot.
    """
    if mode not in MODES:
        raise UsageError(f"{name} {mode}: expected one of {', '.join(MODES)}")
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    if mode != "eager" and not any(shutil.which(name) for name in compilers if name):
        raise UsageError(f"{name} {mode}: needs a C++ compiler, such as g++; there is none on PATH")


def fixed_program(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """The function, compiled anew for each shape of its arguments."""
    import torch

    # torch 2.6 has the old name only.
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, limit, max(PROGRAMS, getattr(config, limit)))
    return torch.compile(function, mode=TORCH_MODES[mode], dynamic=False, fullgraph=True)
