"""What every test must leave as it found it, and what some need of the processor."""

import subprocess
import sys

import pytest

from maskgit.common import download
from tests.maskgit.common.download_server import serving

BFLOAT16 = """
import torch
x = torch.ones(512, 512).bfloat16()
for weight in (x, x.t()):
    torch.nn.functional.linear(x, weight, x[0])
"""


@pytest.fixture(autouse=True)
def denormals():
    """A mode of the thread: flushing left on would change the numbers of later tests."""
    yield
    assert sys.float_info.min / 2 > 0, "the test left denormals flushed to zero"


@pytest.fixture(scope="session")
def bfloat16():
    """Skips where a process that multiplies in bfloat16 ends: some virtual machines announce
    instructions and then refuse them."""
    done = subprocess.run([sys.executable, "-c", BFLOAT16], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"bfloat16 products end a process here with {done.returncode}")


@pytest.fixture
def server(request, monkeypatch):
    """A server of the test module's CONTENT that can break off, lie and say no."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(request.module.CONTENT) as server:
        yield server
