"""The versions of installed packages, and our own also where it runs from a checkout."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "maskgit-bench"
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def version_of(name: str) -> str:
    """The version of a distribution; of ours from pyproject.toml if it is not installed.

    Raises:
        PackageNotFoundError: there is no such distribution here.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        if name != PACKAGE or not PYPROJECT.is_file():
            raise
    with PYPROJECT.open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])
