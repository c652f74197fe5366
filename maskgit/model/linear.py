"""Linear layers through oneDNN on a CPU, where torch's own float32 product goes to MKL.

MKL leaves the AVX-512 units of AMD processors idle: at this benchmark's sizes (1040 rows, 128 to
512 wide, one core of an AMD EPYC) F.linear runs at 112 GFLOP/s and oneDNN's product at 250. torch
brings oneDNN and uses it for bfloat16 and for compiled graphs, but has no switch for float32, so
this calls the operator that compiled graphs use; without gradients for bfloat16 too, whose GELU is
then part of the product. Where it is missing (macOS, some ARM builds), on a GPU, in another type or
under autocast, these functions are F.linear and F.gelu.

oneDNN multiplies by a weight in an order of its own, and puts it into that order in every call,
about a tenth of the time of 1000 rows. Within `packed_weights` it is done once for each weight; the
products have the same bits (tests/maskgit/model/test_linear.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# gelu(x) = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the tanh approximation written anew.
_GELU_LINEAR = 2.0 * math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715 * _GELU_LINEAR


def _onednn_is_there() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        x, weight, bias = torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)
        result = operator(x, weight, bias, "none", [], "")
        result = operator.binary(x, result, weight, bias, "add")
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(result, torch.full((2, 4), 8.0))


_ONEDNN = _onednn_is_there()
_BFLOAT16 = _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()

# By the identity of a weight: itself, so that no other gets its identity, and its packed copy.
_packs: ContextVar[dict[int, tuple[Tensor, Tensor]] | None] = ContextVar("packs", default=None)
# Rows of a product and numbers of a weight from which packing is worth a copy (128 x 512 is not).
PACKED_FROM, PACKED_SIZE = 64, 2**18


@contextmanager
def packed_weights() -> Iterator[None]:
    """Keep a reordered copy of every parameter that `linear` multiplies by, until the block ends.

    For many products by weights that nobody changes meanwhile; without gradients only.
    """
    token = _packs.set({})
    try:
        yield
    finally:
        _packs.reset(token)


def _packed(weight: Tensor, x: Tensor) -> Tensor:
    """The weight that x is multiplied by, or within `packed_weights` its copy in oneDNN's order."""
    packs, rows = _packs.get(), x.numel() // x.shape[-1]
    if packs is None or rows < PACKED_FROM or weight.numel() < PACKED_SIZE:
        return weight
    if not isinstance(weight, torch.nn.Parameter):  # a part of one, new in every call
        return weight
    if id(weight) not in packs:
        copy = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        packs[id(weight)] = weight, copy
    return packs[id(weight)][1]


def linear(x: Tensor, weight: Tensor, bias: Tensor, plus: Tensor | None = None) -> Tensor:
    """F.linear: x (..., in), weight (out, in), bias (out,) -> (..., out).

    plus: (..., out), added to the result; bit for bit the sum, in one pass instead of two.
    """
    if not torch.is_grad_enabled() and _is_fast(x, weight):
        return _product(x, _packed(weight, x), bias, plus=plus)
    result = _Linear.apply(x, weight, bias) if _is_fast(x, weight) else F.linear(x, weight, bias)
    return result if plus is None else plus + result


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """F.gelu(F.linear(x, weight, bias), approximate="tanh"); shapes as in `linear`."""
    if not _is_fast(x, weight):
        return F.gelu(F.linear(x, weight, bias), approximate="tanh")
    if torch.is_grad_enabled():
        return _Gelu.apply(_Linear.apply(x, weight, bias))
    return _product(x, _packed(weight, x), bias, "gelu")


def _is_fast(x: Tensor, weight: Tensor) -> bool:
    if torch.compiler.is_compiling():  # inductor brings its own, and cannot lower this operator
        return False
    if x.device.type != "cpu" or x.dtype != weight.dtype or torch.is_autocast_enabled("cpu"):
        return False
    half = x.dtype == torch.bfloat16 and _BFLOAT16 and not torch.is_grad_enabled()
    return ((_ONEDNN and x.dtype == torch.float32) or half) and x.numel() > 0


def _product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str = "none",
    plus: Tensor | None = None,
) -> Tensor:
    algorithm = "tanh" if activation == "gelu" else ""
    rows, operator = x.reshape(-1, x.shape[-1]), torch.ops.mkldnn._linear_pointwise
    if plus is None:
        y = operator(rows, weight, bias, activation, [], algorithm)
    else:
        y = operator.binary(rows, plus.reshape(-1, plus.shape[-1]), weight, bias, "add")
    return y.view(*x.shape[:-1], y.shape[-1])


class _Linear(torch.autograd.Function):
    """Forward and the two products of backward through oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_rows, rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _product(grad_rows, weight.t(), None).view_as(x)
        if ctx.needs_input_grad[1]:
            # The longer side of the weight as columns of the product is faster.
            if len(weight) > weight.shape[1]:
                grad_weight = _product(rows.t(), grad_rows.t(), None).t().contiguous()
            else:
                grad_weight = _product(grad_rows.t(), rows.t(), None)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_rows.sum(dim=0)
        return grad_x, grad_weight, grad_bias


class _Gelu(torch.autograd.Function):
    """The tanh GELU through a sigmoid, which torch vectorises better than tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gate(x, x * x).mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # d/dx x s(z) = s + x s (1 - s) z', with z' = linear + 3 cubic x^2.
        (x,) = ctx.saved_tensors
        square = x * x
        slope = (square * (3.0 * _GELU_CUBIC)).add_(_GELU_LINEAR).mul_(x)
        gate = _gate(x, square)
        slope.addcmul_(slope, gate, value=-1.0).add_(1.0).mul_(gate)
        return slope.mul_(grad)


def _gate(x: Tensor, square: Tensor) -> Tensor:
    """sigmoid(linear x + cubic x^3); overwrites `square`, which holds x^2."""
    return square.mul_(_GELU_CUBIC).add_(_GELU_LINEAR).mul_(x).sigmoid_()
