"""What several folders of tests of maskgit need."""

import pytest

from tests.paths import GOLDEN


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """The official tokenizer file, kept in two parts for its size."""
    path = tmp_path_factory.mktemp("golden") / "tokenizer_tiny_checkpoint"
    parts = [GOLDEN / f"tokenizer_tiny_checkpoint.part{i}" for i in (0, 1)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
