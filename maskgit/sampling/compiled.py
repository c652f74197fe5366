"""Sampling through torch.compile. Tokens are then those of other roundings: no longer the exact
ones, though the same again with the same mode, machine and batch size.

eager       as it stands; the only mode whose tokens do not depend on the batch size
compiled    the body and the head compiled for any shape, at masked positions only
graphs      one program for a whole forward of fixed shape (CUDA graphs on a GPU): launches cost
            nothing, which counts with few images or a small network
autotuned   the same, and for each product the fastest kernel that a search finds, which takes
            minutes at the start

A program of fixed shape takes 1, 2, 4, 8, ... images, batches are filled up to the next of these,
and it computes every position, masked or not. Needs a C++ compiler.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from maskgit.model.causal import Autoregressive
    from maskgit.model.transformer import Transformer

Network = TypeVar("Network", "Transformer", "Autoregressive")

MODES = ("eager", "compiled", "graphs", "autotuned")
TORCH_MODES = {"compiled": None, "graphs": "reduce-overhead", "autotuned": "max-autotune"}
# One program for each power of two, of all networks of a process; torch gives up behind 8.
PROGRAMS = 64


def compile_for_sampling(model: Network, mode: str) -> Network:
    """The same network, whose sampling goes the way of `mode`.

    model: for `maskgit.decoding.generate` a Transformer, for
        `maskgit.sampling.autoregressive.generate_autoregressive` an Autoregressive, whose program
        is one for all positions, with a cache of fixed shape.

    Compiles at the first forward of each shape, and once for a network: call it on a fresh one.

    Raises:
        UsageError: an unknown mode, or no C++ compiler here.
    """
    import torch

    from maskgit.model.causal import Autoregressive
    from maskgit.sampling.autoregressive import PositionProgram, draw_position
    from maskgit.sampling.fixed import iterate

    check_mode(mode)
    if mode == "eager":
        return model
    if isinstance(model, Autoregressive):
        model.program = PositionProgram(_fixed_program(draw_position, mode))
    elif mode == "compiled":
        compiled: Any = torch.compile(model.hidden, dynamic=True)
        model.hidden = compiled  # type: ignore[method-assign]
        compiled = torch.compile(model.code_logits, dynamic=True)
        model.code_logits = compiled  # type: ignore[method-assign]
    else:
        model.program = _fixed_program(iterate, mode)
    return model


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


def _fixed_program(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """The function, compiled anew for each shape of its arguments."""
    import torch

    # torch 2.6 has the old name only.
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, limit, max(PROGRAMS, getattr(config, limit)))
    return torch.compile(function, mode=TORCH_MODES[mode], dynamic=False, fullgraph=True)
