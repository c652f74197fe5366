"""What every test must leave as it found it."""

import sys

import pytest


@pytest.fixture(autouse=True)
def denormals():
    """A mode of the thread: flushing left on would change the numbers of later tests."""
    yield
    assert sys.float_info.min / 2 > 0, "the test left denormals flushed to zero"
