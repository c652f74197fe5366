"""The Triton kernel of the noise: its bits, by Triton's interpreter, and that it compiles."""

import subprocess
import sys

import pytest
import torch

from tests.paths import ROOT

pytest.importorskip("triton")

# Triton decides at its import whether it interprets, so this is a process of its own.
COMPARE = """
import torch
from maskgit.sampling import noise, noise_kernel

ids = torch.tensor([0, 5, 70_000, 2**31, 2**32 - 1])
launches = []
kernel = noise_kernel._uniforms
class Counting:
    def __getitem__(self, grid):
        launches.append(grid)
        return kernel[grid]
noise_kernel._uniforms = Counting()
for seed in (0, 1, 16, 2**31, 2**32 - 1):
    drawn = noise_kernel.uniforms(seed, ids, 2, 4, 150)
    assert torch.equal(drawn, noise.loop_uniforms(seed, ids, 2, 4, 150)), seed
assert torch.equal(noise_kernel.uniforms(3, ids.int() % 7, 59, 60, 1),
                   noise.loop_uniforms(3, ids.int() % 7, 59, 60, 1))
assert noise_kernel.uniforms(0, ids[:0], 0, 3, 8).shape == (2, 3, 0, 8)
print(len(launches), "launches for", 6, "calls")
"""


def test_the_kernel_draws_the_same_bits_in_one_launch():
    """So a loop of T iterations spends 1/T launches an iteration on its uniforms."""
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env={"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "6 launches for 6 calls\n", done.stderr


@pytest.mark.parametrize("seed", ["i32", "i64"])
def test_the_kernel_compiles_for_a_gpu(seed, monkeypatch, tmp_path):
    """For compute capability 9.0 (H100, H200), which needs no GPU; a seed from 2**31 on is i64."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from maskgit.sampling import noise_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kinds = {"ids": "*i64", "result": "*fp32", "seed": seed, "BLOCK": "constexpr"}
    kinds |= dict.fromkeys(("start", "images", "positions", "plane"), "i32")
    source = ASTSource(noise_kernel._uniforms, kinds, {"BLOCK": noise_kernel.BLOCK})
    ptx = compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert ".target sm_90" in ptx


@pytest.mark.gpu
def test_a_gpu_draws_the_same_bits():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from maskgit.sampling.noise import loop_uniforms

    ids = torch.tensor([0, 1, 2**31, 2**32 - 1])
    for seed in (0, 1, 2**32 - 1):
        expected = loop_uniforms(seed, ids, 0, 60, 1024)
        assert torch.equal(loop_uniforms(seed, ids.cuda(), 0, 60, 1024).cpu(), expected)
