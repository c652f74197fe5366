"""The noise of a whole decoding in one launch: `maskgit.sampling.noise` as a Triton kernel.

torch's own operations need about 460 launches for the numbers of one call, each a pass over memory,
and a network of 24 layers needs about 300. Here a program computes the key of one sample in one
iteration and then its uniforms, all in registers. The words are those of
`maskgit.sampling.noise.position_uniforms`, bit for bit: unsigned integers wrap alike everywhere,
and 23 bits times a power of two is exact in float32.

Import this only where Triton is (it comes with torch's CUDA wheels). With TRITON_INTERPRET=1 in
the environment before that, the kernel runs on a CPU, which is how the tests check its bits.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256  # uniforms of one program


@triton.jit
def _four_rounds(x0, x1, a: tl.constexpr, b: tl.constexpr, c: tl.constexpr, d: tl.constexpr):
    """Four rounds of Threefry-2x32 with the distances a, b, c, d of the rotations to the left."""
    x0 += x1
    x1 = ((x1 << a) | (x1 >> (32 - a))) ^ x0
    x0 += x1
    x1 = ((x1 << b) | (x1 >> (32 - b))) ^ x0
    x0 += x1
    x1 = ((x1 << c) | (x1 >> (32 - c))) ^ x0
    x0 += x1
    x1 = ((x1 << d) | (x1 >> (32 - d))) ^ x0
    return x0, x1


@triton.jit
def _threefry(k0, k1, x0, x1):
    """Twenty rounds of Threefry-2x32 on uint32 words: maskgit.sampling.noise._threefry."""
    k2 = k0 ^ k1 ^ 0x1BD11BDA
    x0 += k0
    x1 += k1
    x0, x1 = _four_rounds(x0, x1, 13, 15, 26, 6)
    x0, x1 = _four_rounds(x0 + k1, x1 + k2 + 1, 17, 29, 16, 24)
    x0, x1 = _four_rounds(x0 + k2, x1 + k0 + 2, 13, 15, 26, 6)
    x0, x1 = _four_rounds(x0 + k0, x1 + k1 + 3, 17, 29, 16, 24)
    x0, x1 = _four_rounds(x0 + k1, x1 + k2 + 4, 13, 15, 26, 6)
    return x0 + k2, x1 + k0 + 5


@triton.jit(do_not_specialize=["seed", "start", "images", "positions", "plane"])
def _uniforms(ids, result, seed, start, images, positions, plane, BLOCK: tl.constexpr):
    """Program (i, j) writes block j of the 2N uniforms of image i % images, iteration i // images.

    ids: (images,) int64. result: (2, T', images, N) float32, `plane` numbers in each half.
    """
    row = tl.program_id(0)
    zero = (row * 0).to(tl.uint32)
    sample_id = tl.load(ids + row % images).to(tl.uint32)
    step = (row // images + start).to(tl.uint32)
    k0, k1 = _threefry(zero, zero + seed.to(tl.uint32), zero, sample_id)
    k0, k1 = _threefry(k0, k1, zero, step)

    counter = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    words = counter.to(tl.uint32)
    x0, x1 = _threefry(k0, k1, words * 0, words)
    uniform = ((x0 ^ x1) >> 9).to(tl.float32) * (2.0**-23)
    half, position = counter // positions, counter % positions
    place = half.to(tl.int64) * plane + row.to(tl.int64) * positions + position
    tl.store(result + place, uniform, mask=counter < 2 * positions)


def uniforms(seed: int, sample_ids: Tensor, start: int, steps: int, num_positions: int) -> Tensor:
    """As `maskgit.sampling.noise.loop_uniforms`: (2, T', B, N) float32 on the ids' device."""
    images, rounds = len(sample_ids), steps - start
    shape = (2, rounds, images, num_positions)
    result = torch.empty(shape, dtype=torch.float32, device=sample_ids.device)
    if not result.numel():
        return result
    grid = (rounds * images, triton.cdiv(2 * num_positions, BLOCK))
    plane = rounds * images * num_positions
    ids = sample_ids.to(torch.int64).contiguous()
    # A kernel goes to the current device, which need not be the one of its arguments.
    there = torch.cuda.device(ids.device) if ids.is_cuda else nullcontext()
    with there:
        _uniforms[grid](ids, result, seed, start, images, num_positions, plane, BLOCK=BLOCK)
    return result
