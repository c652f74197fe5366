"""Four float32 functions with the very bits that the official code gets from JAX on a CPU.

`floor(N * gamma(r))` in the decode loop moves by one token where gamma moves by one unit in the
last place (cosine at r = 2/3: 127 or 128 of 256), and numpy, torch and XLA each round these
functions in their own way. So the algorithms are evaluated here, in numpy, alike on every machine:

- `cos` and `power`: XLA calls the C library. glibc's cosf and powf are those of Arm's optimized
  routines (MIT; math/cosf.c, math/powf.c): polynomials in float64, rounded once to float32.
- `log` and `exp`: XLA's own polynomials, those of Cephes (logf, expf) in Eigen's order of
  evaluation, in float32 with fused multiply-adds.

They equal JAX 0.10 on x86-64 with glibc 2.36 at every argument the schedules reach with up to 1024
tokens and 4096 steps (tests/maskgit/test_schedules.py, `-m slow`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def _hex(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


def _single(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


_COS = _hex(
    "-0x1.ffffffd0c621cp-2 0x1.55553e1068f19p-5 -0x1.6c087e89a359dp-10 0x1.99343027bf8c3p-16"
)
_SIN = _hex("-0x1.555545995a603p-3 0x1.1107605230bc4p-7 -0x1.994eb3774cf24p-13")

# 1/c for c near the middle of each of 16 intervals, the first from 0x3F330000 = 0.69921875 on.
_LOG2_START = 0x3F330000
_LOG2_INVERSES = np.array(
    _hex(
        "0x1.661ec79f8f3bep+0 0x1.571ed4aaf883dp+0 0x1.49539f0f010bp+0 0x1.3c995b0b80385p+0 "
        "0x1.30d190c8864a5p+0 0x1.25e227b0b8eap+0 0x1.1bb4a4a1a343fp+0 0x1.12358f08ae5bap+0 "
        "0x1.0953f419900a7p+0 0x1p+0 0x1.e608cfd9a47acp-1 0x1.ca4b31f026aap-1 "
        "0x1.b2036576afce6p-1 0x1.9c2d163a1aa2dp-1 0x1.886e6037841edp-1 0x1.767dcf5534862p-1"
    )
)
_LOG2_CENTRES = -np.log2(_LOG2_INVERSES)
_LOG2 = _hex(
    "0x1.27616c9496e0bp-2 -0x1.71969a075c67ap-2 0x1.ec70a6ca7baddp-2 "
    "-0x1.7154748bef6c8p-1 0x1.71547652ab82bp0"
)
_EXP2 = _hex("0x1.c6af84b912394p-5 0x1.ebfce50fac4f3p-3 0x1.62e42ff0c52d6p-1")

_LOG = _single(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1)
_LOG += _single(1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1)
_LOG += _single(3.3333331174e-1)
_EXP = _single(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3)
_EXP += _single(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
# ln 2 in two parts, the first so short that its products with small integers are exact.
_LN2_HIGH, _LN2_LOW = _single(0.693359375, -2.12194440e-4)
_SQRT_HALF, _HALF, _ONE, _LOG2_E = _single(0.5**0.5, 0.5, 1.0, 1.44269504088896341)


def cos(x: Float32) -> Float32:
    """Cosine of float32 `x` in [0, pi/2] (and a little more), same shape."""
    wide = np.asarray(x, np.float64)
    c1, c2, c3, c4 = _COS
    square = wide * wide
    fourth = square * square
    near_zero = 1 + square * c1 + fourth * c2 + fourth * square * (c3 + square * c4)
    # From pi/4 on, cos(x) = sin(pi/2 - x).
    s1, s2, s3 = _SIN
    turned = np.pi / 2 - wide
    square = turned * turned
    cube = turned * square
    far = turned + cube * s1 + cube * square * (s2 + square * s3)
    return np.where(wide < np.pi / 4, near_zero, far).astype(np.float32)


def power(x: Float32, exponent: float) -> Float32:
    """`x ** exponent` for float32 `x` >= 0 and an exponent > 0 (taken as float32), same shape."""
    x = np.asarray(x, np.float32)
    positive = np.where(x > 0, x, _ONE)
    # x = 2**k z with z in one of the 16 intervals; r = z/c - 1 is small and feeds a polynomial.
    offset = positive.view(np.int32) - _LOG2_START
    interval = (offset >> 19) & 15
    z = (positive.view(np.int32) - (offset & ~0x7FFFFF)).view(np.float32).astype(np.float64)
    r = z * _LOG2_INVERSES[interval] - 1
    a0, a1, a2, a3, a4 = _LOG2
    square = r * r
    high = (a2 * r + a3) * square + (a4 * r + (_LOG2_CENTRES[interval] + (offset >> 23)))
    log2 = (a0 * r + a1) * (square * square) + high
    # 2**y with y = k/32 + s: the power of two exactly, the rest through a polynomial of degree 3.
    y = np.maximum(np.float64(np.float32(exponent)) * log2, -150.0)
    k = np.rint(y * 32)
    s = y - k / 32
    b0, b1, b2 = _EXP2
    result = ((b0 * s + b1) * (s * s) + (b2 * s + 1)) * np.exp2(k / 32)
    return np.where(x > 0, result, 0.0).astype(np.float32)


def log(x: Float32) -> Float32:
    """Natural logarithm of float32 `x` > 0, same shape."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float32))
    # The mantissa in [sqrt(1/2), sqrt(2)), minus one.
    small = mantissa < _SQRT_HALF
    e = (exponent - small).astype(np.float32)
    m = (mantissa - _ONE) + np.where(small, mantissa, np.float32(0))
    p0, p1, p2, p3, p4, p5, p6, p7, p8 = _LOG
    square = m * m
    cube = square * m
    high = _fma(_fma(p0, m, p1), m, p2)
    middle = _fma(_fma(p3, m, p4), m, p5)
    low = _fma(_fma(p6, m, p7), m, p8)
    tail = _fma(_fma(_fma(high, cube, middle), cube, low), cube, e * _LN2_LOW)
    return _fma(e, _LN2_HIGH, tail + _fma(square, -_HALF, m))


def exp(x: Float32) -> Float32:
    """Exponential of float32 `x` in [-87, 0], same shape."""
    x = np.asarray(x, np.float32)
    n = np.floor(x * _LOG2_E + _HALF)
    m = _fma(-n, _LN2_LOW, _fma(-n, _LN2_HIGH, x))
    y = np.broadcast_to(_EXP[0], m.shape)
    for coefficient in _EXP[1:]:
        y = _fma(y, m, coefficient)
    return np.ldexp(_ONE + _fma(y, m * m, m), n.astype(np.int32))


def _fma(a: Float32 | np.float32, b: Float32 | np.float32, c: Float32 | np.float32) -> Float32:
    """a * b + c rounded once: the product of two float32 is exact in float64."""
    return (np.asarray(a, np.float64) * b + c).astype(np.float32)
