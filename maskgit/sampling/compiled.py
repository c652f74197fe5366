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
from typing import TYPE_CHECKING, Any

from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from maskgit.model.transformer import Transformer

MODES = ("eager", "compiled", "graphs", "autotuned")
TORCH_MODES = {"graphs": "reduce-overhead", "autotuned": "max-autotune"}
# One program for each power of two, of all networks of a process; torch gives up behind 8.
PROGRAMS = 64


def compile_for_sampling(transformer: Transformer, mode: str) -> Transformer:
    """The same transformer, whose forwards in `maskgit.decoding.generate` go the way of `mode`.

    Compiles at the first forward of each shape, and once for a transformer: call it on a fresh one.

    Raises:
        UsageError: an unknown mode, or no C++ compiler here.
    """
    import torch

    check_mode(mode)
    if mode == "compiled":
        compiled: Any = torch.compile(transformer.hidden, dynamic=True)
        transformer.hidden = compiled  # type: ignore[method-assign]
        compiled = torch.compile(transformer.code_logits, dynamic=True)
        transformer.code_logits = compiled  # type: ignore[method-assign]
    elif mode != "eager":
        transformer.program = Program(transformer, mode)
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


class Program:
    """Logits of the codes by programs of fixed shape."""

    def __init__(self, transformer: Transformer, mode: str):
        import torch

        # torch 2.6 has the old name only.
        config = torch._dynamo.config
        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
        setattr(config, limit, max(PROGRAMS, getattr(config, limit)))
        self._codes = transformer.config.num_codes
        self._forward = torch.compile(
            transformer.forward_codes, mode=TORCH_MODES[mode], dynamic=False, fullgraph=True
        )

    def __call__(self, inputs: Tensor, positions: Tensor) -> Tensor:
        """As `maskgit.decoding` asks: inputs (n, 1+N), positions (M,) of the n*N -> (M, codes)."""
        import torch

        images = len(inputs)
        more = (1 << (images - 1).bit_length()) - images
        inputs = torch.cat((inputs, inputs[-1:].expand(more, -1)))
        # What a graph returned before is no longer wanted, and its memory may be written again.
        torch.compiler.cudagraph_mark_step_begin()
        logits = self._forward(inputs)
        return logits.reshape(-1, self._codes)[positions]
