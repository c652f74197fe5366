"""Versions of packages, and our own without an install."""

import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest

from maskgit.common import versions
from tests.paths import ROOT


def test_an_installed_package_says_its_own():
    assert versions.version_of("numpy") == version("numpy")


def test_a_checkout_that_is_not_installed_reads_its_own_from_pyproject(monkeypatch):
    def nowhere(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", nowhere)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert versions.version_of(project["name"]) == project["version"]
    with pytest.raises(PackageNotFoundError):
        versions.version_of("numpy")
