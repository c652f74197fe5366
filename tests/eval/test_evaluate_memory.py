"""What the metrics allocate beside the features, measured: it must not grow with the images."""

import os
import subprocess
import sys

import pytest

# In a process of its own: the peak of the resident memory is that of a process, and torch's
# allocations count.
SCRIPT = """
import resource, sys
import numpy as np
from eval.features.registry import Features
from eval.metrics.registry import PreparedReference, measure
from eval.reference.files import Reference

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

metrics, n, dim = sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
scale = (1 + np.arange(dim, dtype=np.float32)) ** -0.6

def features():
    rows = np.empty((n, dim), np.float32)
    for start in range(0, n, 1000):
        stop = min(start + 1000, n)
        rows[start:stop] = rng.standard_normal((stop - start, dim), np.float32) * scale
    return rows

small = features()[:200].astype(np.float64)
small @ small.T; np.linalg.eigh(small.T[:50] @ small[:, :50])  # libraries' own buffers
real, fake = features(), features()
logits = rng.standard_normal((n, 100), np.float32)
before = peak()
mean, cov = real.mean(0, np.float64), np.cov(real[:2 * dim], rowvar=False)
reference = Reference("x", "x", n, mean, cov, real, "", "")
found, missing = measure(metrics, "x", Features(fake, logits), PreparedReference(reference))
assert not missing, missing
print({name: entry["value"] for name, entry in found.items()}, file=sys.stderr)
print((peak() - before) / 2**20)
"""


def mebibytes(metrics: str, n: int, dim: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, metrics, str(n), str(dim)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return float(done.stdout)


@pytest.mark.parametrize(
    "metrics", ["fid,fid-infinity,is", pytest.param("kid", marks=pytest.mark.slow)]
)
def test_memory_beside_the_features_does_not_grow_with_the_images(metrics):
    small, large = mebibytes(metrics, 5_000, 64), mebibytes(metrics, 40_000, 64)
    # 40,000 x 64 float32 are 10 MiB a side: a copy in float64 would be 20.
    assert large - small < 15


@pytest.mark.slow
def test_fifty_thousand_images_of_2048_features_stay_below_two_gigabytes_above_them():
    assert mebibytes("fid,fid-infinity,is,kid", 50_000, 2048) < 2_000
