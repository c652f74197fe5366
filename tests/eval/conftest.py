"""One thread: the arrays are small, and the tests may run beside other work."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def resnet():
    """The shipped feature extractor of the embedded benchmark."""
    from eval.features.registry import get_extractor

    return get_extractor("fashion-resnet")
